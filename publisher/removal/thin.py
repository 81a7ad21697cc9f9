"""Delete the thin images of collected originals from the registries that they were pushed to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from publisher.errors import PublisherError
from publisher.oci.reference import Transport, parse_reference
from publisher.removal.books import Released
from publisher.removal.names import Target, published_places
from publisher.repository import Repository
from publisher.repository.reading import load_thin_record
from publisher.sources.open import Sources
from publisher.tree import layout


@dataclass(frozen=True, slots=True)
class DeletedThin:
    """What became of one thin image; `error` says why it is still there."""

    reference: str
    digest: str
    error: str = ""


def delete_thin_images(
    repository: Repository, released: Iterable[Released], sources: Sources
) -> list[DeletedThin]:
    """Delete the thin images of originals that are gone, as far as those were pushed to registries.

    One that serves a platform that is still published stays. Their records went with the originals:
    what cannot be deleted now is not tried again.
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
    """Whether another place of the same image still has the same thin image."""
    places = published_places(repository, Target(name))
    if name.startswith(f"{layout.MULTIARCH}/"):
        places += published_places(repository, Target(name.split("/", 2)[2]))
    records = (load_thin_record(repository, place) for place in places)
    return any(record is not None and record.digest == digest for record in records)
