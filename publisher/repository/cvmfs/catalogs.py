"""Where nested catalogs start, by the place alone: `layout/README.md` says why."""

from __future__ import annotations

from publisher.tree import layout

MARKER = ".cvmfscatalog"

_TOPS = (layout.LAYERS, layout.FLAT)


def starts_catalog(path: str) -> bool:
    """Whether the directory `path` of a repository is the root of a nested catalog.

    The tops, their 256 shards, each layer (around its tree, so that containers do not see the
    marker) and each flat image.
    """
    top, *below = path.split("/")
    return path == layout.METADATA or (top in _TOPS and len(below) <= 2)


def skeleton(shards: bool) -> list[str]:
    """The directories that every repository has, parents first; with their shards if wanted."""
    names = [f"{number:02x}" for number in range(256)] if shards else []
    return [
        layout.METADATA,
        *_TOPS,
        *(f"{top}/{name}" for top in _TOPS for name in names),
    ]
