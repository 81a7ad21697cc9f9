"""Reading wish lists from where the command line says they are."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from publisher.cli.sources import load_settings
from publisher.sources.settings import Settings
from publisher.sources.wish_lists import list_identity, read_wish_list_document
from publisher.wishlist import MAX_BYTES, Problem, WishList, parse_wish_list
from publisher.wishlist.model import Request


def read_document(path: str, settings: Settings | None = None) -> bytes:
    """A wish list's text, up to what one may have: a file, an address, standard input for "-".

    `settings` say how addresses are reached; without them the environment and the usual
    configuration do.
    """
    if path == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    return read_wish_list_document(path, settings or load_settings({}))


def read_wish_list(path: str, settings: Settings | None = None) -> WishList:
    """The wish list at `path`, as `read_document` has it; warnings go to stderr."""
    wish_list = parse_wish_list(read_document(path, settings), path)
    for problem in wish_list.warnings:
        click.echo(str(problem), err=True)
    return wish_list


def read_requests(
    paths: Sequence[str], repository: str | None
) -> tuple[dict[str | None, list[Request]], list[Problem]]:
    """What the wish lists ask for, by repository URL, and the problems that spoil single wishes.

    The repository is the one that a list names, unless `repository` says otherwise.
    """
    requests: dict[str | None, list[Request]] = {}
    unusable: list[Problem] = []
    for path in paths:
        wish_list = read_wish_list(path)
        wanted = requests.setdefault(repository or wish_list.repository, [])
        wanted += [Request(wish, list_identity(path)) for wish in wish_list.wishes]
        unusable += wish_list.unusable
    return requests, unusable
