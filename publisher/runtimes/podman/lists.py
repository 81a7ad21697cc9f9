"""The lists of Podman's additional image store: layers.json and images.json. Pure.

Both are JSON lists, written here with one entry per line: "[\n{"id":"…",…},\n{"id":"…",…}\n]\n".
To change an entry only its line is parsed, so that a change to a long list costs no more than
copying its bytes. Lists of another tool are converted to this form first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from publisher.lazy import dataclass
from publisher.runtimes.podman.format import (
    BASE,
    IMAGES_FILE,
    LAYERS_FILE,
    StoreImage,
    StoreLayer,
    base_link,
    data_file_name,
    entry_id,
    layer_paths,
    tar_split_link,
)
from publisher.tree.layout import PODMAN_STORE
from publisher.tree.record import InvalidRecord

REBUILD = "publisher verify --repair"
"""The command that rebuilds an unreadable store, which has links and metadata only."""

_EMPTY = b"[\n\n]\n"


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One entry of a list, with the fields that are used here; `value` is the JSON object.

    `layer` is the ID of an image's topmost layer, `parent` that of the layer below a layer, or "".
    `data_names` are the keys of an image's big data.
    """

    id: str
    names: tuple[str, ...]
    layer: str
    parent: str
    data_names: tuple[str, ...]
    value: Mapping[str, object]

    def data_files(self) -> list[str]:
        """Return the paths of the files that hold an image's data."""
        directory = f"{PODMAN_STORE}/overlay-images/{self.id}"
        return [f"{directory}/{data_file_name(name)}" for name in self.data_names]


@dataclass(frozen=True, slots=True)
class Removal:
    """The lists after a removal, and the paths in the repository that are no longer used."""

    images: bytes
    layers: bytes
    paths: tuple[str, ...]


def parse_list(data: bytes | None, path: str) -> list[ListEntry]:
    """Return the entries of the list at `path`.

    A missing or empty file is an empty list, as for containers/storage.

    Raises:
        InvalidRecord: The file is not a list of entries.
    """
    if data is None or not data.strip():
        return []
    values = _parse(data, path)
    if not isinstance(values, list):
        raise InvalidRecord(path, why="it is not a list", hint=REBUILD)
    return [_entry(value, path) for value in values]


def add_layers(data: bytes | None, image: StoreImage) -> bytes:
    """Return layers.json with the layers of `image`; existing entries stay as they are."""
    lines = _lines(data, LAYERS_FILE)
    missing = [layer for layer in image.layers if _find(lines, layer.id) is None]
    return _append(lines, [_layer_entry(layer, image.created) for layer in missing])


def add_image(data: bytes | None, image: StoreImage) -> bytes:
    """Return images.json with `image`; any other image loses its name."""
    lines = _lines(data, IMAGES_FILE)
    if _find(lines, image.id) is None:
        return _append(_without_name(lines, image.name), [image.to_entry()])
    return _with_name(lines, image.id, image.name)


def give_name(data: bytes, image_id: str, name: str) -> bytes:
    """Return images.json in which only that image has `name`; none, if it is not listed."""
    return _with_name(_lines(data, IMAGES_FILE), entry_id(image_id), name)


def set_layer(data: bytes, image_id: str, layer_id: str) -> bytes:
    """Return images.json in which the image with the store's ID `image_id` has that top layer."""
    lines = _lines(data, IMAGES_FILE)
    found = _find(lines, image_id)
    if found is None:
        return lines
    entry = _entry(_parse(lines[slice(*found)], IMAGES_FILE), IMAGES_FILE)
    return _replace(lines, found, entry.value, layer=layer_id)


def remove_name(data: bytes | None, name: str) -> bytes | None:
    """Return images.json in which no image has `name`."""
    return None if data is None else _without_name(_lines(data, IMAGES_FILE), name)


def remove_images(images: bytes, layers: bytes, image_ids: Sequence[str]) -> Removal:
    """Return the lists without the images whose configs have these digests.

    Layers that no other image needs are removed with them.
    """
    gone = {entry_id(image_id) for image_id in image_ids}
    every = parse_list(images, IMAGES_FILE)
    kept = [entry for entry in every if entry.id not in gone]
    by_id = {entry.id: entry for entry in parse_list(layers, LAYERS_FILE)}
    needed: set[str] = set()
    for entry in kept:
        layer = entry.layer
        while layer in by_id and layer not in needed:
            needed.add(layer)
            layer = by_id[layer].parent
    paths = [f"{PODMAN_STORE}/overlay-images/{entry.id}" for entry in every if entry.id in gone]
    for unused in by_id.keys() - needed:
        paths += [*layer_paths(unused), tar_split_link(unused)]
    left = [entry.value for entry in by_id.values() if entry.id in needed]
    if not left:
        paths += [BASE, base_link()[0]]
    return Removal(_dump([entry.value for entry in kept]), _dump(left), tuple(sorted(paths)))


def _layer_entry(layer: StoreLayer, created: str) -> dict[str, object]:
    entry: dict[str, object] = {"id": layer.id}
    if layer.parent:
        entry["parent"] = layer.parent
    entry["created"] = created
    if layer.compressed_digest:
        entry["compressed-diff-digest"] = layer.compressed_digest
        entry["compressed-size"] = layer.compressed_size
    return entry | {"diff-digest": layer.diff_id, "diff-size": layer.diff_size}


def _parse(data: bytes, path: str) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(path, why=f"not JSON: {error}", hint=REBUILD) from error


def _entry(value: object, path: str) -> ListEntry:
    if isinstance(value, dict):
        texts = [value.get(key) or "" for key in ("id", "layer", "parent")]
        lists = [value.get(key) or [] for key in ("names", "big-data-names")]
        if all(isinstance(text, str) for text in texts) and all(map(_is_list_of_strings, lists)):
            id_, layer, parent = texts
            names, data_names = map(tuple, lists)
            if id_:
                return ListEntry(id_, names, layer, parent, data_names, value)
    raise InvalidRecord(path, why="an entry has no ID, or a malformed field", hint=REBUILD)


def _is_list_of_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _lines(data: bytes | None, path: str) -> bytes:
    """Return the list with one entry per line."""
    if data is not None and data.startswith(b'[\n{"id":"') and data.endswith(b"}\n]\n"):
        return data
    return _dump([entry.value for entry in parse_list(data, path)])


def _dump(values: Sequence[Mapping[str, object]]) -> bytes:
    return b"[\n" + b",\n".join(map(_line, values)) + b"\n]\n"


def _line(value: Mapping[str, object]) -> bytes:
    first = {"id": value["id"]}  # lines are found by their beginning
    return json.dumps(first | dict(value), separators=(",", ":")).encode()


def _append(lines: bytes, values: Sequence[Mapping[str, object]]) -> bytes:
    if not values:
        return lines
    if lines == _EMPTY:
        return _dump(values)
    added = b",\n".join(map(_line, values))
    return b"".join([lines.removesuffix(b"\n]\n"), b",\n", added, b"\n]\n"])


def _find(lines: bytes, wanted: str) -> tuple[int, int] | None:
    """Return begin and end of the line of the entry with the ID `wanted`."""
    begin = lines.find(b'\n{"id":"' + wanted.encode() + b'"')
    return None if begin < 0 else _bounds(lines, begin + 1)


def _bounds(lines: bytes, position: int) -> tuple[int, int]:
    begin = lines.rfind(b"\n", 0, position) + 1
    end = lines.find(b"\n", position)
    return begin, end - lines.endswith(b",", begin, end)


def _with_name(lines: bytes, wanted: str, name: str) -> bytes:
    if any(entry.id == wanted for _, entry in _entries_named(lines, name)):
        return lines
    lines = _without_name(lines, name)
    found = _find(lines, wanted)
    if found is None:
        return lines
    entry = _entry(_parse(lines[slice(*found)], IMAGES_FILE), IMAGES_FILE)
    return _replace(lines, found, entry.value, names=sorted({*entry.names, name}))


def _without_name(lines: bytes, name: str) -> bytes:
    for bounds, entry in reversed(list(_entries_named(lines, name))):
        kept = [other for other in entry.names if other != name]
        lines = _replace(lines, bounds, entry.value, names=kept)
    return lines


def _replace(
    lines: bytes, bounds: tuple[int, int], value: Mapping[str, object], **changed: object
) -> bytes:
    line = _line(dict(value) | changed)
    return lines[: bounds[0]] + line + lines[bounds[1] :]


def _entries_named(lines: bytes, name: str) -> Iterator[tuple[tuple[int, int], ListEntry]]:
    """Yield the entries of images that have `name`, each with begin and end of its line."""
    wanted = json.dumps(name).encode()
    position = lines.find(wanted)
    while position >= 0:
        begin, end = _bounds(lines, position)
        entry = _entry(_parse(lines[begin:end], IMAGES_FILE), IMAGES_FILE)
        if name in entry.names:
            yield (begin, end), entry
        position = lines.find(wanted, end)
