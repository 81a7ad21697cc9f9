"""origin.json: which images use a layer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from publisher.codec import Codec
from publisher.tree.record import read_record


@dataclass(frozen=True, slots=True)
class Origin:
    """The IDs of the images that use a layer: the reference count of the thesis (section 4.2).

    `extra` keeps the keys that other tools wrote.
    """

    images: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, path: str) -> Origin:
        """Read the file's bytes; `path` names it in InvalidRecord."""
        return read_record(_CODEC.parse, data, path)

    def to_bytes(self) -> bytes:
        """Return the file's bytes: sorted, so that equal records are equal files."""
        # Several times faster than the codec: thousands of images may share a layer.
        images = json.dumps(sorted(self.images), separators=(",\n  ", ": "))[1:-1]
        listed = f"[\n  {images}\n ]" if images else "[]"
        before = json.dumps(dict(self.extra), indent=1)[:-2] + "," if self.extra else "{"
        return f'{before}\n "origin": {listed}\n}}\n'.encode()

    def with_image(self, image_id: str) -> Origin:
        """Return the record with `image_id` added."""
        return replace(self, images=self.images | {image_id})

    def without_image(self, image_id: str) -> Origin:
        """Return the record with `image_id` removed."""
        return replace(self, images=self.images - {image_id})


_CODEC = Codec(Origin, naming={"images": "origin"}.__getitem__, extra="extra", required=["images"])
