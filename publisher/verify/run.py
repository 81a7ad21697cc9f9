"""Compare a repository with its own records: the use case behind `publisher verify`.

Nothing is changed here, and no lock is taken; `publisher.verify.repair` repairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from publisher.lazy import dataclass
from publisher.repository import Repository, RepositoryChanged
from publisher.tree import layout
from publisher.verify.contents import check_flat, check_layer
from publisher.verify.expected import Expected
from publisher.verify.findings import Finding, Kind, Severity, worst
from publisher.verify.inventory import Inventory, LiveImage
from publisher.verify.packages import compare_packages
from publisher.verify.published_layers import stored_size
from publisher.verify.sbom import compare_sbom
from publisher.verify.squashfs import check_content
from publisher.verify.survey import survey

_UNREADABLE = (
    *(
        Kind.LAYER_MISSING,
        Kind.INDEX_MISSING,
        Kind.INDEX_DAMAGED,
        Kind.FLAT_MISSING,
        Kind.SQUASHFS_MISSING,
    ),
    Kind.FUTURE_VERSION,
)


@dataclass(frozen=True, slots=True)
class Report:
    """The number of verified images and layers, and the findings, the most severe first.

    `size` is the bytes of all files of the layers; a layer without a readable index counts as 0.
    `of_contents` are the findings that only reading the contents found, if `deep`.
    """

    images: int
    layers: int
    flat_images: int
    deep: bool
    findings: tuple[Finding, ...]
    size: int = 0
    of_contents: frozenset[Finding] = frozenset()

    @property
    def sound(self) -> bool:
        """Whether all findings are notes."""
        return worst(self.findings) in (None, Severity.NOTE)


def verify(
    repository: Repository,
    *,
    deep: bool = False,
    progress: Callable[[str], None] | None = None,
    processes: int = 1,
) -> Report:
    """Compare records, links, layers and flat images with each other.

    Args:
        repository: Opened for reading or writing.
        deep: Read all contents and compare them with the layer indexes.
        progress: Called with a description of what is being read.
        processes: How many processes read contents.

    Returns:
        The report. If another publisher changes the repository meanwhile, it is surveyed twice, and
        only what was found both times is reported.

    Raises:
        RepositoryError: A published file cannot be read with the permissions of this process.
    """
    inventory, expected = survey(repository)
    if inventory.findings:
        before = set(inventory.findings)
        inventory, expected = survey(repository)
        inventory.findings = [finding for finding in inventory.findings if finding in before]
    of_records = frozenset(inventory.findings)
    if deep:
        inventory.findings += _check_contents(
            repository, inventory, expected, progress or (lambda _: None), processes
        )
    return Report(
        images=len(inventory.names),
        layers=len(expected.layers),
        flat_images=len(_distinct_flat(inventory.images)),
        deep=deep,
        findings=tuple(sorted(set(inventory.findings), key=_order)),
        size=sum(stored_size(repository, digest) for digest in expected.layers),
        of_contents=frozenset(inventory.findings) - of_records,
    )


def _check_contents(
    repository: Repository,
    inventory: Inventory,
    expected: Expected,
    progress: Callable[[str], None],
    processes: int,
) -> list[Finding]:
    """Read every layer and flat image that the survey did not find missing."""
    from publisher.workers.calls import call_all  # long to load, for --deep only

    readings = list(_readings(repository, inventory, expected))
    found = call_all(
        [reading for _, reading in readings],
        processes,
        lambda number: progress(readings[number][0]),
    )
    return [finding for findings in found for finding in findings]


def _readings(
    repository: Repository, inventory: Inventory, expected: Expected
) -> Iterator[tuple[str, Callable[[], list[Finding]]]]:
    """Yield a description of everything that is to be read, and the function that reads it."""
    absent = {finding.path for finding in inventory.findings if finding.kind in _UNREADABLE}
    for digest, name in sorted(expected.layer_names.items()):
        if not absent & {layout.layer_tree(digest), layout.layer_index(digest)}:
            yield f"layer {digest}", partial(_check_layer, repository, digest, name)
    for image in _distinct_flat(inventory.images):
        path = layout.flat_image(image.manifest.image_id)
        layers = {layout.layer_index(layer.digest) for layer in image.manifest.layers}
        if not absent & {path, *layers}:
            yield f"flat image of {image.name}", partial(_check_flat, repository, image)
    for image in {i.manifest.image_id: i for i in inventory.images if i.squashfs}.values():
        path = layout.squashfs_file(image.manifest.image_id)
        if path not in absent:
            yield f"squashfs file of {image.name}", partial(_check_squashfs, repository, image)
    for image in inventory.images:
        if image.sbom:
            yield f"bill of materials of {image.name}", partial(_check_bill, repository, image)


def _check_layer(repository: Repository, digest: str, name: str) -> list[Finding]:
    found = check_layer(repository, digest, name)
    findings = _unless_removed(repository, layout.layer_tree(digest), found)
    return findings + list(compare_packages(repository, digest, name))


def _check_flat(repository: Repository, image: LiveImage) -> list[Finding]:
    path = layout.flat_image(image.manifest.image_id)
    return _unless_removed(repository, path, check_flat(repository, image))


def _check_squashfs(repository: Repository, image: LiveImage) -> list[Finding]:
    path = layout.squashfs_file(image.manifest.image_id)
    return _unless_removed(repository, path, check_content(repository, image))


def _check_bill(repository: Repository, image: LiveImage) -> list[Finding]:
    path = layout.manifest_file(image.name)
    return _unless_removed(repository, path, compare_sbom(repository, image))


def _unless_removed(
    repository: Repository, path: str, findings: Iterator[Finding]
) -> list[Finding]:
    """Return the findings about `path`; an empty list if it was removed in the meantime."""
    try:
        found = list(findings)
    except (FileNotFoundError, RepositoryChanged):
        if repository.exists(path):
            raise
        return []
    return found if repository.exists(path) else []


def _distinct_flat(images: Iterable[LiveImage]) -> list[LiveImage]:
    """Return one image for each flat image that should exist."""
    return list({image.manifest.image_id: image for image in images if image.flat}.values())


def _order(finding: Finding) -> tuple[int, str, str]:
    return list(Severity).index(finding.severity), finding.path, finding.kind
