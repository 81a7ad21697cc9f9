"""The option `--workers`, and the worker processes that unpack layers."""

from __future__ import annotations

import os
from collections.abc import Callable

import click

from publisher.workers.pool import Workers

_KEPT = ("LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH")
"""What workers know of the environment: where Python and its libraries are."""

workers_option = click.option(
    "--workers",
    type=click.IntRange(0, 1024),
    envvar="PUBLISHER_WORKERS",
    show_envvar=True,
    help="How many processes unpack layers, or read contents, at a time; the default is one per "
    "processor. With 0, the process that has the credentials does both.",
)


def open_workers(count: int | None, keep_reading: Callable[[], None] = lambda: None) -> Workers:
    """Return at most `count` worker processes, which are started when they are needed.

    None is one for each processor that this process may use. `keep_reading` is that of `Workers`.
    """
    if count is None:
        count = len(os.sched_getaffinity(0))
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return Workers(count, environment, keep_reading=keep_reading)
