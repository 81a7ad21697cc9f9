"""Where the directory of a layer is: at its published place, or still in the staging space."""

from __future__ import annotations

from pathlib import Path

from publisher.repository import LayerChanged
from publisher.tree import layout


def find_layer(root: Path, digest: str, staged: Path | None) -> Path | None:
    """Return the directory of a layer, published or at its place `staged`, if given; else None."""
    published = root / layout.layer_directory(digest)
    places = [published]
    if staged is not None:
        # A commit between the first two checks moves it from `staged` to its published place.
        places += [staged, published]
    return next((place for place in places if (place / layout.LAYER_INDEX).exists()), None)


def layer_gone(digest: str) -> LayerChanged:
    """Return the error for a layer that is neither published nor staged any more."""
    return LayerChanged(digest, why="it was collected while this image was prepared")
