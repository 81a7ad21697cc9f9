"""Remove what no published or scheduled image names: `publisher gc --orphans`.

Such content exists after an image's metadata was removed by hand or lost. The orphans are
determined under the writer lock. Content of a concurrent ingest is never an orphan: it is staged
elsewhere, and published in one transaction with its manifest. If an ingest needs a layer that is
removed here, it fetches the layer again.
"""

from __future__ import annotations

from publisher.lazy import dataclass
from publisher.repository import Repository, Transaction
from publisher.runtimes.podman import store as podman_store
from publisher.tree import layout
from publisher.verify.findings import ORPHANS, Finding, Kind
from publisher.verify.inventory import Inventory
from publisher.verify.published_layers import stored_size
from publisher.verify.survey import survey


@dataclass(frozen=True, slots=True)
class Orphans:
    """The result of the removal, or of its dry run.

    Attributes:
        findings: The orphans, in the order in which they are removed.
        size: The bytes of all files of the layers; a layer without an index counts as 0.
        uncertain: The paths of unreadable records. If there are any, nothing is removed, since
            these records may name it.
    """

    findings: tuple[Finding, ...]
    size: int
    uncertain: tuple[str, ...] = ()


def collect_orphans(repository: Repository, *, dry_run: bool = False) -> Orphans:
    """Remove all orphans in one transaction.

    Args:
        repository: Opened for writing, unless for a dry run.
        dry_run: Only find them; takes no lock.
    """
    if dry_run:
        return _find(repository, survey(repository)[0])
    with repository.transaction("gc of orphans") as transaction, transaction.exclusive():
        orphans = _find(repository, survey(repository)[0])
        if orphans.findings:
            _remove(repository, transaction, orphans.findings)
            transaction.commit()
    return orphans


def _find(repository: Repository, inventory: Inventory) -> Orphans:
    if not inventory.certain:
        unreadable = {finding.path for finding in inventory.findings if finding.path}
        return Orphans((), 0, tuple(sorted(unreadable)))
    found = [finding for finding in inventory.findings if finding.kind in ORPHANS]
    found.sort(key=lambda finding: (ORPHANS.index(finding.kind), finding.path))
    layers = [finding.path for finding in found if finding.kind is Kind.ORPHAN_LAYER]
    return Orphans(tuple(found), sum(stored_size(repository, _digest(path)) for path in layers))


def _remove(
    repository: Repository, transaction: Transaction, findings: tuple[Finding, ...]
) -> None:
    flat = [_digest(finding.path) for finding in findings if finding.kind is Kind.ORPHAN_FLAT]
    if repository.exists(layout.PODMAN_STORE):
        podman_store.forget(repository, transaction, {}, flat)
    for finding in findings:
        transaction.remove(finding.path)
        transaction.record(finding.path, "collected", "no image names it")


def _digest(path: str) -> str:
    name = path.rpartition("/")[2]
    return f"{'sha256' if len(name) == 64 else 'sha512'}:{name}"
