"""Discard an image whose metadata is unreadable: `publisher remove --unreadable`.

Such an image cannot be scheduled, since its manifest is unknown. Its metadata and link are removed.
Its content stays, and is an orphan unless another image uses it.
"""

from __future__ import annotations

from publisher.entry import EntryType
from publisher.errors import PublisherError
from publisher.repository import Repository
from publisher.repository.published import NotPublished
from publisher.tree import layout
from publisher.verify.findings import Finding, Kind, Severity
from publisher.verify.inventory import Inventory
from publisher.verify.survey import survey

_UNREADABLE = (
    Kind.MANIFEST_MISSING,
    Kind.MANIFEST_DAMAGED,
    Kind.CONFIG_MISSING,
    Kind.CONFIG_DAMAGED,
    Kind.PUBLICATION_MISSING,
    Kind.PUBLICATION_DAMAGED,
    Kind.RECORD_DAMAGED,
)


class Readable(PublisherError):
    """The image's metadata is readable, so that it can be removed as usual."""


def discard_unreadable(repository: Repository, name: str) -> Finding:
    """Remove the metadata and the public link of an image whose metadata is unreadable.

    Args:
        repository: Opened for writing.
        name: The public name, as `publisher list` prints it.

    Returns:
        The finding about the metadata.

    Raises:
        NotPublished: The name has no metadata.
        Readable: The metadata of the image is readable.
    """
    with repository.transaction(f"removal of {name}") as transaction, transaction.exclusive():
        inventory = survey(repository)[0]
        finding = _reason(inventory, name)
        transaction.remove(layout.image_metadata(name))
        if repository.kind(name) is EntryType.SYMLINK:
            transaction.remove(name)
        transaction.record(name, "discarded", finding.what)
        transaction.commit()
    return finding


def _reason(inventory: Inventory, name: str) -> Finding:
    if name not in inventory.names:
        raise NotPublished(
            f"no image is published as {name}",
            name=name,
            why="it has no metadata",
            hint="publisher list",
        )
    own = {f"{layout.image_metadata(name)}/{file}" for file in _files()}
    for finding in inventory.findings:
        is_error = finding.severity is not Severity.NOTE
        if finding.path in own and finding.kind in _UNREADABLE and is_error:
            return finding
    raise Readable(
        f"cannot discard {name}",
        why="its metadata is readable",
        hint=f"publisher remove {name}",
    )


def _files() -> tuple[str, ...]:
    return layout.MANIFEST_FILE, layout.CONFIG_FILE, layout.PUBLICATION_FILE
