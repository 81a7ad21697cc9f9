"""origin.json: which images use a layer, and by which chain IDs clients find it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field, replace

from publisher.codec import Codec
from publisher.lazy import dataclass
from publisher.tree.record import read_record


@dataclass(frozen=True, slots=True)
class Origin:
    """The IDs of the images that use a layer: the reference count of the thesis (section 4.2).

    `extra` keeps the keys that other tools wrote.

    Attributes:
        chains: The chain IDs of the images' layer stacks that end with this layer. The links by
            chain ID that lead to the layer are among them.
        alternatives: The digests of other layers with the same content (compressed differently)
            that have a chain ID in common with this one.
    """

    images: frozenset[str] = frozenset()
    extra: Mapping[str, object] = field(default_factory=dict)
    chains: frozenset[str] = frozenset()
    alternatives: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, data: bytes, path: str) -> Origin:
        """Read the file's bytes; `path` names it in InvalidRecord."""
        return read_record(_CODEC.parse, data, path)

    def to_bytes(self) -> bytes:
        """Return the file's bytes: sorted, so that equal records are equal files."""
        # Several times faster than the codec: thousands of images may share a layer.
        known = {
            "chains": self.chains,
            "alternatives": self.alternatives,
            "origin": self.images,
        }
        before = json.dumps(dict(self.extra), indent=1)[:-2] + "," if self.extra else "{"
        fields = ",".join(
            f'\n "{key}": {_listed(values)}'
            for key, values in known.items()
            if values or key == "origin"
        )
        return f"{before}{fields}\n}}\n".encode()

    def with_image(self, image_id: str) -> Origin:
        """Return the record with `image_id` added."""
        return replace(self, images=self.images | {image_id})

    def with_chain(self, chain_id: str) -> Origin:
        """Return the record with `chain_id` added."""
        return replace(self, chains=self.chains | {chain_id})

    def with_alternative(self, digest: str) -> Origin:
        """Return the record with the layer `digest` added to the alternatives."""
        return replace(self, alternatives=self.alternatives | {digest})

    def without_image(self, image_id: str) -> Origin:
        """Return the record with `image_id` removed."""
        return replace(self, images=self.images - {image_id})


def _listed(values: frozenset[str]) -> str:
    items = json.dumps(sorted(values), separators=(",\n  ", ": "))[1:-1]
    return f"[\n  {items}\n ]" if items else "[]"


_CODEC = Codec(
    Origin,
    naming=lambda name: {"images": "origin"}.get(name, name),
    extra="extra",
    required=["images"],
)
