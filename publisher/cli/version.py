"""`publisher version`."""

from __future__ import annotations

import platform

import click

import publisher
from publisher.cli.options import output_option
from publisher.cli.rendering import echo, print_json


@click.command()
@output_option
def version(output: str) -> None:
    """Print the version of the publisher and of its Python, as --version does."""
    if output == "json":
        value = {"version": publisher.__version__, "python": platform.python_version()}
        print_json("version/1", value)
    else:
        echo(version_line())


def version_line() -> str:
    """Return the versions as one line."""
    return f"publisher {publisher.__version__} (Python {platform.python_version()})"
