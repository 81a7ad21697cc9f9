"""Read the lists in an archive of `docker save`: the files of its images.

Sources: Docker image specification 1.0 to 1.2. Since Docker 1.10, `manifest.json` names the config
and layers of each image. Before, `repositories` names images by the ID of their top layer, and each
layer is a directory with `json` (its parent and container config) and `layer.tar`, from which a
config in the later format is made. Equal archives give equal bytes.
"""

from __future__ import annotations

import json

from publisher.lazy import dataclass
from publisher.sources import SourceError
from publisher.sources.archive import Archive
from publisher.sources.files import read_file

MAX_LAYERS = 1000
_KEPT = ("architecture", "os", "variant", "author", "created", "config")


@dataclass(frozen=True, slots=True)
class SavedImage:
    """One image: its names, its config, and the names of its layers' files, bottom to top."""

    names: tuple[str, ...]
    config: bytes
    layers: tuple[str, ...]


def saved_images(archive: Archive) -> list[SavedImage]:
    """Return the images that the archive lists; raise SourceError if it is malformed."""
    data = read_file(archive, "manifest.json")
    if data is None:
        return _legacy_images(archive)
    try:
        entries = json.loads(data)
        return [_entry(archive, entry) for entry in entries]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise SourceError(
            f"cannot read {archive.name}",
            why="its manifest.json does not have the format of docker save",
        ) from None


def _entry(archive: Archive, entry: dict[str, object]) -> SavedImage:
    [file] = _texts([entry["Config"]])
    names = entry.get("RepoTags")
    layers = _texts(entry["Layers"])
    config = read_file(archive, file)
    if config is None:
        raise SourceError(f"cannot read {archive.name}", why=f"it has no {file}")
    return SavedImage(() if names is None else _texts(names), config, layers)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError("not a list of strings")
    return tuple(value)


def _legacy_images(archive: Archive) -> list[SavedImage]:
    """Return the images in `repositories`; one without a name if the archive has no such file."""
    data = read_file(archive, "repositories")
    try:
        repositories = json.loads(data) if data is not None else {}
        named: dict[str, list[str]] = {}
        for name, tags in repositories.items():
            for tag, layer in tags.items():
                named.setdefault(str(layer), []).append(f"{name}:{tag}")
        if not named:
            named = {layer: [] for layer in _top_layers(archive)}
        return [_legacy_image(archive, layer, tuple(names)) for layer, names in named.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise SourceError(
            f"cannot read {archive.name}",
            why="it has neither manifest.json nor the files of docker save before version 1.10",
        ) from None


def _top_layers(archive: Archive) -> list[str]:
    """Return the layers that are not the parent of another layer."""
    layers = [name.removesuffix("/json") for name in archive.names() if name.endswith("/json")]
    parents = {_layer_json(archive, layer).get("parent") for layer in layers}
    return [layer for layer in layers if layer not in parents]


def _legacy_image(archive: Archive, top: str, names: tuple[str, ...]) -> SavedImage:
    chain = [top]
    description = _layer_json(archive, top)
    parent = description.get("parent")
    while parent:
        if len(chain) >= MAX_LAYERS or parent in chain:
            raise SourceError(f"cannot read {archive.name}", why="its layers form a loop")
        chain.append(str(parent))
        parent = _layer_json(archive, chain[-1]).get("parent")
    layers = tuple(f"{layer}/layer.tar" for layer in reversed(chain))
    config = {key: description[key] for key in _KEPT if key in description}
    config = {"architecture": "amd64", "os": "linux"} | config
    config["rootfs"] = {"type": "layers", "diff_ids": [_digest(archive, name) for name in layers]}
    data = json.dumps(config, separators=(",", ":"), sort_keys=True).encode()
    return SavedImage(names, data, layers)


def _layer_json(archive: Archive, layer: str) -> dict[str, object]:
    data = read_file(archive, f"{layer}/json")
    if data is None:
        raise SourceError(f"cannot read {archive.name}", why=f"it has no {layer}/json")
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _digest(archive: Archive, name: str) -> str:
    digest = archive.digest(name)
    if digest is None:
        raise SourceError(f"cannot read {archive.name}", why=f"it has no {name}")
    return digest
