"""Check the images as squashfs files, and the links to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from publisher.entry import EntryType
from publisher.errors import PublisherError
from publisher.oci.digest import digest_hex
from publisher.repository import Repository
from publisher.runtimes.squashfs import SquashfsImage, rewrite_squashfs
from publisher.tree import layout
from publisher.tree.users import ImageUsers
from publisher.verify.findings import Finding, Kind, Remedy, Severity
from publisher.verify.inventory import Inventory, LiveImage
from publisher.verify.leftovers import COLLECT, sharded
from publisher.verify.published_images import current_users


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
            _check_link(repository, inventory, image)
    if inventory.certain:
        _check_files(repository, inventory, {digest_hex(image_id) for image_id in by_id})
        _check_links(repository, inventory, {image.name for image in images})


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


def _check_link(repository: Repository, inventory: Inventory, image: LiveImage) -> None:
    path = layout.squashfs_link(image.name)
    target = layout.squashfs_target(image.name, image.manifest.image_id)
    text = repository.link_text(path)
    if text == target:
        return
    if text is None and repository.exists(path):
        inventory.error(
            Kind.LINK_WRONG,
            path,
            "a file or directory is in the place of the link to the image's squashfs file",
            how="move it away; then: publisher verify --repair",
            image=image.name,
        )
    elif text is None:
        what = "the link to the image's squashfs file is missing"
        inventory.error(Kind.LINK_MISSING, path, what, Remedy.DERIVE, image=image.name)
    else:
        what = f"it points to {text}, expected {target}"
        inventory.error(Kind.LINK_WRONG, path, what, Remedy.DERIVE, image=image.name)


def _check_files(repository: Repository, inventory: Inventory, known: set[str]) -> None:
    for path, name in sharded(repository, inventory, layout.SQUASHFS):
        if name not in known:
            what = "a squashfs file that no published or scheduled image requests"
            inventory.warning(Kind.ORPHAN_SQUASHFS, path, what, how=COLLECT)


def _check_links(repository: Repository, inventory: Inventory, known: set[str]) -> None:
    """Find links of names that are not published with this output, and other files."""
    waiting = [layout.SQUASHFS_NAMES]
    while waiting:
        path = waiting.pop()
        kind = repository.kind(path)
        if kind is EntryType.DIRECTORY:
            waiting += [f"{path}/{child}" for child in repository.children(path)]
        elif kind is None or path.removeprefix(f"{layout.SQUASHFS_NAMES}/") in known:
            continue
        elif f"{layout.SQUASHFS}/" in (repository.link_text(path) or ""):
            what = "a link to a squashfs file of a name that does not request one"
            inventory.warning(Kind.ORPHAN_LINK, path, what, how=COLLECT)
        else:
            inventory.foreign(path)
