"""A flat image as layers and config make it: what `ingest` links, `verify` compares and repairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from publisher.entry import Generated, Merged
from publisher.errors import DigestMismatch, InvalidManifest
from publisher.layers.index import IndexHeader, read_header, read_index
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
    with ExitStack() as stack:
        files = [stack.enter_context(repository.open_index(digest)) for digest in layers]
        if config is not None:
            for file, digest, promised in zip(files, layers, config.diff_ids, strict=True):
                _check_diff_id(file, digest, promised, what)
        generated = runtime_files(config.container) if config is not None else []
        yield insert(merge([read_index(file) for file in files]), generated)


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
            size = _check_diff_id(file, layer.digest, promised, what).size
        if size != layer.size:
            raise InvalidManifest(
                f"cannot publish manifest {what}",
                why=f"it says that layer {layer.digest} has {layer.size} bytes, and it has {size}",
            )


def _check_diff_id(file: BinaryIO, digest: str, promised: str, what: str) -> IndexHeader:
    header = read_header(file)
    if header.diff_id != promised:
        raise DigestMismatch(
            f"layer {digest} is not what the config of {what} says",
            expected=promised,
            actual=header.diff_id,
        )
    return header
