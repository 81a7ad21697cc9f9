"""How a run ends in order: its steps look whether it is to stop."""

from __future__ import annotations

import threading

from publisher.errors import PublisherError


class Interrupted(PublisherError):
    """The run was interrupted. Layers that are staged already are kept for the next run."""


def check_stop(stop: threading.Event) -> None:
    """Raise Interrupted if `stop` is set: the run is to stop."""
    if stop.is_set():
        raise Interrupted("cannot continue", why="the run was interrupted")
