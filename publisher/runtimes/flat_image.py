"""The plan of a flat image from its layers and config, for `ingest`, `verify` and repair."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from publisher.entry import Entry, EntryType, FlatPlan, Generated
from publisher.errors import DigestMismatch, InvalidManifest
from publisher.layers.index import IndexHeader, LayerIndex, read_header
from publisher.layers.index_lines import decode_entry
from publisher.layers.merge import merge
from publisher.oci.config import ContainerConfig, ImageConfig
from publisher.oci.descriptor import Descriptor
from publisher.repository import Repository
from publisher.runtimes.flat_files import insert, runtime_files


@contextmanager
def flat_plan(
    repository: Repository,
    layers: Sequence[str],
    config: ImageConfig | None,
    what: str,
    decode: Callable[[str], Entry] = decode_entry,
) -> Iterator[FlatPlan]:
    """Open the plan of the flat image of `layers`, with the files for runtimes.

    Args:
        repository: Contains the layers.
        layers: Digests, from bottom to top.
        config: The image's config. If it is None (other tools do not store it), files for runtimes
            are omitted, and the layers are not compared with its diff IDs.
        what: Names the image in errors.
        decode: Decodes a line of an index.

    Raises:
        DigestMismatch: A layer has another diff ID than in the config. It was published for another
            image, whose config had that diff ID.
        LayerError: A layer's index cannot be used.
    """
    indexes = [LayerIndex(partial(repository.open_index, digest)) for digest in layers]
    if config is not None:
        for index, digest, expected in zip(indexes, layers, config.diff_ids, strict=True):
            _check_diff_id(index.header, digest, expected, what)
    generated = runtime_files(config.container) if config is not None else []
    if any(index.header.policy.get("writable") == "drop" for index in indexes):
        generated = [_not_writable(each) for each in generated]
    entries = sum(index.header.entries for index in indexes)
    yield FlatPlan(entries, generated, lambda: insert(merge(indexes, decode), generated))


def generated_paths(repository: Repository, layers: Sequence[str]) -> Set[str]:
    """Return the paths of the files for runtimes in the flat image of `layers`.

    They depend on what the layers have, and not on the image's config.

    Raises:
        LayerError: A layer's index cannot be used.
    """
    indexes = [LayerIndex(partial(repository.open_index, digest)) for digest in layers]
    plan = insert(merge(indexes), runtime_files(ContainerConfig()))
    return {each.entry.path for each in plan if isinstance(each, Generated)}


def _not_writable(generated: Generated) -> Generated:
    """Return a file for runtimes without write permission for group and others."""
    entry = generated.entry
    if entry.type is EntryType.SYMLINK:
        return generated
    return replace(generated, entry=replace(entry, mode=entry.mode & ~0o022))


def check_layers(
    repository: Repository, layers: Sequence[Descriptor], config: ImageConfig, what: str
) -> None:
    """Compare the sizes and diff IDs of published layers with manifest and config of an image.

    A layer that was published for another image was compared with that image only. A layer of
    another tool has no index, and is not compared.

    Args:
        repository: The repository, which need not have all layers.
        layers: The layers in the manifest, from bottom to top.
        config: The image's config, with the same number of diff IDs.
        what: Names the image in errors.

    Raises:
        DigestMismatch: A layer has another diff ID than the config states.
        InvalidManifest: A layer has another size than the manifest states.
    """
    for layer, expected in zip(layers, config.diff_ids, strict=True):
        if not repository.has_layer(layer.digest):
            continue
        with repository.open_index(layer.digest) as file:
            header = read_header(file)
        _check_diff_id(header, layer.digest, expected, what)
        size = header.size
        if size != layer.size:
            raise InvalidManifest(
                f"cannot publish manifest {what}",
                why=f"it states {layer.size} bytes for layer {layer.digest}, which has {size}",
            )


def _check_diff_id(header: IndexHeader, digest: str, expected: str, what: str) -> None:
    if header.diff_id != expected:
        raise DigestMismatch(
            f"layer {digest} does not have the diff ID that the config of {what} states",
            expected=expected,
            actual=header.diff_id,
        )
