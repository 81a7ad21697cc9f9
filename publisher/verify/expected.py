"""What the manifests of all published and scheduled images require of the rest of the tree."""

from __future__ import annotations

from dataclasses import field

from publisher.lazy import dataclass
from publisher.oci.chain import chain_ids
from publisher.oci.manifest import Manifest
from publisher.repository.reading import Usage
from publisher.tree import layout
from publisher.verify.inventory import Inventory, LiveImage


@dataclass(slots=True)
class Expected:
    """The content that should exist, and the images that need it.

    Attributes:
        usage: Which names use an image, and which images use a layer.
        diff_ids: By layer digest, the diff IDs that the configs list.
        layer_names: By layer digest, the first name that uses the layer; "" if none is known.
        image_names: By image ID, the first name that uses the image; "" if none is known.
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
    def of(cls, inventory: Inventory) -> Expected:
        """Count what the images of `inventory` use."""
        expected = cls()
        for image in inventory.images:
            expected.usage.add(image.name, image.manifest_digest, image.manifest)
            expected._add_names(image.name, image.manifest)
            expected._add_diff_ids(image)
        for manifest in inventory.unnamed:
            expected.usage.add_unnamed(manifest)
            expected._add_names("", manifest)
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

    def _add_names(self, name: str, manifest: Manifest) -> None:
        self.image_names.setdefault(manifest.image_id, name)
        for layer in manifest.layers:
            self.layer_names.setdefault(layer.digest, name)

    def _add_diff_ids(self, image: LiveImage) -> None:
        layers = image.manifest.layers
        if image.config is not None and len(image.config.diff_ids) == len(layers):
            diff_ids = image.config.diff_ids
            for layer, diff_id, chain in zip(layers, diff_ids, chain_ids(diff_ids), strict=True):
                self.diff_ids.setdefault(layer.digest, set()).add(diff_id)
                self.chains.setdefault(chain, set()).add(layer.digest)
