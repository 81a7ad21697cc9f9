"""Decide which content is removed with one image, from the records of its own layers.

The rule of the thesis (section 5.3): an image releases the layers that no other live manifest with
the same image ID lists, and a layer is removed with the last image that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from publisher.lazy import dataclass
from publisher.oci.manifest import Manifest
from publisher.tree.origin import Origin
from publisher.tree.schedule import ScheduledRemoval
from publisher.tree.users import ImageUsers


@dataclass(frozen=True, slots=True)
class Facts:
    """The input of the decision about a scheduled image.

    Attributes:
        entry: Its entry in the remove schedule.
        manifest: Its manifest.
        users: The names and manifests that use its image ID, including its own.
        siblings: The other manifests of these users.
        origins: The records of its layers, as far as they exist, by digest.
    """

    entry: ScheduledRemoval
    manifest: Manifest
    users: ImageUsers
    siblings: tuple[Manifest, ...]
    origins: Mapping[str, Origin]


@dataclass(frozen=True, slots=True)
class Release:
    """The decision: which records change, and which content is removed.

    `origins` are the records that change, including those of the removed `layers`, which are sorted
    from bottom to top. `flat`: the flat image is removed, since its image ID has no users left.
    """

    entry: ScheduledRemoval
    users: ImageUsers
    origins: Mapping[str, Origin]
    layers: tuple[str, ...]
    flat: bool


def decide(facts: Facts) -> Release:
    """Return what is removed together with this image."""
    entry, manifest = facts.entry, facts.manifest
    users = replace(facts.users, users=facts.users.users - {entry.key})
    needed = {layer.digest for sibling in facts.siblings for layer in sibling.layers}
    if any(digest == entry.manifest_digest for _, digest in users.users):
        needed.update(layer.digest for layer in manifest.layers)  # the same image
    released = dict.fromkeys(
        layer.digest
        for layer in manifest.layers
        if layer.digest in facts.origins and layer.digest not in needed
    )
    origins = {d: facts.origins[d].without_image(entry.image_id) for d in released}
    layers = tuple(digest for digest, origin in origins.items() if not origin.images)
    return Release(entry, users, origins, layers, flat=not users.users)
