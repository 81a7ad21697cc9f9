"""Check the bills of materials beside the manifests of images, and make them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from publisher.entry import EntryType
from publisher.errors import PublisherError
from publisher.repository import Repository
from publisher.repository.damaged import read_damaged
from publisher.repository.records import RecordSet
from publisher.sbom.output import bill_of_materials
from publisher.tree import layout
from publisher.verify.findings import Finding, Kind, Remedy, Severity
from publisher.verify.inventory import Inventory, LiveImage


def check_sbom(repository: Repository, inventory: Inventory) -> None:
    """Add findings about documents that are missing, without reading any."""
    for image in inventory.images:
        for path in layout.sbom_files(image.name) if image.sbom else ():
            if repository.kind(path) is not EntryType.FILE:
                what = "the image's bill of materials is missing"
                inventory.warning(Kind.SBOM_MISSING, path, what, Remedy.DERIVE, image=image.name)


def compare_sbom(repository: Repository, image: LiveImage) -> Iterator[Finding]:
    """Yield a finding for each document that differs from the packages of the image."""
    try:
        expected = _documents(repository, image)
    except (PublisherError, OSError):
        return  # what it is made from has findings, or `doctor` names the missing library
    for path, content in expected.items():
        if repository.kind(path) is EntryType.FILE and read_damaged(repository, path) != content:
            what = "it differs from the packages of the image, as this release writes them"
            yield Finding(
                Severity.WARNING, Kind.SBOM_DAMAGED, path, what, Remedy.DERIVE, "", image.name
            )


def rewrite_sbom(repository: Repository, image: LiveImage, why: str) -> None:
    """Write the documents of a published image anew.

    Raises:
        PublisherError: They cannot be made.
    """
    documents = _documents(repository, image)
    with repository.transaction(f"repair of {image.name}") as transaction:
        with transaction.exclusive():
            records = RecordSet(repository)
            if not records.is_published(image.name, image.manifest_digest):
                return  # removed or replaced meanwhile
            if records.set_bills(image.name, documents):
                transaction.record(image.name, "bill of materials written anew", why)
                records.write(transaction)
                transaction.commit()


def _documents(repository: Repository, image: LiveImage) -> Mapping[str, bytes]:
    if image.config is None:
        raise PublisherError(
            f"cannot make the bill of materials of {image.name}",
            why="the image's config is missing",
            hint="publisher verify --refetch",
        )
    layers = [layer.digest for layer in image.manifest.layers]
    return bill_of_materials(repository, image.name, image.manifest_digest, layers, image.config)
