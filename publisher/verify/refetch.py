"""Download damaged or missing content again: `publisher verify --refetch`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial

from publisher.errors import PublisherError
from publisher.layers.fixups import fixups
from publisher.layers.index import LayerIndex, read_index
from publisher.layers.policy import Policy
from publisher.oci.config import parse_config
from publisher.oci.descriptor import Descriptor
from publisher.oci.reference import parse_reference
from publisher.repository import Repository, RepositoryChanged
from publisher.repository.damaged import read_damaged
from publisher.sources import Source
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.record import Unreadable
from publisher.verify.findings import Finding, Kind, Remedy
from publisher.verify.inventory import LiveImage
from publisher.verify.outcome import Failure, Repaired
from publisher.verify.refetch_metadata import refetch_metadata, refetch_retired
from publisher.verify.relink import relink_flat_image
from publisher.verify.survey import survey, take_inventory
from publisher.workers.job import Job
from publisher.workers.pool import Workers

_LAYERS = (
    *(Kind.LAYER_MISSING, Kind.LAYER_DAMAGED, Kind.LAYER_WRITABLE),
    *(Kind.INDEX_MISSING, Kind.INDEX_DAMAGED),
)
_RETIRED = (Kind.RETIRED_MISSING, Kind.RETIRED_DAMAGED)
_TRIES = 3


def refetch(
    repository: Repository,
    sources: Sources,
    findings: Iterable[Finding],
    *,
    policy: Policy,
    workers: Workers,
    progress: Callable[[str], None] | None = None,
) -> Repaired:
    """Download what `findings` need, each blob and manifest by the digest that was published.

    Args:
        repository: Opened for writing.
        sources: Where images come from.
        findings: Findings with the remedy REFETCH, and findings about layers.
        policy: What of a layer may appear in the repository.
        workers: Unpacks the layers.
        progress: Called with a description of what is being fetched.

    Returns:
        The results. Each download is verified as in an ingest, and replaces the damaged content in
        one transaction.
    """
    progress = progress or (lambda _: None)
    wanted = [f for f in findings if f.remedy is Remedy.REFETCH or f.kind in _LAYERS]
    by_image: dict[tuple[str, bool], list[Finding]] = {}
    for finding in wanted:
        if finding.kind not in _LAYERS:
            key = (finding.image, finding.kind in _RETIRED)
            by_image.setdefault(key, []).append(finding)
    repaired: list[Finding] = []
    failures: list[Failure] = []
    for (name, retired), group in sorted(by_image.items()):
        progress(f"metadata of {name}")
        fetch = refetch_retired if retired else refetch_metadata
        try:
            fetch(repository, sources, name, {finding.path for finding in group})
        except (PublisherError, OSError) as error:
            failures += [Failure.of(finding, error) for finding in group]
        else:
            repaired += group
    layers = _Layers(repository, sources, policy, workers, progress)
    done = layers.refetch([finding for finding in wanted if finding.kind in _LAYERS])
    return Repaired((*repaired, *done.findings), (*failures, *done.failures))


class _Layers:
    """Replaces damaged layers by downloads from the sources of the images that use them."""

    def __init__(
        self,
        repository: Repository,
        sources: Sources,
        policy: Policy,
        workers: Workers,
        progress: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._sources = sources
        self._policy = policy
        self._workers = workers
        self._progress = progress

    def refetch(self, findings: Sequence[Finding]) -> Repaired:
        """Fetch each layer from the first source that has it, then link its flat images again."""
        damaged = {finding.path for finding in findings}
        errors: dict[str, Exception] = {}
        fetched: set[str] = set()
        named = {finding.image for finding in findings}
        images = take_inventory(self._repository).images if findings else []
        for image in sorted(images, key=lambda image: image.name not in named):
            digests = {layer.digest for layer in image.manifest.layers} - fetched
            needed = damaged & _places(*digests)
            if not needed:
                continue
            try:
                source = self._sources.open(parse_reference(image.reference or image.name))
                fetched.update(self._fetch_layers_of(image, source, needed))
            except (PublisherError, OSError) as error:
                for path in needed:
                    errors.setdefault(path, error)
        failures = self._relink(fetched, findings)
        places = _places(*fetched)
        failures += [
            Failure.of(
                f, errors.get(f.path, PublisherError("no image whose name is known uses it"))
            )
            for f in findings
            if f.path not in places
        ]
        return Repaired(tuple(f for f in findings if f.path in places), tuple(failures))

    def _fetch_layers_of(
        self, image: LiveImage, source: Source, damaged: Collection[str]
    ) -> Iterator[str]:
        """Replace the image's damaged layers from bottom to top; yield the digest of each."""
        config = image.config
        if config is None:
            config = parse_config(source.fetch(image.manifest.config), image.manifest.image_id)
        layers = image.manifest.layers
        done: set[str] = set()
        for number, (layer, diff_id) in enumerate(zip(layers, config.diff_ids, strict=True)):
            if layer.digest in done or not _places(layer.digest) & set(damaged):
                continue
            self._progress(f"layer {layer.digest}")
            below = [each.digest for each in layers[:number]]
            for attempt in range(1, _TRIES + 1):
                try:
                    self._fetch_layer(source, layer, diff_id, below, image.name)
                    break
                except RepositoryChanged:
                    # A concurrent ingest that uses the layer discards the one that was staged.
                    if attempt == _TRIES:
                        raise
            done.add(layer.digest)
            yield layer.digest

    def _fetch_layer(
        self, source: Source, layer: Descriptor, diff_id: str, below: Sequence[str], name: str
    ) -> None:
        repository = self._repository
        lower = [LayerIndex(partial(repository.open_index, digest)) for digest in below]
        with tempfile.TemporaryFile() as index:
            with repository.stage_layer(layer.digest) as stage, source.blob(layer) as chunks:
                split = repository.exists(layout.PODMAN_STORE)
                self._workers.unpack(stage, chunks, Job(layer, diff_id, self._policy, split))
                with stage.open_index() as unpacked:
                    shutil.copyfileobj(unpacked, index)
                stage.finish()
            needed = tuple(fixups([*lower, read_index(index)], repository.keeps_xattrs))
        with repository.transaction(f"repair of layer {layer.digest}") as transaction:
            with transaction.exclusive():
                # A layer that a concurrent publisher removed is not published again.
                if not any(
                    each.digest == layer.digest
                    for manifest in take_inventory(repository).manifests
                    for each in manifest.layers
                ):
                    return
                transaction.add_layer(layer.digest, needed, below, anew=True)
                _keep_origin(repository, layer.digest, transaction.replace)
                transaction.record(layer.digest, "fetched again", f"for {name}")
                transaction.commit()

    def _relink(self, fetched: Collection[str], findings: Sequence[Finding]) -> list[Failure]:
        """Link the flat images again that have links to the replaced files."""
        failures = []
        # The images are read again, since others may have been published in the meantime.
        for image in take_inventory(self._repository).images if fetched else ():
            if image.flat and any(layer.digest in fetched for layer in image.manifest.layers):
                try:
                    relink_flat_image(self._repository, image, "a layer was replaced")
                except (PublisherError, OSError) as error:
                    failures.append(Failure.of(findings[0], error))
        return failures


def _places(*digests: str) -> set[str]:
    """Return the paths of the layers' trees and indexes."""
    return {
        place(digest) for digest in digests for place in (layout.layer_tree, layout.layer_index)
    }


def _keep_origin(
    repository: Repository, digest: str, replace: Callable[[str, bytes], None]
) -> None:
    """Write the origin record of the old tree, or the correct one, for the new tree."""
    path = layout.layer_origin(digest)
    data = read_damaged(repository, path)
    if data is not None and not isinstance(data, Unreadable):
        replace(path, data)
        return
    inventory, expected = survey(repository)
    if inventory.certain:
        replace(path, Origin(frozenset(expected.layers.get(digest, ()))).to_bytes())
