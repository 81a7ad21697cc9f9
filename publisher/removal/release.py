"""What goes with one image, decided from the records of its own layers alone.

The rule of the thesis (section 5.3), by image ID: an image releases the layers that no other live
manifest with the same image ID lists, and a layer goes with the last image that uses it.
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
    """What the decision about a scheduled image needs.

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
    """What becomes of the records, and which content goes.

    `origins` holds the records that change, those of the `layers` that go (bottom to top) included.
    `flat` says whether the flat image goes: it does when its image ID has no users any more.
    """

    entry: ScheduledRemoval
    users: ImageUsers
    origins: Mapping[str, Origin]
    layers: tuple[str, ...]
    flat: bool


def decide(facts: Facts) -> Release:
    """Return what goes when this image goes."""
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
