"""Check that each layer has its tree, its index, and the record of the images that use it."""

from __future__ import annotations

from collections.abc import Set

from publisher.entry import EntryType
from publisher.errors import PublisherError
from publisher.layers.errors import LayerError
from publisher.layers.index import IndexHeader, read_header, read_index
from publisher.repository import Repository
from publisher.repository.settings import load_policy
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.record import InvalidRecord
from publisher.verify.chain_links import check_chains
from publisher.verify.expected import Expected
from publisher.verify.findings import Kind, Remedy
from publisher.verify.inventory import Inventory, read_record
from publisher.verify.record_versions import REPLACE

_CHANGEABLE = (EntryType.FILE, EntryType.DIRECTORY)

DERIVED = "derivedFrom"
"""The key in an index's policy that marks an index made from the layer's tree, not its blob."""


def check_layers(repository: Repository, inventory: Inventory, expected: Expected) -> None:
    """Add findings about the layers that the images use."""
    origins = {}
    for digest in sorted(expected.layers):
        _check_layer(repository, inventory, digest, expected)
        origin = _check_origin(repository, inventory, digest, expected)
        if origin is not None:
            origins[digest] = origin
    check_chains(repository, inventory, expected, origins)


def layer_header(repository: Repository, digest: str) -> IndexHeader:
    """Return the header of a published layer's index.

    Raises:
        LayerError: The file is not a layer index.
    """
    with repository.open_index(digest) as file:
        return read_header(file)


def stored_size(repository: Repository, digest: str) -> int:
    """Return the bytes of all files of a layer; 0 if its index cannot be read."""
    try:
        return layer_header(repository, digest).stored_size
    except (PublisherError, OSError):
        return 0


def difference(what: str, missing: Set[str], surplus: Set[str]) -> str:
    """Return how a record differs from the manifests."""
    parts = []
    if missing:
        parts.append(f"{what} missing: {', '.join(sorted(missing))}")
    if surplus:
        parts.append(f"{what} without a manifest: {', '.join(sorted(surplus))}")
    return "; ".join(parts)


def _check_layer(
    repository: Repository, inventory: Inventory, digest: str, expected: Expected
) -> None:
    name = expected.layer_names[digest]
    tree, index = layout.layer_tree(digest), layout.layer_index(digest)
    if repository.kind(tree) is not EntryType.DIRECTORY:
        what = "the layer's tree is missing"
        inventory.error(Kind.LAYER_MISSING, tree, what, Remedy.REFETCH, image=name)
        return
    if repository.kind(index) is not EntryType.FILE:
        what = "the layer has no index: it cannot be verified, and no new image can use it"
        inventory.warning(Kind.INDEX_MISSING, index, what, Remedy.DERIVE, image=name)
        return
    try:
        header = layer_header(repository, digest)
    except LayerError as error:
        if "version" in error.why:
            inventory.warning(Kind.FUTURE_VERSION, index, error.why, how=REPLACE, image=name)
        else:
            inventory.error(Kind.INDEX_DAMAGED, index, error.why, Remedy.DERIVE, image=name)
        return
    if header.digest != digest:
        what = f"it is the index of layer {header.digest}"
        inventory.error(Kind.INDEX_DAMAGED, index, what, Remedy.DERIVE, image=name)
        return
    if has_writable_files(repository, digest):
        inventory.warning(
            Kind.LAYER_WRITABLE,
            tree,
            "group or others have write permission in it: users of the publishing host may be able "
            "to change what is published",
            Remedy.REFETCH,
            image=name,
        )
    _check_diff_id(inventory, digest, header, expected)


def has_writable_files(repository: Repository, digest: str) -> bool:
    """Return whether users of the publishing host could change a layer of an earlier release.

    The policy of this release removes the permission, unless the repository's settings keep it.
    """
    if repository.url.kind != "dir" or not repository.has_layer(digest):
        return False
    try:
        if load_policy(repository).writable == "keep":
            return False
        with repository.open_index(digest) as file:
            index = read_index(file)
            if "writable" in index.header.policy or not index.header.policy:
                return False
            return any(entry.mode & 0o022 and entry.type in _CHANGEABLE for entry in index)
    except (LayerError, InvalidRecord):
        return False  # reported by another check


def _check_diff_id(
    inventory: Inventory, digest: str, header: IndexHeader, expected: Expected
) -> None:
    name, index = expected.layer_names[digest], layout.layer_index(digest)
    promised = expected.diff_ids.get(digest, {header.diff_id})
    if promised != {header.diff_id}:
        what = f"its diff ID is {header.diff_id}; the configs have {', '.join(sorted(promised))}"
        inventory.error(Kind.LAYER_DAMAGED, index, what, Remedy.REFETCH, image=name)
    elif DERIVED in header.policy:
        inventory.note(
            Kind.INDEX_DERIVED,
            index,
            "it was made from the layer's tree, which was not compared with the registry's bytes",
            how="to be sure, remove the image and publish it again",
            image=name,
        )


def _check_origin(
    repository: Repository, inventory: Inventory, digest: str, expected: Expected
) -> Origin | None:
    """Check the record of a layer; return it if it can be read."""
    path, name = layout.layer_origin(digest), expected.layer_names[digest]
    images = expected.layers[digest]
    data = read_record(repository, inventory, path)
    if data is None:
        if repository.exists(layout.layer_directory(digest)):
            what = "the record of which images use the layer is missing"
            inventory.error(Kind.ORIGIN_MISSING, path, what, Remedy.DERIVE, image=name)
        return None
    try:
        origin = Origin.parse(data, path)
    except InvalidRecord as error:
        inventory.error(Kind.ORIGIN_WRONG, path, error.why, Remedy.DERIVE, image=name)
        return None
    missing = images - origin.images
    surplus = origin.images - images if inventory.certain else set()
    if missing or surplus:
        what = difference("image IDs", missing, surplus)
        inventory.error(Kind.ORIGIN_WRONG, path, what, Remedy.DERIVE, image=name)
    return origin
