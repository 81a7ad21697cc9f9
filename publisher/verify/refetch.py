"""Downloading again what is damaged or lost: `publisher verify --refetch`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial

from publisher.errors import InvalidManifest, PublisherError
from publisher.layers.fixups import fixups
from publisher.layers.index import LayerIndex, read_index
from publisher.layers.policy import Policy
from publisher.layers.unpack import unpack
from publisher.oci.config import parse_config
from publisher.oci.descriptor import Descriptor
from publisher.oci.digest import digest_of
from publisher.oci.manifest import parse_published_manifest
from publisher.oci.platform import Platform
from publisher.oci.reference import parse_reference
from publisher.repository import Repository, RepositoryChanged
from publisher.sources import Source
from publisher.sources.image import fetch_images
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.publication import Publication
from publisher.verify.derive import Failure, Repaired, relink_flat_image
from publisher.verify.findings import Finding, Kind, Remedy
from publisher.verify.inventory import LiveImage, take_inventory
from publisher.verify.run import look

_LAYERS = (Kind.LAYER_MISSING, Kind.LAYER_DAMAGED, Kind.INDEX_MISSING, Kind.INDEX_DAMAGED)
_PUBLICATIONS = (Kind.PUBLICATION_MISSING, Kind.PUBLICATION_DAMAGED)
_TRIES = 3
_DEFAULT_PLATFORM = Platform("linux", "amd64")


def refetch(
    repository: Repository,
    sources: Sources,
    findings: Iterable[Finding],
    *,
    policy: Policy,
    progress: Callable[[str], None] | None = None,
) -> Repaired:
    """Download what `findings` need, image by image, each exactly as it was published.

    `progress` is told, in words, what is being fetched. Whatever arrives is verified like on its
    first arrival, and changes places with what was there in one instant.
    """
    by_image: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.remedy is Remedy.REFETCH or finding.kind in _LAYERS:
            by_image.setdefault(finding.image, []).append(finding)
    repaired: list[Finding] = []
    failures: list[Failure] = []
    for name, group in sorted(by_image.items()):
        try:
            _refetch_image(repository, sources, name, group, policy, progress or (lambda _: None))
        except (PublisherError, OSError) as error:
            failures += [Failure(finding, str(error)) for finding in group]
        else:
            repaired += group
    return Repaired(tuple(repaired), tuple(failures))


def _refetch_image(
    repository: Repository,
    sources: Sources,
    name: str,
    findings: Sequence[Finding],
    policy: Policy,
    progress: Callable[[str], None],
) -> None:
    damaged = {finding.path for finding in findings if finding.kind in _LAYERS}
    if any(finding.kind not in _LAYERS for finding in findings):
        progress(f"metadata of {name}")
        _refetch_metadata(repository, sources, name, {finding.kind for finding in findings})
    images = look(repository)[0].images
    wanted = [
        image
        for image in images
        if image.name == name
        and any(_places(layer.digest) & damaged for layer in image.manifest.layers)
    ]
    fetched: set[str] = set()
    for image in wanted:
        source = sources.open(parse_reference(image.reference or image.name))
        fetched |= _refetch_layers(repository, source, image, damaged, policy, progress)
    # The old flat images still hold what the old layers held; also those that came meanwhile.
    for image in take_inventory(repository).images if fetched else ():
        if image.flat and any(layer.digest in fetched for layer in image.manifest.layers):
            relink_flat_image(repository, image, "a layer was replaced")


def _places(digest: str) -> set[str]:
    return {layout.layer_tree(digest), layout.layer_index(digest)}


def _refetch_layers(
    repository: Repository,
    source: Source,
    image: LiveImage,
    damaged: Collection[str],
    policy: Policy,
    progress: Callable[[str], None],
) -> set[str]:
    """Replace the image's damaged layers, from bottom to top; their digests."""
    config = image.config
    if config is None:
        config = parse_config(source.fetch(image.manifest.config), image.manifest.image_id)
    layers = image.manifest.layers
    done: set[str] = set()
    for number, (layer, diff_id) in enumerate(zip(layers, config.diff_ids, strict=True)):
        if layer.digest in done or not _places(layer.digest) & set(damaged):
            continue
        progress(f"layer {layer.digest}")
        below = [each.digest for each in layers[:number]]
        for attempt in range(1, _TRIES + 1):
            try:
                _refetch_layer(repository, source, layer, diff_id, below, image.name, policy)
                break
            except RepositoryChanged:
                # An ingest that uses the layer has no use for a second one, and gives it up.
                if attempt == _TRIES:
                    raise
        done.add(layer.digest)
    return done


def _refetch_layer(
    repository: Repository,
    source: Source,
    layer: Descriptor,
    diff_id: str,
    below: Sequence[str],
    name: str,
    policy: Policy,
) -> None:
    with ExitStack() as stack:
        lower = [LayerIndex(partial(repository.open_index, digest)) for digest in below]
        index = stack.enter_context(tempfile.TemporaryFile())
        with repository.stage_layer(layer.digest) as stage, source.blob(layer) as chunks:
            unpack(stage.keep(chunks), layer, diff_id, stage.sink, index, policy)
            index.seek(0)
            shutil.copyfileobj(index, stage.index)
            stage.finish()
        needed = tuple(fixups([*lower, read_index(index)], repository.keeps_xattrs))
    with repository.transaction(f"repair of layer {layer.digest}") as transaction:
        with transaction.exclusive():
            # Nothing is brought back that was removed meanwhile.
            if not any(
                each.digest == layer.digest
                for image in take_inventory(repository).images
                for each in image.manifest.layers
            ):
                return
            transaction.add_layer(layer.digest, needed, below, anew=True)
            _keep_origin(repository, layer.digest, transaction.replace)
            transaction.record(layer.digest, "fetched again", f"for {name}")
            transaction.commit()


def _keep_origin(
    repository: Repository, digest: str, replace: Callable[[str, bytes], None]
) -> None:
    """The new tree comes without the record that the old one had, or should have had."""
    path = layout.layer_origin(digest)
    data = repository.read(path)
    if data is not None:
        replace(path, data)
        return
    inventory, expected = look(repository)
    if inventory.certain:
        replace(path, Origin(frozenset(expected.layers.get(digest, ()))).to_bytes())


def _refetch_metadata(
    repository: Repository, sources: Sources, name: str, kinds: Collection[Kind]
) -> None:
    path = layout.publication_file(name)
    places = (layout.manifest_file(name), layout.config_file(name), path)
    before = [repository.read(place) for place in places]
    publication = None
    if not any(kind in _PUBLICATIONS for kind in kinds):
        data = repository.read(path)
        publication = Publication.parse(data, path) if data is not None else None
    reference = parse_reference(publication.reference if publication else name)
    source = sources.open(reference)
    if publication is not None:
        digest, platform = publication.manifest_digest, Platform.parse(publication.platform)
    else:
        digest, platform = _known_manifest(repository, name, source)
    [image] = fetch_images(source, [platform], digest)
    files = {
        layout.manifest_file(name): image.document.data,
        layout.config_file(name): image.config_document.data,
    }
    if publication is None:
        files[path] = Publication(
            name=name,
            reference=str(reference),
            source_digest=image.index_digest or image.document.digest,
            manifest_digest=image.document.digest,
            image_id=image.manifest.image_id,
            platform=str(platform),
            outputs=("flat",),
            published_at=datetime.now(UTC),
        ).to_bytes()
    with repository.transaction(f"repair of the metadata of {name}") as transaction:
        with transaction.exclusive():
            if [repository.read(place) for place in places] != before:
                raise RepositoryChanged(
                    f"cannot repair the metadata of {name}",
                    why="it was published again, or removed, meanwhile",
                    hint="verify again",
                )
            for place, content in files.items():
                if repository.read(place) != content:
                    transaction.replace(place, content)
            transaction.record(name, "metadata fetched again", ", ".join(sorted(kinds)))
            transaction.commit()


def _known_manifest(repository: Repository, name: str, source: Source) -> tuple[str, Platform]:
    """The manifest that is published as `name`, as far as is known; else what its source says."""
    data = repository.read(layout.manifest_file(name))
    config = repository.read(layout.config_file(name))
    try:
        if data is not None and config is not None:
            manifest = parse_published_manifest(data)
            platform = parse_config(config, manifest.image_id).platform
            return digest_of(data), platform
    except InvalidManifest:
        return source.resolve(), _DEFAULT_PLATFORM
    return source.resolve(), _DEFAULT_PLATFORM
