"""What the manifests of all published and scheduled images require of the rest of the tree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from publisher.oci.chain import chain_ids
from publisher.repository.reading import Usage
from publisher.tree import layout
from publisher.verify.inventory import LiveImage


@dataclass(slots=True)
class Expected:
    """What should exist, and for which image; counted once, so that each look-up is immediate.

    Attributes:
        usage: Which names use an image, and which images use a layer.
        diff_ids: By layer digest, the diff IDs that the configs list.
        layer_names: By layer digest, the first published name that uses the layer.
        image_names: By image ID, the first published name that uses the image.
        origins: By path of an origin record, the layer's digest.
        chains: By chain ID, the layers that complete a stack with it, each of the same content.
        users: By path of a record of an image's users, the image ID.
    """

    usage: Usage = field(default_factory=Usage)
    diff_ids: dict[str, set[str]] = field(default_factory=dict)
    chains: dict[str, set[str]] = field(default_factory=dict)
    layer_names: dict[str, str] = field(default_factory=dict)
    image_names: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, images: Iterable[LiveImage]) -> Expected:
        """Count what `images` use."""
        expected = cls()
        for image in images:
            expected._add(image)
        expected.origins = {layout.layer_origin(digest): digest for digest in expected.layers}
        expected.users = {layout.image_users(image_id): image_id for image_id in expected.images}
        return expected

    @property
    def layers(self) -> dict[str, set[str]]:
        """By layer digest, the image IDs that use the layer."""
        return self.usage.layers

    @property
    def images(self) -> dict[str, set[tuple[str, str]]]:
        """By image ID, (name, manifest digest) of those that use the image."""
        return self.usage.images

    def _add(self, image: LiveImage) -> None:
        manifest = image.manifest
        self.usage.add(image.name, image.manifest_digest, manifest)
        if not image.manifest_digest:  # in DUCC's schedule: without a name, so without a user
            self.usage.images[manifest.image_id].discard((image.name, image.manifest_digest))
        self.image_names.setdefault(manifest.image_id, image.name)
        for layer in manifest.layers:
            self.layer_names.setdefault(layer.digest, image.name)
        if image.config is not None and len(image.config.diff_ids) == len(manifest.layers):
            diff_ids = image.config.diff_ids
            for layer, diff_id, chain in zip(
                manifest.layers, diff_ids, chain_ids(diff_ids), strict=True
            ):
                self.diff_ids.setdefault(layer.digest, set()).add(diff_id)
                self.chains.setdefault(chain, set()).add(layer.digest)
