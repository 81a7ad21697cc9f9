"""Decide which content is removed with one image, from the records of its own layers alone.

The rule of the thesis (section 5.3), by image ID: an image releases the layers that no other live
manifest with the same image ID lists, and a layer is removed with the last image that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from publisher.oci.manifest import Manifest
from publisher.tree.origin import Origin
from publisher.tree.schedule import ScheduledRemoval
from publisher.tree.users import ImageUsers


@dataclass(frozen=True, slots=True)
class Facts:
    """The input of the decision about a scheduled image.

    `users` are the names and manifests that use its image ID, its own included. `siblings` are the
    manifests, other than its own, through which they do. `origins` holds the record of each of its
    layers that exists.
    """

    entry: ScheduledRemoval
    manifest: Manifest
    users: ImageUsers
    siblings: tuple[Manifest, ...]
    origins: Mapping[str, Origin]


@dataclass(frozen=True, slots=True)
class Release:
    """The decision: which records change, and which content is removed.

    `origins` are the records that change, including those of the removed `layers` (bottom to top).
    `flat` is whether the flat image is removed: if its image ID has no users any more.
    """

    entry: ScheduledRemoval
    users: ImageUsers
    origins: Mapping[str, Origin]
    layers: tuple[str, ...]
    flat: bool


def decide(facts: Facts) -> Release:
    """Return what is removed together with this image."""
    entry, manifest = facts.entry, facts.manifest
    users = ImageUsers(facts.users.users - {entry.key})
    needed = {layer.digest for sibling in facts.siblings for layer in sibling.layers}
    if any(digest == entry.manifest_digest for _, digest in users.users):
        needed.update(layer.digest for layer in manifest.layers)  # the same image, another name
    released = dict.fromkeys(
        layer.digest
        for layer in manifest.layers
        if layer.digest in facts.origins and layer.digest not in needed
    )
    origins = {d: facts.origins[d].without_image(entry.image_id) for d in released}
    layers = tuple(digest for digest, origin in origins.items() if not origin.images)
    return Release(entry, users, origins, layers, flat=not users.users)
