"""The bills of materials of an image that is about to be published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from publisher.ingest.wanted import Item
from publisher.lazy import dataclass
from publisher.repository import Repository, RepositoryChanged
from publisher.repository.records import RecordSet
from publisher.sbom.output import OUTPUT, bill_of_materials, has_files


@dataclass(frozen=True, slots=True)
class Bills:
    """Documents by their paths, and the first error because of which others could not be made."""

    documents: Mapping[str, bytes]
    error: Exception | None = None


def make_bills(repository: Repository, items: Sequence[Item]) -> Bills:
    """Return the documents of those `items` that request them, and do not have them yet.

    Args:
        repository: Contains the layers, published or staged.
        items: One image, for all its platforms and names.

    Raises:
        RepositoryChanged: A layer was removed after it was staged or found.
    """
    documents: dict[str, bytes] = {}
    first: Exception | None = None
    for item in items:
        if OUTPUT not in item.wanted.outputs or _has_bill(repository, item):
            continue
        layers = [layer.digest for layer in item.image.manifest.layers]
        try:
            documents |= bill_of_materials(
                repository, item.name, item.manifest_digest, layers, item.image.config
            )
        except Exception as error:
            if isinstance(error, RepositoryChanged):
                raise
            first = first or error
    return Bills(documents, first)


def _has_bill(repository: Repository, item: Item) -> bool:
    is_published = RecordSet(repository).is_published(item.name, item.manifest_digest)
    return is_published and has_files(repository, item.name)
