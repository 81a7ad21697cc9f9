"""Reading the wish lists that the command line names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from publisher.cli.failures import UsageError
from publisher.cli.rendering import echo
from publisher.errors import printable
from publisher.ingest.selection import ListedRequests, Selection
from publisher.oci.reference import ImageReference
from publisher.sources.settings import Settings
from publisher.sources.wish_lists import (
    is_remote,
    list_identity,
    lock_location,
    read_wish_list_document,
)
from publisher.times import utc_now
from publisher.wishlist import MAX_BYTES, Problem, WishList, WishListError, parse_wish_list
from publisher.wishlist.lock import Lock, LockError, locked_images, parse_lock
from publisher.wishlist.model import Request


def read_document(path: str, settings: Settings) -> bytes:
    """Return the bytes of a wish list, at most one more than a list may have.

    Args:
        path: A file, an address, or "-" for standard input.
        settings: How addresses are reached: certificates, proxies, mirrors.
    """
    if path == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    return read_wish_list_document(path, settings)


def may_name_local(path: str, allow_local: bool) -> bool:
    """Return whether the list at `path` may name files, engines and directories of this host."""
    return allow_local or not is_remote(path)


def read_wish_list(
    path: str,
    settings: Settings,
    repository: str | None,
    *,
    allow_local: bool,
    warnings: bool = True,
) -> WishList:
    """Return the wish list at `path`; print its warnings to stderr.

    Args:
        path: A file, an address, or "-" for standard input.
        settings: How addresses are reached.
        repository: What replaces the repository that the list names, if anything does.
        allow_local: Whether an address may name files, engines and directories of this host.
        warnings: Whether the warnings are printed.
    """
    wish_list = parse_wish_list(
        read_document(path, settings),
        path,
        allow_local=may_name_local(path, allow_local),
        repository_counts=not repository,
    )
    for problem in wish_list.warnings if warnings else ():
        echo(printable(str(problem)), err=True)
    return wish_list


def read_list(
    path: str,
    repository: str | None,
    settings: Settings,
    *,
    allow_local: bool,
    locked: bool = False,
    warnings: bool = True,
) -> ListedRequests:
    """Return the requests of a wish list.

    The repository is `repository`, or without it the one that the list names. If `locked`, the
    images of the requests are those of the list's lock.

    Raises:
        WishListError: The list, or its lock, cannot be read.
    """
    wish_list = read_wish_list(
        path, settings, repository, allow_local=allow_local, warnings=warnings
    )
    images = _locked_images(path, wish_list, settings) if locked else None
    identity = list_identity(path)
    requests = tuple(
        Request(wish, identity, images[number] if images else None)
        for number, wish in enumerate(wish_list.wishes)
    )
    return ListedRequests(
        identity, repository or wish_list.repository, requests, wish_list.unusable
    )


def selected_lists(lists: Sequence[ListedRequests], selection: Selection) -> list[ListedRequests]:
    """Return the lists without the errors of wishes that are not selected.

    Raises:
        UsageError: No wish can be selected.
    """
    if not selection.only:
        return list(lists)
    selected = [
        replace(each, unusable=tuple(p for p in each.unusable if selection.matches(p.subject)))
        for each in lists
    ]
    if not any(each.unusable or any(map(selection.may_match, each.requests)) for each in selected):
        raise UsageError(
            "cannot select wishes",
            why=f"no wish, and no name of an image, matches {' or '.join(selection.only)}",
            hint="see `publisher plan` for the names; a pattern is for example '*/astro/*'",
        )
    return selected


def read_requests(
    paths: Sequence[str],
    repository: str | None,
    settings: Settings,
    *,
    allow_local: bool,
    locked: bool = False,
) -> tuple[dict[str | None, list[Request]], list[Problem]]:
    """Return the requests of the wish lists by repository URL, and the errors of single wishes.

    See `read_list`.
    """
    requests: dict[str | None, list[Request]] = {}
    unusable: list[Problem] = []
    for path in paths:
        each = read_list(path, repository, settings, allow_local=allow_local, locked=locked)
        requests.setdefault(each.repository, []).extend(each.requests)
        unusable += each.unusable
    return requests, unusable


def read_all_requests(
    paths: Sequence[str], settings: Settings, *, allow_local: bool, locked: bool = False
) -> tuple[list[Request], list[Problem]]:
    """Return the requests of the wish lists, for any repository, and the errors of single wishes.

    `locked` as for `read_requests`.
    """
    any_repository = "."  # it replaces those of the lists
    requests, unusable = read_requests(
        paths, any_repository, settings, allow_local=allow_local, locked=locked
    )
    return requests.get(any_repository, []), unusable


def read_lock(path: str, settings: Settings) -> Lock:
    """Return the lock of the wish list at `path`; raise LockError if it is missing or damaged."""
    location = lock_location(path)
    if not (is_remote(location) or Path(location).exists()):
        raise LockError(
            f"cannot read lock {location}", why="no such file", hint=f"publisher lock {path}"
        )
    try:
        data = read_document(location, settings)
    except WishListError as error:
        hint = "add the lock beside the list, or omit --locked" if is_remote(location) else ""
        raise WishListError(
            f"cannot read lock {location}", why=error.why, hint=error.hint or hint
        ) from error
    return parse_lock(data, location, path)


def _locked_images(
    path: str, wish_list: WishList, settings: Settings
) -> list[dict[ImageReference, str]]:
    lock = read_lock(path, settings)
    return locked_images(lock, wish_list, lock_location(path), utc_now())
