"""The values that describe a repository itself, each read at the cost of a few files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

from publisher.errors import PublisherError
from publisher.metrics import families
from publisher.metrics.families import Update, value
from publisher.repository import Repository, RepositoryError
from publisher.repository.cvmfs.repository import CvmfsRepository
from publisher.repository.directory.repository import DirectoryRepository
from publisher.repository.reading import load_pins, load_schedule


def repository_updates(repository: Repository, label: str, now: datetime) -> Iterator[Update]:
    """Yield the size of the schedule, the free space, and the revision of `repository`.

    `label` is its name in the metrics.

    The cost depends on the number of scheduled images, never on that of published ones. What cannot
    be read keeps its earlier value.
    """
    scope = (label,)
    with suppress(PublisherError, OSError):  # nothing is published, or `verify` reports it
        entries = load_schedule(repository).entries
        pins = load_pins(repository)
        due = sum(e.not_before <= now and pins.find(*e.key, now) is None for e in entries)
        yield value(families.SCHEDULED, scope, len(entries))
        yield value(families.DUE, scope, due)
    with suppress(PublisherError, OSError):
        free = repository.free_space()
        if free is not None:
            yield value(families.FREE, scope, free)
    if isinstance(repository, DirectoryRepository):
        with suppress(OSError):
            status = os.statvfs(repository.root)
            yield value(families.CAPACITY, scope, status.f_blocks * status.f_frsize)
    elif isinstance(repository, CvmfsRepository):
        with suppress(RepositoryError):
            yield value(families.REVISION, scope, repository.configuration.published().revision)
