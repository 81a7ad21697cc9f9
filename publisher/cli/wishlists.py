"""Reading wish lists from where the command line says they are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from publisher.ingest import Request
from publisher.wishlist import MAX_BYTES, Problem, WishList, WishListError, parse_wish_list


def read_document(path: str) -> bytes:
    """What is in the file `path`, or on standard input for "-", up to what a wish list may be."""
    try:
        if path == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise WishListError(
            f"cannot read wish list {path}", why=error.strerror or str(error)
        ) from error


def read_wish_list(path: str) -> WishList:
    """The wish list in the file `path`, or on standard input for "-"; warnings go to stderr."""
    wish_list = parse_wish_list(read_document(path), path)
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
        wanted += [Request(wish, wish_list.name) for wish in wish_list.wishes]
        unusable += wish_list.unusable
    return requests, unusable
