"""The kinds of jobs: one for each command that the service runs. Pure."""

from __future__ import annotations

import enum


class JobKind(enum.StrEnum):
    """What a job does: one command of the publisher."""

    INGEST_LIST = "ingest-list"
    INGEST_IMAGE = "ingest-image"
    PLAN = "plan"
    PRUNE = "prune"
    GC = "gc"
    VERIFY = "verify"
    SITE = "site"
    RECONCILE = "reconcile"

    @property
    def command(self) -> str:
        """The name of the command."""
        return "ingest" if self is JobKind.INGEST_LIST else str(self)

    @property
    def is_ingest(self) -> bool:
        """Whether a job of this kind publishes images."""
        return self in (JobKind.INGEST_LIST, JobKind.INGEST_IMAGE)

    @property
    def has_list(self) -> bool:
        """Whether a job of this kind concerns one wish list."""
        return self in (JobKind.INGEST_LIST, JobKind.PLAN)
