"""Reading the wish lists that the command line names."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from publisher.cli.rendering import echo
from publisher.errors import printable
from publisher.sources.settings import Settings
from publisher.sources.wish_lists import is_remote, list_identity, read_wish_list_document
from publisher.wishlist import MAX_BYTES, Problem, WishList, parse_wish_list
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
    path: str, settings: Settings, repository: str | None, *, allow_local: bool
) -> WishList:
    """Return the wish list at `path`; print its warnings to stderr.

    Args:
        path: A file, an address, or "-" for standard input.
        settings: How addresses are reached.
        repository: What replaces the repository that the list names, if anything does.
        allow_local: Whether an address may name files, engines and directories of this host.
    """
    wish_list = parse_wish_list(
        read_document(path, settings),
        path,
        allow_local=may_name_local(path, allow_local),
        repository_counts=not repository,
    )
    for problem in wish_list.warnings:
        echo(printable(str(problem)), err=True)
    return wish_list


def read_requests(
    paths: Sequence[str], repository: str | None, settings: Settings, *, allow_local: bool
) -> tuple[dict[str | None, list[Request]], list[Problem]]:
    """Return the requests of the wish lists by repository URL, and the errors of single wishes.

    The repository is `repository`, or without it the one that each list names.
    """
    requests: dict[str | None, list[Request]] = {}
    unusable: list[Problem] = []
    for path in paths:
        wish_list = read_wish_list(path, settings, repository, allow_local=allow_local)
        wanted = requests.setdefault(repository or wish_list.repository, [])
        wanted += [Request(wish, list_identity(path)) for wish in wish_list.wishes]
        unusable += wish_list.unusable
    return requests, unusable
