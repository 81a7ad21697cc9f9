"""Reading wish lists from where the command line says they are."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from publisher.wishlist import WishList, WishListError, parse_wish_list


def read_wish_list(path: str) -> WishList:
    """The wish list in the file `path`, or on standard input for "-"; warnings go to stderr."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise WishListError(
            f"cannot read wish list {path}", why=error.strerror or str(error)
        ) from error
    wish_list = parse_wish_list(data, path)
    for problem in wish_list.warnings:
        click.echo(str(problem), err=True)
    return wish_list
