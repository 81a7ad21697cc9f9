"""`publisher check`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from publisher.cli.failures import DONE, SOME_FAILED, USAGE, UsageError
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
from publisher.errors import PublisherError, explain, printable
from publisher.ingest.check import Report
from publisher.ingest.check import check as run_check
from publisher.ingest.check_image import CheckedImage, Target
from publisher.ingest.findings import Level
from publisher.repository.settings import load_policy
from publisher.sources.revisions import EarlierList, earlier_list
from publisher.wishlist.changes import Change


@click.command()
@wish_lists_argument
@click.option(
    "--base",
    metavar="REVISION|FILE",
    help="Look up only the wishes that were added or altered since this git revision, or this "
    "earlier version of the list. What was wrong before is a note, and not a failure.",
)
@click.option(
    "--all",
    "check_all",
    is_flag=True,
    help="With --base: look up the unchanged wishes too, and report those that fail as notes, with "
    "their owners.",
)
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
    base: str | None,
    check_all: bool,
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
    here, and so is the part of each image that is not published yet.

    With --base, only what a change adds or alters is looked up, which suits pull requests: see
    docs/pull-requests.md.

    \b
    publisher check wishlist.yaml
    publisher check --offline lists/*.yaml
    publisher check wishlist.yaml --base origin/main
    """
    settings = load_settings(source_settings)
    documents = [(path, read_document(path, settings)) for path in wishlists]
    bases = _bases(wishlists, base)
    with ExitStack() as stack:
        sources = None if offline else stack.enter_context(open_sources(source_settings))
        report = run_check(
            documents,
            sources,
            repository=repository,
            target_of=lambda url: stack.enter_context(_target(url)),
            untrusted=[path for path in wishlists if not may_name_local(path, allow_local)],
            today=datetime.now(UTC).date(),
            jobs=jobs,
            bases=bases,
            check_all=check_all,
        )
    if output == "json":
        _print_json(report)
    else:
        _print(report, quiet)
    if report.errors:
        return USAGE
    return SOME_FAILED if report.has(Level.ERROR) else DONE


def _bases(wishlists: Sequence[str], base: str | None) -> dict[str, EarlierList]:
    """Return the earlier versions of the lists, by name; none without --base."""
    if base is None:
        return {}
    if len(wishlists) > 1 and Path(base).is_file():
        raise UsageError(
            f"cannot compare {len(wishlists)} lists with the file {base}",
            why="it is the earlier version of one list",
            hint="check one list at a time, or give a git revision",
        )
    return {path: earlier_list(path, base) for path in wishlists}


@contextmanager
def _target(url: str | None) -> Iterator[Target]:
    """Yield what is known of a repository: the default limits where it is not readable here."""
    if not url:
        yield Target()
        return
    try:
        opened = open_repository(url, may_be_new=True)
    except (PublisherError, OSError) as error:
        yield Target(problem=explain(error).why)
        return
    try:
        try:
            target = Target(load_policy(opened).limits, opened)
        except (PublisherError, OSError) as error:
            target = Target(problem=explain(error).why)
        yield target
    finally:
        opened.close()


def _print_json(report: Report) -> None:
    compared = [each for each in report.lists if each.base is not None]
    print_json(
        "check/1",
        {
            "wishes": report.wishes,
            "problems": [asdict(problem) for problem in report.problems],
            "images": [_value(image) for image in report.images],
            "downloadBytes": report.download_size,
            "newBytes": report.new_size,
            "findings": [asdict(finding) for finding in report.findings],
            "comparisons": [
                {
                    "wishList": each.name,
                    "base": each.base.name if each.base else "",
                    "removed": len(each.changes.removed),
                }
                | {str(change): each.changes.count(change) for change in Change}
                for each in compared
            ],
            "seconds": round(report.seconds, 3),
        },
    )


def _value(image: CheckedImage) -> dict[str, object]:
    value: dict[str, object] = {
        "name": image.name,
        "reference": image.reference,
        "wishList": image.wish_list,
        "line": image.line,
        "column": image.column,
        "owner": image.owner,
        "change": image.change,
    }
    if image.error:
        return value | {"status": "failed", "error": image.error}
    return value | {
        "status": "ok",
        "digest": image.digest,
        "platforms": list(image.platforms),
        "layers": len(image.layers),
        "compressedBytes": image.size,
        "newBytes": image.new_size,
        "created": image.created,
        "seconds": round(image.seconds, 3),
    }


def _print(report: Report, quiet: bool) -> None:
    for image in report.images:
        if not (quiet or image.error):
            layers = plural(len(image.layers), "layer")
            size = f"{human_size(image.size)} in {layers}{_new(image.new_size)}"
            echo(f"ok: {image.name}  {size}  {', '.join(image.platforms)}")
    of_images = {finding for image in report.failed for finding in image.findings}
    for finding in report.findings:
        if finding not in of_images and not (quiet and finding.level is Level.NOTE):
            echo(printable(str(finding)))
    for image in report.failed:
        place = image.wish_list, image.line, image.column
        echo(failed_line(image.name, image.error, *place))
    if not quiet:
        echo(", ".join(_counts(report)))


def _new(size: int | None) -> str:
    return "" if size is None else f", {human_size(size)} of it new"


def _counts(report: Report) -> Iterator[str]:
    yield plural(report.wishes, "wish").replace("wishs", "wishes")
    for each in report.lists:
        if each.base is not None:
            changed = {change: each.changes.count(change) for change in Change}
            altered = changed[Change.ALTERED] + changed[Change.TERMS]
            yield (
                f"{changed[Change.ADDED]} added, {altered} altered, {len(each.changes.removed)} "
                f"removed since {each.base.name}"
            )
    found = [image for image in report.images if not image.error]
    if report.images:
        size = human_size(report.download_size) + _new(report.new_size)
        yield f"{plural(len(found), 'image')} found ({size})"
    of_images = {finding for image in report.failed for finding in image.findings}
    problems = [finding for finding in report.findings if finding not in of_images]
    for count, what in (
        (len(report.failed), "failure"),
        (sum(f.level is Level.ERROR for f in problems), "error"),
        (sum(f.level is Level.WARNING for f in problems), "warning"),
        (sum(f.level is Level.NOTE for f in problems), "note"),
    ):
        if count:
            yield plural(count, what)
