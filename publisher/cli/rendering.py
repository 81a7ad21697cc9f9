"""How results and messages are printed: JSON documents, counts, lines on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

import click

from publisher.errors import PublisherError, printable


def print_json(kind: str, value: Mapping[str, object]) -> None:
    """Print a result document; `kind` names its schema and version, such as "list/1"."""
    print_as_it_is(json_text(kind, value))


def print_as_it_is(text: str) -> None:
    """Print a whole result, whose parts from outside were escaped when it was made."""
    click.echo(text, nl=False)


def json_text(kind: str, value: Mapping[str, object]) -> str:
    """Return a result document as text: see `print_json`."""
    return json.dumps({"schema": f"publisher/{kind}", **value}, indent=1) + "\n"


def echo(text: str, *, err: bool = False) -> None:
    """Print a line of a result, or on stderr. Control characters are escaped, but line breaks.

    Where text from outside must not begin a line of its own, it goes through `printable` before.
    """
    click.echo(printable(text, keep_line_breaks=True), err=err)


def message(text: str, *, prefix: str = "publisher: ") -> None:
    """Print a line on stderr, above the live display if there is one.

    `click.echo` bypasses the stream with which rich replaces sys.stderr while it displays
    something, so that its lines and the live ones would be written over each other.
    """
    print(f"{prefix}{printable(text)}", file=sys.stderr, flush=True)


def warn(error: PublisherError) -> None:
    """Print on stderr an error that does not end the command."""
    message(f"{error.what}: {error.why}")
    if error.hint:
        message(f"try: {error.hint}", prefix="  ")


def failed_line(
    name: str,
    error: str,
    wish_list: str = "",
    line: int = 0,
    column: int = 0,
    *,
    status: str = "failed",
) -> str:
    """Return the line for an image that failed, as compilers print one: with its wish's place."""
    place = f"{wish_list or '-'}:{line}:{column}: " if line else ""
    return printable(f"{place}{status}: {name}: {error}")
