"""Delete the thin images of collected originals from the registries that they were pushed to."""

from __future__ import annotations

from collections.abc import Iterable

from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.oci.reference import Transport, parse_reference
from publisher.removal.reference_counts import Released
from publisher.repository import Repository
from publisher.repository.published import published_places
from publisher.repository.reading import load_thin_record
from publisher.sources.open import Sources
from publisher.tree import layout


@dataclass(frozen=True, slots=True)
class DeletedThin:
    """The outcome for one thin image; `error` is why it was not deleted."""

    reference: str
    digest: str
    error: str = ""


def delete_thin_images(
    repository: Repository, released: Iterable[Released], sources: Sources
) -> list[DeletedThin]:
    """Delete the thin images of collected originals from the registries that they were pushed to.

    A thin image that a published platform of the image still uses is kept. A failed deletion is not
    tried again, since the record of the thin image was deleted with the original.
    """
    outcomes: dict[tuple[str, str], DeletedThin] = {}
    for each in released:
        record = each.thin
        if record is None or _is_used(repository, each.entry.name, record.digest):
            continue
        reference = parse_reference(record.reference)
        key = (record.reference, record.digest)
        if reference.transport is not Transport.REGISTRY or key in outcomes:
            continue
        error = ""
        try:
            sources.destination(reference, delete=True).delete_manifest(record.digest)
        except (PublisherError, OSError) as failure:
            error = str(failure)
        outcomes[key] = DeletedThin(*key, error)
    return list(outcomes.values())


def _is_used(repository: Repository, name: str, digest: str) -> bool:
    """Return whether the image is published for another platform with the same thin image."""
    plain = layout.split_platform(name)[1]
    places = {*published_places(repository, name), *published_places(repository, plain)}
    records = (load_thin_record(repository, place) for place in places)
    return any(record is not None and record.digest == digest for record in records)
