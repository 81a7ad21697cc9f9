"""`publisher lock`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from publisher.cli.failures import DONE, SOME_FAILED, UsageError
from publisher.cli.files import rewrite_file
from publisher.cli.logs import log_options
from publisher.cli.options import jobs_option, output_option, wish_lists_argument
from publisher.cli.rendering import echo, failed_line, message, print_json
from publisher.cli.sources import load_settings, open_sources, source_options
from publisher.cli.wishlists import read_all_requests, read_lock
from publisher.errors import printable
from publisher.ingest.lock import LockUpdate, update_lock
from publisher.sizes import plural
from publisher.sources.settings import Settings
from publisher.sources.wish_lists import is_remote, lock_location
from publisher.times import utc_now
from publisher.wishlist import Problem
from publisher.wishlist.lock import Lock, LockError


@click.command()
@wish_lists_argument
@click.option(
    "--only-new",
    is_flag=True,
    help="Look up only wishes that the lock does not have; all other digests stay.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Change and look up nothing; fail if a lock is not that of its list, as --locked does.",
)
@jobs_option
@source_options
@output_option
@log_options
def lock(
    wishlists: tuple[str, ...],
    only_new: bool,
    check: bool,
    jobs: int,
    output: str,
    **source_settings: str | None,
) -> int:
    """Write the digests of the images that WISHLIST... request now to a lock beside each list.

    The lock of wishlist.yaml is wishlist.yaml.lock: one line per image, sorted, so that a review
    shows which images moved. `publisher ingest --locked` publishes exactly these. An image that
    cannot be resolved is named, and keeps its digest.

    \b
    publisher lock wishlist.yaml
    publisher lock --only-new wishlist.yaml
    publisher lock --check lists/*.yaml
    """
    settings = load_settings(source_settings)
    for path in wishlists:
        _require_file(path)
    values: list[dict[str, Any]] = []
    with open_sources(source_settings) as sources:
        for path in wishlists:
            requests, unusable = read_all_requests([path], settings, allow_local=True, locked=check)
            if check:
                values.append(_value(path, None, unusable))
                continue
            earlier = _earlier(path, settings, only_new)
            now = utc_now()
            update = update_lock(requests, earlier, sources, now, only_new=only_new, jobs=jobs)
            rewrite_file(lock_location(path), update.lock.to_text())
            values.append(_value(path, update, unusable))
    if output == "json":
        print_json("lock/1", {"locks": values})
    else:
        for value in values:
            _print(value)
    return SOME_FAILED if any(value["failed"] for value in values) else DONE


def _require_file(path: str) -> None:
    lock_location(path)
    if is_remote(path):
        raise UsageError(
            f"cannot lock {path}",
            why="it is an address, and the lock is written beside the list",
            hint="clone the repository of the list, and name the file",
        )


def _earlier(path: str, settings: Settings, only_new: bool) -> Lock:
    """Return the lock that is replaced; an empty one if it is missing or damaged."""
    if not Path(lock_location(path)).exists():
        return Lock({})
    try:
        return read_lock(path, settings)
    except LockError as error:
        if only_new:
            error.hint = f"publisher lock {path}"
            raise
        message(f"{error.what}: {error.why}")
        message("every image is looked up and locked anew", prefix="  ")
        return Lock({})


def _value(path: str, update: LockUpdate | None, unusable: Sequence[Problem]) -> dict[str, Any]:
    """Return what happened to the lock of one list; nothing if it was only checked."""
    failed = [
        {
            "reference": problem.subject,
            "line": problem.line,
            "column": problem.column,
            "error": problem.text,
        }
        for problem in unusable
    ]
    changes = update.changes if update else []
    for image in update.failed if update else ():
        wish = image.request.wish
        place = {"line": wish.line, "column": wish.column}
        failed.append({"reference": image.reference, **place, "error": image.error})
    return {
        "wishList": path,
        "lock": lock_location(path),
        "images": len(update.lock.digests) if update else None,
        "changes": [asdict(image) for image in changes],
        "failed": failed,
    }


def _print(value: dict[str, Any]) -> None:
    for image in value["changes"]:
        name, digest, earlier = (printable(image[k]) for k in ("reference", "digest", "earlier"))
        if digest and earlier:
            echo(f"moved: {name}  {earlier} -> {digest}")
        else:
            echo(f"{'new' if digest else 'removed'}: {name}")
    if value["images"] is not None:
        changed = len(value["changes"])
        echo(f"{value['lock']}: {plural(value['images'], 'image')}, {changed} changed")
    for failure in value["failed"]:
        place = value["wishList"], failure["line"], failure["column"]
        echo(failed_line(failure["reference"], failure["error"], *place), err=True)
