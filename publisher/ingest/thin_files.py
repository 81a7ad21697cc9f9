"""The files of an image that its thin image has beside the recipe.

Engines look up users and groups, and create a missing working directory and missing volumes, before
the layers of the recipe are mounted. They therefore find the same in the thin image's own layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from publisher.entry import Entry, EntryType, Generated
from publisher.layers.index import LayerIndex
from publisher.layers.merge import merge
from publisher.oci.config import ContainerConfig
from publisher.repository import Repository
from publisher.repository.damaged import read_damaged
from publisher.thin import ThinImageError
from publisher.tree import layout

FILES = ("etc/passwd", "etc/group")


def engine_files(
    repository: Repository, layers: Sequence[str], config: ContainerConfig
) -> tuple[Generated, ...]:
    """Return what engines look for in the file system of an image, parents before children.

    That is /etc/passwd and /etc/group where they are regular files, the working directory, the
    volumes, and the directories above them; at most what the image has. Of layers without an index,
    as other programs publish them, nothing is known, and nothing is returned.

    Args:
        repository: has the layers.
        layers: their digests, from bottom to top.
        config: how containers of the image are started.

    Raises:
        ThinImageError: a file is missing from its layer, or differs from its index.
    """
    if not all(repository.exists(layout.layer_index(digest)) for digest in layers):
        return ()
    wanted = {""}
    for path in (*FILES, config.directory, *config.volumes):
        parts = [part for part in path.split("/") if part not in ("", ".")]
        wanted |= {"/".join(parts[:length]) for length in range(1, len(parts) + 1)}
    files = []
    for item in merge([_find(repository, digest, wanted) for digest in layers]):
        entry = item.entry
        is_file = entry.type in (EntryType.FILE, EntryType.HARDLINK) and entry.path in FILES
        if is_file:
            content = _content(repository, layers[item.layer], item.source, entry.sha256)
            files.append(Generated(entry, content))
        elif entry.path and entry.type in (EntryType.DIRECTORY, EntryType.SYMLINK):
            files.append(Generated(entry))
    return tuple(files)


def _find(repository: Repository, digest: str, wanted: set[str]) -> list[Entry]:
    # The file that a hard link to a lower layer names may be anywhere: such a link is left out.
    found = LayerIndex(lambda: repository.open_index(digest)).find(wanted)
    return [entry for entry in found if not entry.is_unresolved]


def _content(repository: Repository, layer: str, path: str, sha256: str) -> bytes:
    data = read_damaged(repository, f"{layout.layer_tree(layer)}/{path}")
    if data is None or hashlib.sha256(data).hexdigest() != sha256:
        raise ThinImageError(
            f"cannot make a thin image with /{path} of layer {layer}",
            why="the file is missing" if data is None else "the file differs from its index",
            hint="publisher verify --deep --repair --refetch",
        )
    return data
