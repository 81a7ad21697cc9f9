"""The option `--workers`, and the worker processes that unpack layers."""

from __future__ import annotations

import os

import click

from publisher.workers.pool import Workers

_KEPT = ("LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH")
"""What workers know of the environment: where Python and its libraries are."""

workers_option = click.option(
    "--workers",
    type=click.IntRange(0, 1024),
    default=0,
    show_default=True,
    envvar="PUBLISHER_WORKERS",
    show_envvar=True,
    help="How many processes unpack layers at a time; 0 unpacks them in the publisher's own "
    "process.",
)


def open_workers(count: int) -> Workers:
    """Return at most `count` worker processes, which are started when they are needed."""
    return Workers(count, {name: os.environ[name] for name in _KEPT if name in os.environ})
