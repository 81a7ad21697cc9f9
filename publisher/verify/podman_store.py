"""Check and rebuild Podman's additional image store."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.errors import PublisherError
from publisher.oci.config import parse_config
from publisher.oci.document import Document
from publisher.oci.image import PlatformImage
from publisher.oci.manifest import parse_published_manifest
from publisher.repository import Repository
from publisher.repository.damaged import read_damaged
from publisher.repository.reading import load_publication
from publisher.runtimes.podman import format as podman
from publisher.runtimes.podman import store
from publisher.runtimes.podman.check import store_faults, without_tar_split
from publisher.tree import layout, podman_store
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord, UnsupportedRecord
from publisher.verify.findings import Kind, Remedy
from publisher.verify.inventory import Inventory
from publisher.verify.record_versions import add_newer_version

_NAMED = 3


def check_podman_store(repository: Repository, inventory: Inventory) -> None:
    """Add a finding if the store exists and lacks something that its lists name."""
    if not repository.exists(layout.PODMAN_STORE):
        return
    try:
        faults = list(store_faults(repository))
        for path, what in faults:
            inventory.error(Kind.PODMAN_STORE, path, what, Remedy.DERIVE)
        if not faults:
            _check_tar_split(repository, inventory)
    except UnsupportedRecord as error:
        add_newer_version(inventory, error.path, error)
    except InvalidRecord as error:
        if error.path == podman_store.PATH:  # the settings are verified with the other records
            inventory.error(Kind.PODMAN_STORE, error.path, error.why, Remedy.DERIVE)


def _check_tar_split(repository: Repository, inventory: Inventory) -> None:
    """Add a note if images of the store cannot be saved and pushed."""
    count, image_ids = without_tar_split(repository)
    if not count:
        return
    ids = set(image_ids)
    names = {i.name for i in inventory.images if podman.entry_id(i.manifest.image_id) in ids}
    named = ", ".join(sorted(names)[:_NAMED])
    if len(names) > _NAMED:
        named += f", and {len(names) - _NAMED} more"
    inventory.note(
        Kind.TAR_SPLIT_MISSING,
        podman.LAYERS_FILE,
        f"{count} layers have no tar-split data: podman runs, but cannot save or push {named}",
        how="remove these images, collect them (publisher gc), and publish them again",
    )


def repair_podman_store(repository: Repository) -> None:
    """Convert the store if only its format, or the mount of its links, is not the current one.

    Otherwise it is rebuilt.

    Raises:
        PublisherError: The metadata or a layer index of such an image is missing or damaged:
            nothing is changed.
    """
    try:
        is_converted = store.convert_store(repository)
    except PublisherError:
        # The store is damaged as well. It is rebuilt from the metadata of the published images.
        is_converted = False
    if not is_converted:
        _rebuild(repository)


def _rebuild(repository: Repository) -> None:
    """Remove the store, and rebuild it from all published images whose outputs include it.

    Raises:
        PublisherError: The metadata or a layer index of such an image is missing or damaged. The
            store is unchanged.
    """
    images = list(_published(repository))
    stored = store.describe(repository, images)
    with repository.transaction("removal of the podman store") as transaction:
        with transaction.exclusive():
            transaction.remove(layout.PODMAN_STORE)
            transaction.record(layout.PODMAN_STORE, "removed", "it was damaged")
            transaction.commit()
    with repository.transaction("rebuilding the podman store") as transaction:
        store.prepare(repository, transaction, stored)
        with transaction.exclusive():
            # Images that a concurrent publisher changed are left to the next ingest.
            if list(_published(repository)) == images:
                store.update(repository, transaction, stored)
                transaction.record(layout.PODMAN_STORE, "rebuilt", "it was damaged")
                transaction.commit()


def _published(repository: Repository) -> Iterator[tuple[PlatformImage, Publication]]:
    """Yield the images that the store should have, from their metadata."""
    for name in repository.names():
        record = load_publication(repository, name)
        if record is None or "podman" not in record.outputs:
            continue
        data = read_damaged(repository, layout.manifest_file(name)) or b""
        config_data = read_damaged(repository, layout.config_file(name)) or b""
        manifest = parse_published_manifest(data)
        config = parse_config(config_data, manifest.image_id)
        document = Document(data, manifest.media_type, record.manifest_digest)
        config_document = Document(config_data, manifest.config.media_type, manifest.image_id)
        yield (
            PlatformImage(config.platform, document, manifest, config_document, config, None),
            record,
        )
