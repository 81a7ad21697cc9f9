"""The errors of worker processes."""

from __future__ import annotations

from publisher.errors import PublisherError, explain, is_process_limit


class WorkerFailed(PublisherError):
    """A worker process cannot be started, or its answer cannot be used."""


class WorkerNotStarted(WorkerFailed):
    """A worker process cannot be started."""


class WorkerEnded(WorkerFailed):
    """A worker process ended before it answered.

    `status` is its exit code, or the negative number of the signal that ended it; None if that is
    unknown.
    """

    def __init__(self, what: str, *, status: int | None, why: str, hint: str = "") -> None:
        super().__init__(what, why=why, hint=hint)
        self.status = status


def not_started(error: Exception) -> WorkerNotStarted:
    """Return the error for a worker that cannot be started because of `error`."""
    found = explain(error)
    hint = "unpack in the publisher's own process: --workers 0"
    if is_process_limit(error):
        hint = f"{found.hint}, or {hint}"
    return WorkerNotStarted("cannot start a worker process", why=found.why, hint=hint)
