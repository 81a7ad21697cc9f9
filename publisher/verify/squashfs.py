"""Check the images as squashfs files, and the links to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from publisher.entry import EntryType
from publisher.errors import PublisherError, is_resource_limit
from publisher.repository import Repository
from publisher.runtimes.squashfs import SquashfsImage, rewrite_squashfs
from publisher.tree import layout
from publisher.tree.users import ImageUsers
from publisher.verify.findings import Finding, Kind, Remedy, Severity
from publisher.verify.inventory import Inventory, LiveImage
from publisher.verify.leftovers import check_names, check_shards
from publisher.verify.published_images import check_link, current_users


def check_squashfs(repository: Repository, inventory: Inventory) -> None:
    """Add findings about squashfs files and their links, without reading their contents."""
    images = [image for image in inventory.images if image.squashfs]
    by_id = {image.manifest.image_id: image for image in images}
    for image_id, image in sorted(by_id.items()):
        path = layout.squashfs_file(image_id)
        recorded = inventory.users.get(image_id, ImageUsers()).squashfs
        if repository.kind(path) is not EntryType.FILE or recorded is None:
            what = "the image's squashfs file is missing, or is not recorded"
            inventory.error(Kind.SQUASHFS_MISSING, path, what, Remedy.DERIVE, image=image.name)
    dropped = {entry.key for entry in inventory.schedule if entry.link_dropped}
    for image in images:
        if image.published and (image.name, image.manifest_digest) not in dropped:
            check_link(
                repository,
                inventory,
                layout.squashfs_link(image.name),
                layout.squashfs_target(image.name, image.manifest.image_id),
                image.name,
                what="the link to the image's squashfs file",
            )
    if inventory.certain:
        what = "a squashfs file that no published or scheduled image requests"
        check_shards(repository, inventory, layout.SQUASHFS, by_id, Kind.ORPHAN_SQUASHFS, what)
        known = {layout.squashfs_link(image.name) for image in images}
        what = "a link to a squashfs file of a name that does not request one"
        check_names(repository, inventory, [layout.SQUASHFS_NAMES], known, layout.SQUASHFS, what)


def check_content(repository: Repository, image: LiveImage) -> Iterator[Finding]:
    """Read a whole squashfs file, and yield a finding if it is not the one that was written."""
    image_id = image.manifest.image_id
    path, record = layout.squashfs_file(image_id), current_users(repository, image_id).squashfs
    if record is None:
        return  # a finding of its own
    digest = hashlib.sha256()
    try:
        for piece in repository.content(path):
            digest.update(piece)
        found = f"sha256:{digest.hexdigest()}"
        why = "" if found == record.digest else f"its digest is {found}, expected {record.digest}"
    except FileNotFoundError:
        raise
    except OSError as error:
        if is_resource_limit(error):
            raise
        why = f"it cannot be read: {error.strerror}"
    if why:
        yield Finding(
            Severity.ERROR, Kind.SQUASHFS_DAMAGED, path, why, Remedy.DERIVE, "", image.name
        )


def rewrite(repository: Repository, image: LiveImage, why: str) -> None:
    """Write the squashfs file of an image anew.

    Raises:
        PublisherError: The image's config, a layer or the program is missing.
    """
    if image.config is None:
        raise PublisherError(
            f"cannot write the squashfs file of {image.name}",
            why="the image's config is missing",
            hint="publisher verify --refetch",
        )
    layers = [layer.digest for layer in image.manifest.layers]
    wanted = SquashfsImage(image.name, image.manifest.image_id, layers, image.config)
    rewrite_squashfs(repository, wanted, why)
