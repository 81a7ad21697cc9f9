"""Podman's additional image store: what containers/storage (overlay driver) reads. Pure.

Source: containers/storage, docs/containers-storage.conf.5.md ("additionalimagestores"), and its
overlay driver. The store holds no data: each layer's `diff` is a link to a published tree. Layers'
IDs are chain IDs (OCI image specification 1.1, "Layer ChainID"), so that they stay the same between
runs and are shared between images.

`layers.json` and `images.json` are lists with one entry per line here. To change one entry only its
line is parsed, so that a long list costs no more than its bytes.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publisher.entry import Entry, EntryType, Generated
from publisher.oci.digest import digest_hex, digest_of
from publisher.oci.document import Document
from publisher.oci.reference import HUB, ImageReference, Transport, api_host
from publisher.tree.layout import PODMAN_STORE

LAYERS_FILE = f"{PODMAN_STORE}/overlay-layers/layers.json"
IMAGES_FILE = f"{PODMAN_STORE}/overlay-images/images.json"
LOCK_FILES = (
    f"{PODMAN_STORE}/overlay-layers/layers.lock",
    f"{PODMAN_STORE}/overlay-images/images.lock",
)

EPOCH = "1970-01-01T00:00:00Z"
"""The creation time of an image whose config has none."""


@dataclass(frozen=True, slots=True)
class StoreLayer:
    """One layer: `tree` is the path of its files in the repository, `parent` the ID below it.

    `diff_size` and `compressed_size` are in bytes; the latter, with its digest, only for what was
    downloaded as it is.
    """

    id: str
    parent: str
    tree: str
    diff_id: str
    diff_size: int
    compressed_digest: str = ""
    compressed_size: int = 0


@dataclass(frozen=True, slots=True)
class StoreImage:
    """One image under one name; `layers` from bottom to top, without those listed twice."""

    name: str
    manifest: Document
    config: Document
    created: str
    layers: tuple[StoreLayer, ...]

    @property
    def id(self) -> str:
        """What podman calls it."""
        return _id(self.config.digest)

    def trees(self) -> Iterator[tuple[str, list[Generated]]]:
        """The directories of the image and its layers, by path: equal wherever they are needed."""
        below: list[str] = []
        for layer in self.layers:
            files = {"link": _short(layer.id)}
            if below:
                files["lower"] = ":".join(f"l/{_short(each)}" for each in reversed(below))
            target = f"{'../' * 3}{layer.tree}"
            entries = [
                _directory(),
                Generated(Entry("diff", EntryType.SYMLINK, 0o777, target=target)),
                *(_file(name, text.encode()) for name, text in files.items()),
            ]
            yield layer_paths(layer.id)[0], entries
            below.append(layer.id)
        data = sorted((_data_name(key), each.data) for key, each in self._big_data().items())
        entries = [_directory(), *(_file(name, content) for name, content in data)]
        yield image_directory(self.config.digest), entries

    def links(self) -> Iterator[tuple[str, str]]:
        """Path and text of the short links, of which a mount's options consist."""
        for layer in self.layers:
            yield layer_paths(layer.id)[1], f"../{layer.id}/diff"

    def _big_data(self) -> Mapping[str, Document]:
        return {
            self.config.digest: self.config,
            f"manifest-{self.manifest.digest}": self.manifest,
            "manifest": self.manifest,
        }

    def to_entry(self) -> dict[str, Any]:
        """The image's entry in images.json."""
        data = self._big_data()
        return {
            "id": self.id,
            "digest": self.manifest.digest,
            "names": [self.name],
            **({"layer": self.layers[-1].id} if self.layers else {}),
            "metadata": "{}",
            "big-data-names": list(data),
            "big-data-sizes": {key: len(each.data) for key, each in data.items()},
            "big-data-digests": {key: each.digest for key, each in data.items()},
            "created": self.created,
        }


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The IDs of layers with these diff IDs, from bottom to top, in the store."""
    chain = ""
    found = []
    for diff_id in diff_ids:
        chain = digest_of(f"{chain} {diff_id}".encode()) if chain else diff_id
        found.append(_id(chain))
    return found


def flat_layer(image_id: str, tree: str, size: int) -> StoreLayer:
    """The only layer of an image whose flat image it is.

    Podman wants a digest of its content. Nobody made an archive of it, so it gets one of its name,
    which no other layer can have.
    """
    digest = digest_of(f"flat image {image_id}".encode())
    return StoreLayer(digest_hex(digest), "", tree, digest, size)


def store_name(reference: ImageReference, public_name: str) -> str:
    """The name under which podman finds the image: full, as podman itself would complete it."""
    if reference.transport is not Transport.REGISTRY:
        return f"localhost/{public_name.partition('/')[2]}"
    is_hub = api_host(reference.registry) == api_host(HUB)
    name = f"{HUB if is_hub else reference.registry}/{reference.repository}"
    if reference.tag is None and reference.digest is not None:
        return f"{name}@{reference.digest}"
    return f"{name}:{reference.tag or 'latest'}"


def layer_paths(layer_id: str) -> tuple[str, str]:
    """A layer's directory, and the short link to its files."""
    return f"{PODMAN_STORE}/overlay/{layer_id}", f"{PODMAN_STORE}/overlay/l/{_short(layer_id)}"


def image_directory(image_id: str) -> str:
    """The directory of the image whose config has this digest."""
    return f"{PODMAN_STORE}/overlay-images/{_id(image_id)}"


def image_files(entry: Mapping[str, Any]) -> list[str]:
    """The files that an entry of images.json speaks of."""
    directory = f"{PODMAN_STORE}/overlay-images/{entry['id']}"
    return [f"{directory}/{_data_name(key)}" for key in entry.get("big-data-names") or ()]


def parse_list(data: bytes) -> list[dict[str, Any]]:
    """The entries of layers.json or images.json; ValueError if that is no such list."""
    entries = json.loads(data)
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("id"), str) for entry in entries
    ):
        raise ValueError("not a list of entries with IDs")
    return entries


def add_layers(data: bytes | None, image: StoreImage) -> bytes:
    """layers.json with the layers of `image`; those that are there stay as they are."""
    lines = _lines(data)
    missing = [layer for layer in image.layers if _find(lines, layer.id) is None]
    return _append(lines, [_layer_entry(layer, image.created) for layer in missing])


def add_image(data: bytes | None, image: StoreImage) -> bytes:
    """images.json with `image`, whose name no other image has any more."""
    lines = _lines(data)
    if _find(lines, image.id) is None:
        return _append(_nameless(lines, image.name), [image.to_entry()])
    return _give_name(lines, image.id, image.name)


def give_name(data: bytes, image_id: str, name: str) -> bytes:
    """images.json in which `name` is that image's alone; nobody's, if the image is not there."""
    return _give_name(_lines(data), _id(image_id), name)


def remove_name(data: bytes | None, name: str) -> bytes | None:
    """images.json in which no image is called `name`."""
    return None if data is None else _nameless(_lines(data), name)


@dataclass(frozen=True, slots=True)
class Removal:
    """The lists after images went, and the paths in the repository that nothing needs any more."""

    images: bytes
    layers: bytes
    paths: tuple[str, ...]


def remove_images(images: bytes, layers: bytes, image_ids: Sequence[str]) -> Removal:
    """The store without the images whose configs have these digests, and without layers of none."""
    gone = {_id(image_id) for image_id in image_ids}
    every = json.loads(images)
    kept = [entry for entry in every if entry["id"] not in gone]
    by_id = {entry["id"]: entry for entry in json.loads(layers)}
    needed: set[str] = set()
    for entry in kept:
        layer = entry.get("layer", "")
        while layer in by_id and layer not in needed:
            needed.add(layer)
            layer = by_id[layer].get("parent", "")
    paths = [
        f"{PODMAN_STORE}/overlay-images/{entry['id']}" for entry in every if entry["id"] in gone
    ]
    for layer in by_id.keys() - needed:
        paths += layer_paths(layer)
    left = [entry for entry in by_id.values() if entry["id"] in needed]
    return Removal(_dump(kept), _dump(left), tuple(sorted(paths)))


def _id(digest: str) -> str:
    """64 hex digits, which is what the store takes for an ID."""
    found = digest_hex(digest)
    return found if len(found) == 64 else digest_hex(digest_of(digest.encode()))


def _short(layer_id: str) -> str:
    """26 capitals and digits, as long as the driver's own."""
    return base64.b32encode(bytes.fromhex(digest_hex(digest_of(layer_id.encode()))))[:26].decode()


def _data_name(key: str) -> str:
    """The file that holds a piece of an image's data; other names than plain ones are encoded."""
    if re.fullmatch(r"[a-z0-9.]+", key):
        return key
    return f"={base64.b64encode(key.encode()).decode()}"


def _directory() -> Generated:
    return Generated(Entry("", EntryType.DIRECTORY, 0o755))


def _file(name: str, content: bytes) -> Generated:
    return Generated(Entry(name, EntryType.FILE, 0o644, size=len(content)), content)


def _layer_entry(layer: StoreLayer, created: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": layer.id}
    if layer.parent:
        entry["parent"] = layer.parent
    entry["created"] = created
    if layer.compressed_digest:
        entry["compressed-diff-digest"] = layer.compressed_digest
        entry["compressed-size"] = layer.compressed_size
    return entry | {"diff-digest": layer.diff_id, "diff-size": layer.diff_size}


# The lists, one entry per line: "[\n{"id":"…",…},\n{"id":"…",…}\n]\n"


def _lines(data: bytes | None) -> bytes:
    """The list in our form; one that another tool wrote is brought into it."""
    if data is None:
        return _dump([])
    if data == _dump([]) or (data.startswith(b'[\n{"id":"') and data.endswith(b"}\n]\n")):
        return data
    return _dump(json.loads(data))


def _dump(entries: Sequence[Mapping[str, Any]]) -> bytes:
    return b"[\n" + b",\n".join(_line(entry) for entry in entries) + b"\n]\n"


def _line(entry: Mapping[str, Any]) -> bytes:
    first = {"id": entry["id"]}  # what lines are found by
    return json.dumps(first | dict(entry), separators=(",", ":")).encode()


def _without_name(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    return dict(entry) | {"names": [other for other in entry["names"] if other != name]}


def _append(lines: bytes, entries: Sequence[Mapping[str, Any]]) -> bytes:
    if not entries:
        return lines
    if lines == _dump([]):
        return _dump(entries)
    added = b",\n".join(_line(entry) for entry in entries)
    return b"".join([lines.removesuffix(b"\n]\n"), b",\n", added, b"\n]\n"])


def _find(lines: bytes, entry_id: str) -> tuple[int, int] | None:
    """Begin and end of an entry's line."""
    begin = lines.find(b'\n{"id":"' + entry_id.encode() + b'"')
    return None if begin < 0 else _bounds(lines, begin + 1)


def _bounds(lines: bytes, position: int) -> tuple[int, int]:
    begin = lines.rfind(b"\n", 0, position) + 1
    end = lines.find(b"\n", position)
    return begin, end - lines.endswith(b",", begin, end)


def _replace(lines: bytes, entry_id: str, entry: Mapping[str, Any]) -> bytes:
    found = _find(lines, entry_id)
    assert found is not None
    return lines[: found[0]] + _line(entry) + lines[found[1] :]


def _give_name(lines: bytes, entry_id: str, name: str) -> bytes:
    if any(entry["id"] == entry_id for entry in _named(lines, name)):
        return lines
    lines = _nameless(lines, name)
    found = _find(lines, entry_id)
    if found is None:
        return lines
    entry = json.loads(lines[found[0] : found[1]])
    return _replace(lines, entry_id, entry | {"names": sorted({*(entry.get("names") or ()), name})})


def _nameless(lines: bytes, name: str) -> bytes:
    for entry in list(_named(lines, name)):
        lines = _replace(lines, entry["id"], _without_name(entry, name))
    return lines


def _named(lines: bytes, name: str) -> Iterator[dict[str, Any]]:
    """The entries of images that are called `name`."""
    wanted = json.dumps(name).encode()
    position = lines.find(wanted)
    while position >= 0:
        begin, end = _bounds(lines, position)
        entry = json.loads(lines[begin:end])
        if name in (entry.get("names") or ()):
            yield entry
        position = lines.find(wanted, end)
