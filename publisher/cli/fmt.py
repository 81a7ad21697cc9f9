"""`publisher fmt`."""

from __future__ import annotations

import difflib

import click

from publisher.cli.failures import CHANGES_PENDING, DONE, UsageError
from publisher.cli.files import rewrite_file
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, wish_lists_argument
from publisher.cli.rendering import echo, message, print_json
from publisher.cli.wishlists import read_document
from publisher.errors import printable
from publisher.sizes import plural
from publisher.sources.settings import Settings
from publisher.sources.wish_lists import is_remote
from publisher.wishlist.formatting import format_wish_list


@click.command()
@wish_lists_argument
@click.option(
    "--check", is_flag=True, help="Change nothing; end with 4 if a list is not in its normal form."
)
@click.option("--diff", is_flag=True, help="Print the changes, and change nothing.")
@output_option
@log_options
def fmt(wishlists: tuple[str, ...], check: bool, diff: bool, output: str) -> int:
    """Write the wish lists WISHLIST... in their normal form ("-": standard input to output).

    Comments are kept, and so are the wishes and their order. Indentation, quotes and the order of
    keys become the same in all lists, and each image is written with its host and tag:
    docker.io/library/debian:latest for debian. A list with errors is not changed.

    \b
    publisher fmt wishlist.yaml
    publisher fmt --check --diff lists/*.yaml
    publisher fmt - < wishlist.yaml
    """
    changed: dict[str, tuple[str, str]] = {}
    for path in wishlists:
        if is_remote(path):
            raise UsageError(
                f"cannot format {path}",
                why="it is an address, and fmt changes files",
                hint="clone the repository of the list, and name the file",
            )
        data = read_document(path, Settings())
        formatted = format_wish_list(data, path)
        if path == "-" and not (check or diff or output == "json"):
            echo(formatted.removesuffix("\n"))
        elif data != formatted.encode():
            changed[path] = (data.decode("utf-8-sig"), formatted)
    if not (check or diff):
        for path, (_, formatted) in changed.items():
            rewrite_file(path, formatted)
    if output == "json":
        lists = [{"path": path, "changed": path in changed} for path in wishlists]
        print_json("fmt/1", {"wishLists": lists, "written": not (check or diff)})
    else:
        _print(changed, check, diff)
    return CHANGES_PENDING if check and changed else DONE


def _print(changed: dict[str, tuple[str, str]], check: bool, diff: bool) -> None:
    for path, (before, after) in changed.items():
        if diff:
            lines = (before.splitlines(keepends=True), after.splitlines(keepends=True))
            for line in difflib.unified_diff(*lines, path, path):
                echo(printable(line.rstrip("\n")))
        else:
            message(f"{'not in normal form' if check else 'formatted'}: {path}", prefix="")
    if check and changed:
        message(f"{plural(len(changed), 'list')} not in normal form")
        message(f"try: publisher fmt {' '.join(changed)}", prefix="  ")
