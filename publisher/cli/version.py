"""`publisher version`."""

from __future__ import annotations

import platform

import click

import publisher
from publisher.cli.options import output_option
from publisher.cli.rendering import print_json


@click.command()
@output_option
def version(output: str) -> None:
    """Print the version of the publisher, and of the Python that runs it."""
    if output == "json":
        value = {"version": publisher.__version__, "python": platform.python_version()}
        print_json("version/1", value)
    else:
        click.echo(f"publisher {publisher.__version__} (Python {platform.python_version()})")
