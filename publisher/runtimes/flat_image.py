"""A flat image as layers and config make it: what `ingest` links, `verify` compares and repairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from publisher.entry import Generated, Merged
from publisher.errors import DigestMismatch, InvalidManifest
from publisher.layers.index import IndexHeader, LayerIndex, read_header
from publisher.layers.merge import merge
from publisher.oci.config import ImageConfig
from publisher.oci.descriptor import Descriptor
from publisher.repository import Repository
from publisher.runtimes.apptainer import insert, runtime_files


@contextmanager
def flat_plan(
    repository: Repository, layers: Sequence[str], config: ImageConfig | None, what: str
) -> Iterator[Iterator[Merged | Generated]]:
    """The flat image of `layers` (digests, from bottom to top), with the files for runtimes.

    Without a `config`, which not every tool keeps, there are no files for runtimes, and the layers
    are not held against its diff IDs. `what` names the image in errors. Raises DigestMismatch for a
    layer that is something else than this image's, though it was sound for another; LayerError for
    an index that cannot be used.
    """
    indexes = [LayerIndex(partial(repository.open_index, digest)) for digest in layers]
    if config is not None:
        for index, digest, promised in zip(indexes, layers, config.diff_ids, strict=True):
            _check_diff_id(index.header, digest, promised, what)
    generated = runtime_files(config.container) if config is not None else []
    yield insert(merge(indexes), generated)


def check_layers(
    repository: Repository, layers: Sequence[Descriptor], config: ImageConfig, what: str
) -> None:
    """Raise DigestMismatch, or InvalidManifest, for a layer that is not what the image says it is.

    `layers` are the manifest's, and have to be what `config` promises, one by one: a layer that
    came for another image was held against that one's. One that another tool published has no
    index, and nothing to compare. `what` names the image in errors.
    """
    for layer, promised in zip(layers, config.diff_ids, strict=True):
        if not repository.has_layer(layer.digest):
            continue
        with repository.open_index(layer.digest) as file:
            header = read_header(file)
        _check_diff_id(header, layer.digest, promised, what)
        size = header.size
        if size != layer.size:
            raise InvalidManifest(
                f"cannot publish manifest {what}",
                why=f"it says that layer {layer.digest} has {layer.size} bytes, and it has {size}",
            )


def _check_diff_id(header: IndexHeader, digest: str, promised: str, what: str) -> None:
    if header.diff_id != promised:
        raise DigestMismatch(
            f"layer {digest} is not what the config of {what} says",
            expected=promised,
            actual=header.diff_id,
        )
