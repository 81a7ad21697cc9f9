"""Hold the tree against its own records: the use case behind `publisher verify`.

Nothing is changed here, and no lock is taken; `publisher.verify.derive` and `.refetch` mend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from publisher.repository import Repository, RepositoryChanged
from publisher.tree import layout
from publisher.verify.contents import check_flat, check_layer
from publisher.verify.findings import Finding, Kind, Remedy, Severity, worst
from publisher.verify.inventory import Inventory, LiveImage, take_inventory
from publisher.verify.structure import Expected, check_structure

_NOT_THERE = (Kind.LAYER_MISSING, Kind.INDEX_MISSING, Kind.INDEX_DAMAGED, Kind.FLAT_MISSING)


@dataclass(frozen=True, slots=True)
class Report:
    """What was looked at, and what was found, the worst first."""

    images: int
    layers: int
    flat_images: int
    deep: bool
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether there is nothing worse than a note."""
        return worst(self.findings) in (None, Severity.NOTE)


def verify(
    repository: Repository, *, deep: bool = False, progress: Callable[[str], None] | None = None
) -> Report:
    """Compare records, links, layers and flat images with each other; `deep` reads all contents.

    `progress` is told, in words, what is being read. What a writer just changes is looked at twice,
    and only what was found both times is told.
    """
    inventory, expected = look(repository)
    if inventory.findings:
        again, expected = look(repository)
        again.findings = [each for each in again.findings if each in inventory.findings]
        inventory = again
    if deep:
        inventory.findings += _check_contents(repository, inventory, progress or (lambda _: None))
    return Report(
        images=len(inventory.names),
        layers=len(expected.layers),
        flat_images=len(_distinct_flat(inventory.images)),
        deep=deep,
        findings=tuple(sorted(set(inventory.findings), key=_order)),
    )


def look(repository: Repository) -> tuple[Inventory, Expected]:
    """All that can be seen without reading contents."""
    inventory = take_inventory(repository)
    if repository.unfinished():
        inventory.add(
            Severity.WARNING,
            Kind.UNFINISHED,
            "",
            "a committed transaction waits to be carried out to its end",
            Remedy.DERIVE,
            "the next command that writes to the repository finishes it",
        )
    return inventory, check_structure(repository, inventory)


def _check_contents(
    repository: Repository, inventory: Inventory, progress: Callable[[str], None]
) -> list[Finding]:
    """Read every layer and flat image that is there as far as could be seen."""
    absent = {finding.path for finding in inventory.findings if finding.kind in _NOT_THERE}
    findings: list[Finding] = []
    users = {
        layer.digest: image.name for image in inventory.images for layer in image.manifest.layers
    }
    for digest, name in sorted(users.items()):
        if not absent & {layout.layer_tree(digest), layout.layer_index(digest)}:
            progress(f"layer {digest}")
            findings += _unless_removed(
                repository, layout.layer_tree(digest), check_layer(repository, digest, name)
            )
    for image in _distinct_flat(inventory.images):
        path = layout.flat_image(image.manifest.image_id)
        layers = {layout.layer_index(layer.digest) for layer in image.manifest.layers}
        if not absent & {path, *layers}:
            progress(f"flat image of {image.name}")
            findings += _unless_removed(repository, path, check_flat(repository, image))
    return findings


def _unless_removed(
    repository: Repository, path: str, findings: Iterator[Finding]
) -> list[Finding]:
    """The findings; none if what they are about was collected while it was read."""
    try:
        found = list(findings)
    except (FileNotFoundError, RepositoryChanged):
        if repository.exists(path):
            raise
        return []
    return found if repository.exists(path) else []


def _distinct_flat(images: Iterable[LiveImage]) -> list[LiveImage]:
    """One image for each flat image that there should be."""
    return list({image.manifest.image_id: image for image in images if image.flat}.values())


def _order(finding: Finding) -> tuple[int, str, str]:
    return list(Severity).index(finding.severity), finding.path, finding.kind
