"""`publisher check`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime

import click

from publisher.cli.failures import DONE, SOME_FAILED, USAGE
from publisher.cli.options import (
    allow_local_option,
    debug_option,
    jobs_option,
    output_option,
    quiet_option,
    repository_option,
    wish_lists_argument,
)
from publisher.cli.rendering import echo, failed_line, human_size, plural, print_json
from publisher.cli.repositories import open_repository
from publisher.cli.sources import load_settings, open_sources, source_options
from publisher.cli.wishlists import may_name_local, read_document
from publisher.errors import PublisherError, printable
from publisher.ingest.check import CheckedImage, Report
from publisher.ingest.check import check as run_check
from publisher.layers.policy import Limits
from publisher.repository.settings import load_policy


@click.command()
@wish_lists_argument
@click.option(
    "--offline", is_flag=True, help="Check the lists only, without requests to registries."
)
@repository_option
@jobs_option
@source_options
@allow_local_option
@quiet_option
@output_option
@debug_option
def check(
    wishlists: tuple[str, ...],
    offline: bool,
    allow_local: bool,
    repository: str | None,
    jobs: int,
    quiet: bool,
    output: str,
    **source_settings: str | None,
) -> int:
    """Find the errors in the wish lists WISHLIST... ("-" reads standard input).

    Nothing is published, fetched or changed. Every error is printed with its place and with what to
    write instead. Then each image is looked up in its registry, for the platforms of the wish,
    unless --offline is given. The limits for sizes are those of the repository, if it is readable
    here.

    \b
    publisher check wishlist.yaml
    publisher check --offline lists/*.yaml
    """
    settings = load_settings(source_settings)
    documents = [(path, read_document(path, settings)) for path in wishlists]
    with ExitStack() as stack:
        sources = None if offline else stack.enter_context(open_sources(source_settings))
        report = run_check(
            documents,
            sources,
            repository=repository,
            limits_of=_limits_of,
            untrusted=[path for path in wishlists if not may_name_local(path, allow_local)],
            today=datetime.now(UTC).date(),
            jobs=jobs,
        )
    if output == "json":
        _print_json(report)
    else:
        _print(report, quiet)
    if report.errors:
        return USAGE
    return SOME_FAILED if report.failed else DONE


def _limits_of(repository: str | None) -> Limits:
    """Return the limits of the repository; the defaults where it cannot be read on this host."""
    if not repository:
        return Limits()
    try:
        opened = open_repository(repository, may_be_new=True)
        try:
            return load_policy(opened).limits
        finally:
            opened.close()
    except (PublisherError, OSError):
        return Limits()


def _print_json(report: Report) -> None:
    print_json(
        "check/1",
        {
            "wishes": report.wishes,
            "problems": [asdict(problem) for problem in report.problems],
            "images": [_value(image) for image in report.images],
            "downloadBytes": report.download_size,
        },
    )


def _value(image: CheckedImage) -> dict[str, object]:
    value: dict[str, object] = {
        "name": image.name,
        "reference": image.reference,
        "wishList": image.wish_list,
        "line": image.line,
        "column": image.column,
    }
    if image.error:
        return value | {"status": "failed", "error": image.error}
    return value | {
        "status": "ok",
        "digest": image.digest,
        "platforms": list(image.platforms),
        "layers": len(image.layers),
        "compressedBytes": sum(image.layers.values()),
    }


def _print(report: Report, quiet: bool) -> None:
    for image in report.images:
        if not (quiet or image.error):
            size = human_size(sum(image.layers.values()))
            layers = plural(len(image.layers), "layer")
            echo(f"ok: {image.name}  {size} in {layers}  {', '.join(image.platforms)}")
    for problem in report.problems:
        echo(printable(str(problem)))
    for image in report.failed:
        place = image.wish_list, image.line, image.column
        echo(failed_line(image.name, image.error, *place))
    if quiet:
        return
    counts = [plural(report.wishes, "wish").replace("wishs", "wishes")]
    if report.images:
        found = len(report.images) - len(report.failed)
        counts.append(f"{plural(found, 'image')} found ({human_size(report.download_size)})")
    warnings = len(report.problems) - len(report.errors)
    for count, what in (
        (len(report.failed), "failure"),
        (len(report.errors), "error"),
        (warnings, "warning"),
    ):
        if count:
            counts.append(plural(count, what))
    echo(", ".join(counts))
