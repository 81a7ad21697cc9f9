"""The thin images of one run: which are outdated, their pushes, and the records of these."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from publisher.errors import failure_text
from publisher.ingest.wanted import RequestedImage
from publisher.oci.reference import parse_reference
from publisher.repository import Repository, ends_run
from publisher.sources.open import Sources
from publisher.wishlist import render_output_format
from publisher.wishlist.places import places_of

if TYPE_CHECKING:  # what builds and pushes is loaded when an image has a thin image
    from publisher.tree.thin_image import ThinRecord, ThinTerms


class ThinPushes:
    """Pushes the thin images of one run, and collects their records. Safe for threads."""

    def __init__(
        self, repository: Repository, sources: Sources, now: Callable[[], datetime]
    ) -> None:
        self._repository = repository
        self._sources = sources
        self._now = now
        self._lock = threading.Lock()
        self._pushed: list[tuple[str, ThinRecord]] = []

    def outdated(self, image: RequestedImage, digest: str) -> ThinTerms | None:
        """Return what has to be pushed for a published image; None if its thin image is current.

        `digest` is what the image's reference was resolved to. It is compared with the
        record of the last successful push, without requests to the registry.
        """
        wish = image.request.wish
        if "thin" not in wish.outputs or wish.thin is None:
            return None
        from publisher.ingest.thin_images import wanted_terms
        from publisher.repository.reading import load_thin_record

        text = render_output_format(wish.thin, image.reference, digest, wish.name)
        wanted = wanted_terms(self._repository, _places(image), parse_reference(text))
        found = load_thin_record(self._repository, image.name)
        return None if found is not None and found.terms == wanted else wanted

    def push(self, image: RequestedImage, wanted: ThinTerms) -> None:
        """Push the thin image; raise PublisherError if that fails."""
        from publisher.ingest.thin_images import build_thin
        from publisher.ingest.thin_push import push_thin
        from publisher.tree.thin_image import ThinRecord

        thin = build_thin(self._repository, _places(image))
        pushed = push_thin(thin, wanted.reference, self._sources)
        with self._lock:
            record = ThinRecord.of(wanted, pushed.digest, self._now())
            self._pushed.append((image.name, record))

    def record(self) -> dict[str, str]:
        """Record the pushed images in one transaction; if that fails, return the reason by image.

        Raises RepositoryError if the repository itself cannot be used.
        """
        with self._lock:
            pushed, self._pushed = self._pushed, []
        if not pushed:
            return {}
        from publisher.ingest.thin_images import write_records

        try:
            write_records(self._repository, pushed)
        except Exception as error:
            if ends_run(error):
                raise
            why = failure_text(error, "the records of thin images")
            return {name: why for name, _ in pushed}
        return {}


def _places(image: RequestedImage) -> list[str]:
    """Return the names of the images that the thin image consists of: one for each platform."""
    names = [name for _, name in places_of(image.request.wish, image.reference)]
    return names[1:] or names
