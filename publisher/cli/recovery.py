"""`python -m publisher.cli.recovery URL`: the service ends what a killed command has left open."""

from __future__ import annotations

import sys

import click

from publisher.cli.failures import DONE, run_reporting_failures
from publisher.cli.repositories import open_repository


@click.command()
@click.argument("url")
def recover(url: str) -> int:
    """Open the repository as a writer does, which recovers it unless another one is at work."""
    open_repository(url, writable=True).close()
    return DONE


if __name__ == "__main__":
    sys.exit(run_reporting_failures(recover))
