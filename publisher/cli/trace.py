"""`publisher trace`."""

from __future__ import annotations

from datetime import timedelta

import click

from publisher.browse.hot_files import (
    DEFAULT_LIMIT,
    Options,
    Result,
    Status,
    remove_trace,
    trace_image,
)
from publisher.cli.failures import UsageError
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option, wait_option
from publisher.cli.published_names import complete_images
from publisher.cli.removal import Duration
from publisher.cli.rendering import echo, print_json
from publisher.cli.repositories import open_repository
from publisher.errors import printable
from publisher.sizes import human_size, plural
from publisher.times import utc_now
from publisher.tree.hot_files import HotFile

_NAMED = 5
"""How many of the files that are left out are named."""

_MB = 10**6


@click.command()
@click.argument("image", shell_complete=complete_images)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="MB",
    default=DEFAULT_LIMIT // _MB,
    show_default=True,
    help="How large all files of the list together may be; files that are opened first have "
    "precedence.",
)
@click.option(
    "--bundle",
    is_flag=True,
    help="Publish the list as a file bundle of CVMFS, too; clients prefetch its files as soon as "
    "the program is opened (CVMFS 2.14.1, with CVMFS_PREFETCH_FILEBUNDLES=yes).",
)
@click.option(
    "--trigger",
    metavar="PATH",
    help="The file of the image that triggers the bundle, instead of the program that is started.",
)
@click.option(
    "--timeout",
    type=Duration(),
    metavar="DURATION",
    help="End the program after that time (30s, 5m), and list what it opened until then.",
)
@click.option(
    "--no-entrypoint", is_flag=True, help="COMMAND replaces the image's entry point as well."
)
@click.option("--dry-run", is_flag=True, help="Print the files, and publish nothing.")
@click.option("--remove", "removes", is_flag=True, help="Remove the list and its bundle.")
@repository_option
@wait_option
@output_option
@log_options
def trace(
    image: str,
    command: tuple[str, ...],
    limit: int,
    bundle: bool,
    trigger: str | None,
    timeout: timedelta | None,
    no_entrypoint: bool,
    dry_run: bool,
    removes: bool,
    repository: str | None,
    wait: float,
    output: str,
) -> None:
    """Record which files of a published IMAGE a program opens, so that clients can prefetch them.

    The image's command, or COMMAND after "--", is run with bubblewrap and strace, which need no
    privileges: use a command that starts the program and ends. The list is published as
    .metadata/.hot-files/xx/IMAGE-ID.json, in place of an earlier one, and is collected with the
    image. The output of the program goes to stderr.

    Fails, and publishes nothing, if the program ends with another exit code than 0.

    \b
    publisher trace docker.io/library/python:3.13 -- python3 -c 'import numpy'
    publisher trace docker.io/library/nginx:1 --timeout 5s --dry-run
    publisher trace quay.io/a/casa:6 --repository cvmfs:images.example.org --bundle -- casa --help
    publisher trace docker.io/library/python:3.13 --remove
    """
    if removes and (command or dry_run or bundle or trigger):
        raise UsageError("cannot use --remove", why="it is used with IMAGE only")
    if trigger and not bundle:
        raise UsageError("cannot use --trigger", why="it is used with --bundle only")
    opened = open_repository(repository, writable=not dry_run, wait=wait)
    try:
        if removes:
            result = remove_trace(opened, image)
        else:
            options = Options(
                limit * _MB,
                bundle,
                trigger or "",
                not no_entrypoint,
                timeout.total_seconds() if timeout is not None else None,
            )
            result = trace_image(opened, image, command, options, utc_now, dry_run=dry_run)
    finally:
        opened.close()
    if output == "json":
        print_json("trace/1", _value(result))
    else:
        _print(result, limit, names_files=dry_run)


def _value(result: Result) -> dict[str, object]:
    record = result.record
    return {
        "image": result.name,
        "imageId": result.image_id,
        "status": str(result.status),
        "path": result.path,
        "bundle": record.bundle_path if record else "",
        "command": list(record.command) if record else [],
        "bytes": record.size if record else 0,
        "files": _files(record.files) if record else [],
        "leftOut": _files(result.left_out),
    }


def _files(files: tuple[HotFile, ...]) -> list[dict[str, object]]:
    return [{"path": file.path, "bytes": file.size} for file in files]


def _print(result: Result, limit: int, *, names_files: bool) -> None:
    record = result.record
    if record is not None:
        for file in record.files if names_files else ():
            echo(f"{human_size(file.size):>9}  {printable(file.path)}")
        size = human_size(record.size)
        echo(f"{result.name}: {plural(len(record.files), 'file')}, {size}")
    if result.left_out:
        size = human_size(sum(file.size for file in result.left_out))
        names = ", ".join(printable(file.path) for file in result.left_out[:_NAMED])
        more = ", …" if len(result.left_out) > _NAMED else ""
        count = plural(len(result.left_out), "file")
        echo(f"left out, because of --limit {limit}: {count}, {size}: {names}{more}")
    if record is not None and record.bundle_path:
        echo(f"bundle: {printable(record.bundle_path)}")
    if result.status is Status.NOT_PUBLISHED:
        echo(f"nothing was published (--dry-run); it would be {result.path}")
    else:
        echo(f"{result.status}: {result.path}")
