"""Archives of `docker save` before Docker 1.10, which have neither `manifest.json` nor configs.

Source: Docker image specification 1.0. `repositories` names images by the ID of their top layer;
each layer is a folder with `json` (the ID of its parent, and what a container is started with) and
`layer.tar`. A config as later versions have it is made of that; equal archives give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from publisher.sources import SourceError
from publisher.sources.archive import Archive
from publisher.sources.files import read_file
from publisher.sources.saved import SavedImage

MAX_LAYERS = 1000
_KEPT = ("architecture", "os", "variant", "author", "created", "config")


def legacy_images(archive: Archive) -> list[SavedImage]:
    """The images that `repositories` lists; one without a name if the archive lists none."""
    data = read_file(archive, "repositories")
    try:
        repositories = json.loads(data) if data is not None else {}
        named: dict[str, list[str]] = {}
        for name, tags in repositories.items():
            for tag, layer in tags.items():
                named.setdefault(str(layer), []).append(f"{name}:{tag}")
        if not named:
            named = {layer: [] for layer in _tops(archive)}
        return [_image(archive, layer, tuple(names)) for layer, names in named.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise SourceError(
            f"cannot read {archive.name}", why="it is not an archive of docker save"
        ) from None


def _tops(archive: Archive) -> list[str]:
    """The layers that are no other layer's parent."""
    layers = [name.removesuffix("/json") for name in archive.names() if name.endswith("/json")]
    parents = {_layer_json(archive, layer).get("parent") for layer in layers}
    return [layer for layer in layers if layer not in parents]


def _image(archive: Archive, top: str, names: tuple[str, ...]) -> SavedImage:
    chain = [top]
    description = _layer_json(archive, top)
    parent = description.get("parent")
    while parent:
        if len(chain) >= MAX_LAYERS or parent in chain:
            raise SourceError(f"cannot read {archive.name}", why="its layers go in a circle")
        chain.append(str(parent))
        parent = _layer_json(archive, chain[-1]).get("parent")
    layers = tuple(f"{layer}/layer.tar" for layer in reversed(chain))
    config = {key: description[key] for key in _KEPT if key in description}
    config = {"architecture": "amd64", "os": "linux"} | config
    config["rootfs"] = {"type": "layers", "diff_ids": [_digest(archive, name) for name in layers]}
    data = json.dumps(config, separators=(",", ":"), sort_keys=True).encode()
    return SavedImage(names, data, layers)


def _layer_json(archive: Archive, layer: str) -> dict[str, Any]:
    data = read_file(archive, f"{layer}/json")
    if data is None:
        raise SourceError(f"cannot read {archive.name}", why=f"there is no {layer}/json")
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _digest(archive: Archive, name: str) -> str:
    file = archive.open(name)
    if file is None:
        raise SourceError(f"cannot read {archive.name}", why=f"there is no {name}")
    with file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
