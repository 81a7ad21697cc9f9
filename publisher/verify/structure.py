"""Whether everything that the images name is there, and nothing else: layers, links, records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from publisher.entry import EntryType
from publisher.layers.errors import LayerError
from publisher.layers.index import IndexHeader, read_header
from publisher.oci.digest import digest_hex
from publisher.repository import Repository
from publisher.tree import layout
from publisher.tree import users as users_format
from publisher.tree.origin import Origin
from publisher.tree.record import InvalidRecord
from publisher.tree.users import ImageUsers
from publisher.verify.findings import Kind, Remedy, Severity
from publisher.verify.inventory import Inventory, LiveImage, is_of_the_future, read_record
from publisher.verify.podman_store import check_podman_store

DERIVED = "derivedFrom"
"""In the policy that an index names: it was made from the layer's tree, not from its blob."""

_COLLECT = "nobody names it any more; `publisher gc` deals with what is superfluous"
_AWAY = "move it away, and repair again"


@dataclass(slots=True)
class Expected:
    """What the manifests of all images together ask for.

    `layers` holds, by digest, the image IDs that use the layer, `users`, by image ID, who uses the
    image, `diff_ids`, by layer digest, what the configs promise of its content.
    """

    layers: dict[str, set[str]] = field(default_factory=dict)
    users: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    diff_ids: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, images: list[LiveImage]) -> Expected:
        """Count everything anew."""
        expected = cls()
        for image in images:
            users = expected.users.setdefault(image.manifest.image_id, set())
            if image.manifest_digest:
                users.add((image.name, image.manifest_digest))
            for layer in image.manifest.layers:
                users_of_layer = expected.layers.setdefault(layer.digest, set())
                users_of_layer.add(image.manifest.image_id)
            if image.config is not None and len(image.config.diff_ids) == len(
                image.manifest.layers
            ):
                pairs = zip(image.manifest.layers, image.config.diff_ids, strict=True)
                for layer, diff_id in pairs:
                    expected.diff_ids.setdefault(layer.digest, set()).add(diff_id)
        return expected


def check_structure(repository: Repository, inventory: Inventory) -> Expected:
    """Compare what is there with what the inventory's images name; add what is found to it."""
    expected = Expected.of(inventory.images)
    for digest in sorted(expected.layers):
        _check_layer(repository, inventory, digest, expected)
        _check_origin(repository, inventory, digest, expected.layers[digest])
    flat_images = {image.manifest.image_id for image in inventory.images if image.flat}
    for image_id in sorted(flat_images):
        _check_flat(repository, inventory, image_id)
    for image_id in sorted(expected.users):
        _check_users(repository, inventory, image_id, expected.users[image_id])
    for image in inventory.images:
        if image.linked:
            _check_link(repository, inventory, image)
    _check_public_names(repository, inventory)
    _check_shards(repository, inventory, expected)
    check_podman_store(repository, inventory)
    return expected


def users_of(inventory: Inventory, **which: str) -> str:
    """A published name that uses the layer `layer` or the image `image_id`, for messages."""
    for image in inventory.images:
        if image.manifest.image_id == which.get("image_id") or any(
            layer.digest == which.get("layer") for layer in image.manifest.layers
        ):
            return image.name
    return ""


def layer_header(repository: Repository, digest: str) -> IndexHeader:
    """The header of a published layer's index; LayerError or OSError where it is no index."""
    with repository.open_index(digest) as file:
        return read_header(file)


def _check_layer(
    repository: Repository, inventory: Inventory, digest: str, expected: Expected
) -> None:
    name = users_of(inventory, layer=digest)
    tree, index = layout.layer_tree(digest), layout.layer_index(digest)
    if repository.kind(tree) is not EntryType.DIRECTORY:
        what = "the layer's tree is not there"
        inventory.add(Severity.ERROR, Kind.LAYER_MISSING, tree, what, Remedy.REFETCH, "", name)
        return
    if repository.kind(index) is not EntryType.FILE:
        inventory.add(
            Severity.WARNING,
            Kind.INDEX_MISSING,
            index,
            "the layer has no index: no new image can be made with it, and it cannot be verified",
            Remedy.DERIVE,
            "",
            name,
        )
        return
    try:
        header = layer_header(repository, digest)
    except LayerError as error:
        if "version" in error.why:
            inventory.add(
                Severity.WARNING, Kind.FUTURE_VERSION, index, error.why, how=error.hint, image=name
            )
        else:
            inventory.add(
                Severity.ERROR, Kind.INDEX_DAMAGED, index, error.why, Remedy.DERIVE, "", name
            )
        return
    if header.digest != digest:
        what = f"it is the index of layer {header.digest}"
        inventory.add(Severity.ERROR, Kind.INDEX_DAMAGED, index, what, Remedy.DERIVE, "", name)
        return
    promised = expected.diff_ids.get(digest, {header.diff_id})
    if promised != {header.diff_id}:
        inventory.add(
            Severity.ERROR,
            Kind.LAYER_DAMAGED,
            index,
            f"its archive is {header.diff_id}; configs promise {', '.join(sorted(promised))}",
            Remedy.REFETCH,
            "",
            name,
        )
    elif DERIVED in header.policy:
        inventory.add(
            Severity.NOTE,
            Kind.INDEX_DERIVED,
            index,
            "it was made from the layer's tree, which was never compared with the registry's bytes",
            how="remove the image and publish it again to be sure",
            image=name,
        )


def _check_origin(
    repository: Repository, inventory: Inventory, digest: str, images: set[str]
) -> None:
    path = layout.layer_origin(digest)
    name = users_of(inventory, layer=digest)
    data = read_record(repository, inventory, path)
    if data is None:
        if repository.exists(layout.layer_directory(digest)):
            what = "there is no record of which images use the layer"
            inventory.add(Severity.ERROR, Kind.ORIGIN_MISSING, path, what, Remedy.DERIVE, "", name)
        return
    try:
        recorded = Origin.parse(data, path).images
    except InvalidRecord as error:
        inventory.add(Severity.ERROR, Kind.ORIGIN_WRONG, path, error.why, Remedy.DERIVE, "", name)
        return
    missing = images - recorded
    surplus = recorded - images if inventory.certain else set()
    if missing or surplus:
        what = _difference("image IDs", missing, surplus)
        inventory.add(Severity.ERROR, Kind.ORIGIN_WRONG, path, what, Remedy.DERIVE, "", name)


def _check_users(
    repository: Repository, inventory: Inventory, image_id: str, users: set[tuple[str, str]]
) -> None:
    path = layout.image_users(image_id)
    name = users_of(inventory, image_id=image_id)
    data = read_record(repository, inventory, path)
    if data is None:
        what = "there is no record of who uses the image, so that it is never collected"
        inventory.add(Severity.WARNING, Kind.USERS_MISSING, path, what, Remedy.DERIVE, "", name)
        return
    try:
        recorded = ImageUsers.parse(data, path).users
    except InvalidRecord as error:
        if is_of_the_future(data, users_format.VERSION):
            inventory.add(
                Severity.WARNING, Kind.FUTURE_VERSION, path, error.why, how=error.hint, image=name
            )
        else:
            inventory.add(
                Severity.ERROR, Kind.USERS_WRONG, path, error.why, Remedy.DERIVE, "", name
            )
        return
    missing = users - recorded
    surplus = recorded - users if inventory.certain else set()
    if missing or surplus:
        what = _difference("users", {" ".join(u) for u in missing}, {" ".join(u) for u in surplus})
        inventory.add(Severity.ERROR, Kind.USERS_WRONG, path, what, Remedy.DERIVE, "", name)


def _difference(what: str, missing: Set[str], surplus: Set[str]) -> str:
    parts = []
    if missing:
        parts.append(f"{what} missing: {', '.join(sorted(missing))}")
    if surplus:
        parts.append(f"{what} without a manifest: {', '.join(sorted(surplus))}")
    return "; ".join(parts)


def _check_flat(repository: Repository, inventory: Inventory, image_id: str) -> None:
    path = layout.flat_image(image_id)
    if repository.kind(path) is not EntryType.DIRECTORY:
        inventory.add(
            Severity.ERROR,
            Kind.FLAT_MISSING,
            path,
            "the image's root filesystem is not there",
            Remedy.DERIVE,
            "",
            users_of(inventory, image_id=image_id),
        )


def _check_link(repository: Repository, inventory: Inventory, image: LiveImage) -> None:
    target = layout.link_target(image.name, image.manifest.image_id)
    text = repository.link_text(image.name)
    if text == target:
        return
    if text is None and _was_dropped(inventory, image) and not repository.exists(image.name):
        return
    if text is not None:
        what = f"it leads to {text}, and should lead to {target}"
        remedy, how = Remedy.DERIVE, ""
        kind = Kind.LINK_WRONG
    elif repository.exists(image.name):
        what, kind = "something else stands where the image's link should be", Kind.LINK_WRONG
        remedy, how = Remedy.NONE, _AWAY
    else:
        what, kind = "the image's public link is not there", Kind.LINK_MISSING
        remedy, how = Remedy.DERIVE, ""
    inventory.add(Severity.ERROR, kind, image.name, what, remedy, how, image.name)


def _was_dropped(inventory: Inventory, image: LiveImage) -> bool:
    """Whether the image is scheduled for removal, and lost its public link with that."""
    key = (image.name, image.manifest_digest)
    return any(entry.link_dropped and entry.key == key for entry in inventory.schedule)


def _check_public_names(repository: Repository, inventory: Inventory) -> None:
    """Whatever stands among the public names has to be an image's link."""
    waiting = [
        name
        for name in repository.children("")
        if (not name.startswith(".") and name != layout.PODMAN_STORE) or name == layout.MULTIARCH
    ]
    while waiting:
        path = waiting.pop()
        kind = repository.kind(path)
        if kind is EntryType.DIRECTORY:
            waiting += [f"{path}/{child}" for child in repository.children(path)]
        elif kind is None or path in inventory.names:
            continue
        elif kind is EntryType.SYMLINK and f"{layout.FLAT}/" in (repository.link_text(path) or ""):
            inventory.add(
                Severity.WARNING,
                Kind.ORPHAN_LINK,
                path,
                "a link to a flat image, but there is no metadata of such an image",
                how="publish it again with `publisher ingest`, or remove the link",
            )
        else:
            inventory.add(
                Severity.NOTE,
                Kind.FOREIGN,
                path,
                "nothing that this publisher made",
                how="it is left alone",
            )


def _check_shards(repository: Repository, inventory: Inventory, expected: Expected) -> None:
    scheduled = {entry.manifest_digest: set[str]() for entry in inventory.schedule}
    for top, known, kind, what in (
        (layout.LAYERS, expected.layers, Kind.ORPHAN_LAYER, "a layer"),
        (layout.FLAT, expected.users, Kind.ORPHAN_FLAT, "a flat image"),
        (layout.IMAGES, expected.users, Kind.ORPHAN_METADATA, "a record of an image's users"),
        (layout.RETIRED, scheduled, Kind.ORPHAN_METADATA, "metadata of a retired image"),
    ):
        _check_shard(repository, inventory, top, known, kind, what)


def _check_shard(
    repository: Repository,
    inventory: Inventory,
    top: str,
    known: Mapping[str, object],
    kind: Kind,
    what: str,
) -> None:
    names = {digest_hex(digest) for digest in known}
    for path, name in _sharded(repository, inventory, top):
        if name not in names and inventory.certain:
            inventory.add(
                Severity.WARNING,
                kind,
                path,
                f"{what} that no published or scheduled manifest names",
                how=_COLLECT,
            )


def _sharded(repository: Repository, inventory: Inventory, top: str) -> Iterator[tuple[str, str]]:
    """(path, digest) of everything in the 256 directories of `top`."""
    for shard in repository.children(top):
        directory = f"{top}/{shard}"
        if repository.kind(directory) is not EntryType.DIRECTORY:
            _note_foreign(inventory, directory)
            continue
        for child in repository.children(directory):
            name = child.removesuffix(".json") if top == layout.IMAGES else child
            if name.startswith(shard) and len(name) >= 64 and _is_hexadecimal(name):
                yield f"{directory}/{child}", name
            else:
                _note_foreign(inventory, f"{directory}/{child}")


def _note_foreign(inventory: Inventory, path: str) -> None:
    what = "nothing that this publisher knows"
    inventory.add(Severity.NOTE, Kind.FOREIGN, path, what, how="it is left alone")


def _is_hexadecimal(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)
