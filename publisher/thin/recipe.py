"""The recipe: the file `thin.json`, which names the places of an image's layers. Pure.

Its format is that of the thesis (section 4.3) and of the plugins that read it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote

from publisher.lazy import dataclass
from publisher.oci.digest import digest_hex
from publisher.tree import layout

FILE_NAME = "thin.json"
VERSION = "1.1"
"""1.1: the layer has files for engines beside the recipe (thin-images/README.md)."""
MIN_VERSION = "1.0"
"""The oldest version of the format whose readers understand what is written."""


@dataclass(frozen=True, slots=True)
class RecipeLayer:
    """One tree of a recipe: its digest in bare hex, and the URL where it is mounted."""

    digest: str
    url: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """The content of a recipe: the trees to mount, from bottom to top, and the original image.

    `origin` names the original with its digest: "https://registry/name:tag@sha256:…".
    """

    origin: str
    layers: tuple[RecipeLayer, ...]
    comment: str = ""

    def to_bytes(self) -> bytes:
        """Return the bytes of the file; equal recipes give equal bytes."""
        value = {
            "version": VERSION,
            "min_version": MIN_VERSION,
            "origin": self.origin,
            "layers": [{"digest": layer.digest, "url": layer.url} for layer in self.layers],
            "comment": self.comment,
        }
        return json.dumps(value, indent=1).encode() + b"\n"


def layered_recipe(origin: str, base_url: str, layers: Sequence[str]) -> Recipe:
    """Return the recipe of layer trees; `layers` are digests, from bottom to top."""
    return Recipe(
        origin,
        tuple(
            RecipeLayer(digest_hex(digest), f"{base_url}/{layout.layer_tree(digest)}")
            for digest in layers
        ),
        "The layers of the image, bottom to top.",
    )


def flat_recipe(origin: str, base_url: str, image_id: str) -> Recipe:
    """Return the recipe with the flat image as only layer, for runtimes that limit layers."""
    layer = RecipeLayer(digest_hex(image_id), f"{base_url}/{layout.flat_image(image_id)}")
    return Recipe(origin, (layer,), "One layer: the merged root file system of the image.")


def base_url(kind: str, location: str) -> str:
    """Return the prefix of URLs into a repository; a directory's `location` must be absolute."""
    return f"cvmfs://{location}" if kind == "cvmfs" else f"file://{quote(location.rstrip('/'))}"
