"""The layers of an image as Podman's store has them: one for each published layer tree."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from publisher.layers.index import IndexHeader, LayerIndex
from publisher.oci.config import ImageConfig
from publisher.oci.manifest import Manifest, distinct_from_top
from publisher.repository import Repository
from publisher.runtimes.podman import format as podman
from publisher.runtimes.podman.format import StoreLayer
from publisher.tree import layout


def headers(repository: Repository, manifest: Manifest) -> list[IndexHeader]:
    """Return the headers of the layers' indexes, from bottom to top.

    Raises:
        RepositoryChanged: A layer is neither published nor staged.
        LayerError: An index is damaged.
    """
    return [
        LayerIndex(partial(repository.open_index, layer.digest)).header for layer in manifest.layers
    ]


def tree_layers(
    repository: Repository,
    manifest: Manifest,
    config: ImageConfig,
    headers: Sequence[IndexHeader],
) -> list[StoreLayer]:
    """Return the store's layers of an image, from bottom to top.

    Of a layer that the image lists several times, only the topmost occurrence is among them:
    overlayfs does not mount one directory twice.
    """
    descriptors = manifest.layers
    numbers = distinct_from_top([descriptor.digest for descriptor in descriptors])
    ids = podman.layer_ids([config.diff_ids[number] for number in numbers])
    layers: list[StoreLayer] = []
    for number, layer_id in zip(numbers, ids, strict=True):
        descriptor = descriptors[number]
        has_tar_split = repository.has_tar_split(descriptor.digest)
        layers.append(
            StoreLayer(
                id=layer_id,
                parent=layers[-1].id if layers else "",
                tree=layout.layer_tree(descriptor.digest),
                diff_id=config.diff_ids[number],
                diff_size=headers[number].archive_size,
                compressed_digest=descriptor.digest,
                compressed_size=descriptor.size,
                tar_split=layout.layer_tar_split(descriptor.digest) if has_tar_split else "",
            )
        )
    return layers
