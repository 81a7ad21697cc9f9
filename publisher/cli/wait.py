"""`publisher wait`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from publisher.browse.wait import ImageWait, WaitResult
from publisher.cli.failures import DONE, TIMED_OUT, UsageError
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option
from publisher.cli.published_names import complete_images
from publisher.cli.removal import Duration
from publisher.cli.rendering import echo, message, print_json
from publisher.cli.replicas import describe_replica, open_replicas, replica_options, replica_value
from publisher.cli.repositories import open_repository
from publisher.cli.state import open_state
from publisher.cli.status import describe_failure
from publisher.durations import duration_text
from publisher.oci.digest import is_digest
from publisher.oci.reference import parse_reference
from publisher.repository import Repository
from publisher.repository.published import find_name
from publisher.sources.http.clock import Clock
from publisher.times import format_time, utc_now
from publisher.tree import layout


@click.command()
@click.argument("image", shell_complete=complete_images)
@click.option(
    "--digest",
    metavar="DIGEST",
    help="Wait until the image has this digest: that of its manifest, or of the index that its tag "
    "names.",
)
@click.option(
    "--timeout",
    type=Duration(),
    metavar="DURATION",
    default="30m",
    show_default=True,
    help="How long to wait (90s, 30m, 2h). With 0s, look once.",
)
@replica_options
@repository_option
@output_option
@log_options
def wait(
    image: str,
    digest: str | None,
    timeout: timedelta,
    addresses: tuple[str, ...],
    public_key: Path | None,
    repository: str | None,
    output: str,
) -> int:
    """Wait until an image is published, and with --replica until replicas serve it.

    IMAGE is a name as `publisher list` prints it, or an image reference. A replica serves the image
    as soon as its revision is at least that of the repository at the moment when the image was
    found in it. --replica needs a CVMFS repository: cvmfs:NAME on the publishing host, or the path
    of its mount on another machine. Ends with 6 if the time is over, and with 1 if a replica serves
    another repository or has a wrong signature.

    \b
    publisher wait docker.io/library/debian:stable --repository dir:/srv/images
    publisher wait registry.example.org/astro/tool:1 --digest "$DIGEST" --timeout 2h
    publisher wait registry.example.org/astro/tool:1 --repository cvmfs:images.example.org \\
        --replica http://stratum1.example.org/cvmfs/images.example.org
    """

    def open_again() -> Repository:
        return open_repository(repository, may_be_new=True)

    def failure_of(name: str) -> str:
        with open_state(repository, note=lambda text: None) as state:
            known = [tries for tries in state.wishes() if tries.name == name]
        return "; ".join(filter(None, (describe_failure(t, utc_now()) for t in known)))

    opened = open_again()
    name = find_name(opened, image)
    wanted = _read_digest(digest, image)
    replicas = open_replicas(addresses, public_key, opened)
    try:
        awaited = ImageWait(open_again, name, wanted, failure_of, replicas, message, Clock())
        result = awaited.run(timeout.total_seconds())
    finally:
        if replicas is not None:
            replicas.close()
    if output == "json":
        print_json("wait/1", _value(result))
    else:
        _print(result)
    if not result.missing:
        return DONE
    message(f"cannot wait longer than {duration_text(timeout)} for {name}")
    message(f"why: {result.missing}", prefix="  ")
    hint = f"publisher status {name}" if result.image is None else "cvmfs_server snapshot there"
    message(f"try: {hint}, or a longer --timeout", prefix="  ")
    return TIMED_OUT


def _read_digest(digest: str | None, image: str) -> str:
    """Return the digest that the image must have: the option's, or that of NAME:TAG@DIGEST."""
    if digest is not None:
        if not is_digest(digest):
            raise UsageError(
                "cannot use --digest",
                why=f"{digest!r} is not a digest",
                hint="write sha256: and 64 hexadecimal digits",
            )
        return digest
    if layout.is_never_a_reference(image):
        return ""
    reference = parse_reference(image)
    return reference.digest or "" if reference.tag is not None else ""


def _print(result: WaitResult) -> None:
    if result.image is not None:
        published = result.image.publication
        since = f" since {format_time(published.published_at)}" if published else ""
        echo(f"{result.name}: published{since}, {result.image.manifest_digest}")
    for state in result.replicas:
        if state.found is not None:
            echo(f"{state.url}: {describe_replica(state.found, result.revision)}")


def _value(result: WaitResult) -> dict[str, object]:
    image = result.image
    published = image.publication if image else None
    return {
        "name": result.name,
        "published": image is not None,
        "manifestDigest": image.manifest_digest if image else None,
        "sourceDigest": published.source_digest if published else None,
        "publishedAt": format_time(published.published_at) if published else None,
        "revision": result.revision.number if result.revision else None,
        "replicas": [
            replica_value(state.url, state.found, state.problem) | {"hasImage": state.has_image}
            for state in result.replicas
        ],
        "missing": result.missing,
    }
