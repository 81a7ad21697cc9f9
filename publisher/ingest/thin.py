"""Thin images of what an ingest publishes: pushed after the commit, and again where that failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime

from publisher.ingest.thin_images import build_thin, wanted_terms, write_records
from publisher.ingest.thin_push import push_thin
from publisher.oci.reference import ImageReference, parse_reference
from publisher.repository import Repository
from publisher.repository.reading import load_thin_record
from publisher.sources.open import Sources
from publisher.tree.thin_image import ThinRecord, ThinTerms
from publisher.wishlist import Wish, render_output_format


class ThinPushes:
    """Pushes the thin images of one run, and keeps what to record of them. Safe for threads."""

    def __init__(
        self, repository: Repository, sources: Sources, now: Callable[[], datetime]
    ) -> None:
        self._repository = repository
        self._sources = sources
        self._now = now
        self._lock = threading.Lock()
        self._pushed: list[tuple[str, ThinRecord]] = []

    def outdated(
        self, wish: Wish, reference: ImageReference, digest: str, names: Sequence[str]
    ) -> ThinTerms | None:
        """What has to be pushed for the image published under `names`; None for nothing.

        The record of the last push tells, so that an image that is current costs no request; a
        push that failed has left none. `names` begins with the plain path, which the places of
        several platforms follow.
        """
        if "thin" not in wish.outputs or wish.thin is None:
            return None
        thin = parse_reference(render_output_format(wish.thin, reference, digest, wish.name))
        wanted = wanted_terms(self._repository, names[1:] or names, thin)
        found = load_thin_record(self._repository, names[0])
        return None if found is not None and found.terms == wanted else wanted

    def push(self, wanted: ThinTerms, names: Sequence[str]) -> None:
        """Push; raises PublisherError, after which the next run tries again."""
        thin = build_thin(self._repository, names[1:] or names)
        pushed = push_thin(thin, wanted.reference, self._sources)
        with self._lock:
            record = ThinRecord.of(wanted, pushed.digest, self._now())
            self._pushed.append((names[0], record))

    def record(self) -> None:
        """Write down, in one transaction, what was pushed."""
        with self._lock:
            write_records(self._repository, self._pushed)
            self._pushed.clear()
