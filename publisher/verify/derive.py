"""Repair what can be derived from the rest of the repository: `publisher verify --repair`.

Only what is known to be wrong is replaced, each time in one transaction. Nothing else is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from publisher.errors import PublisherError
from publisher.oci.descriptor import Descriptor
from publisher.repository import Repository, Transaction
from publisher.repository.damaged import read_damaged
from publisher.repository.records import RecordSet
from publisher.runtimes import flat_files
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.record import InvalidRecord
from publisher.tree.users import ImageUsers
from publisher.verify import squashfs
from publisher.verify.chain_links import relink_chains
from publisher.verify.expected import Expected
from publisher.verify.findings import Finding, Kind, Remedy
from publisher.verify.hot_files import replace_bundle
from publisher.verify.inventory import Inventory, LiveImage
from publisher.verify.outcome import Failure, Repaired
from publisher.verify.packages import repair_packages
from publisher.verify.podman_store import repair_podman_store
from publisher.verify.published_images import current_users, outdated_flat_images
from publisher.verify.rebuild import (
    rebuild_pins,
    rebuild_publication,
    rebuild_retired_publication,
    rebuild_schedule,
)
from publisher.verify.reindex import index_from_tree
from publisher.verify.relink import relink_flat_image
from publisher.verify.sbom import rewrite_sbom
from publisher.verify.survey import survey

_INDEXES = (Kind.INDEX_MISSING, Kind.INDEX_DAMAGED)
_FLAT_IMAGES = (Kind.FLAT_MISSING, Kind.FLAT_DAMAGED, Kind.FLAT_OUTDATED)
_SQUASHFS = (Kind.SQUASHFS_MISSING, Kind.SQUASHFS_DAMAGED)
_SBOM = (Kind.SBOM_MISSING, Kind.SBOM_DAMAGED)
_LINKS = (Kind.LINK_MISSING, Kind.LINK_WRONG)
_ORIGINS = (Kind.ORIGIN_MISSING, Kind.ORIGIN_WRONG)
_USERS = (Kind.USERS_MISSING, Kind.USERS_WRONG)
_PUBLICATIONS = (Kind.PUBLICATION_MISSING, Kind.PUBLICATION_DAMAGED)
_CHAINS = (Kind.CHAIN_MISSING, Kind.CHAIN_WRONG, Kind.ORPHAN_CHAIN)
_RECORDS = (
    *_LINKS,
    *_ORIGINS,
    *_USERS,
    *_PUBLICATIONS,
    *_CHAINS,
    Kind.BUNDLE_WRONG,
    Kind.RECORD_DAMAGED,
    Kind.PINS_MISSING,
    Kind.RETIRED_DAMAGED,
    Kind.RETIRED_UNSCHEDULED,
)


def derive(repository: Repository, findings: Iterable[Finding], now: datetime) -> Repaired:
    """Repair those of `findings` whose remedy is DERIVE: indexes, flat images, then records.

    Args:
        repository: Opened for writing.
        findings: The findings of a verification; those with other remedies are ignored.
        now: The beginning of the grace period of images that are scheduled again.
    """
    derivable = [finding for finding in findings if finding.remedy is Remedy.DERIVE]
    trees = _repair_trees(repository, derivable)
    store = _repair_store(repository, [f for f in derivable if f.kind is Kind.PODMAN_STORE])
    records = _repair_records(repository, [f for f in derivable if f.kind in _RECORDS], now)
    # Opening the repository for writing has completed what was unfinished.
    done = [f for f in derivable if f.kind is Kind.UNFINISHED and not repository.unfinished()]
    return Repaired(
        (*trees.findings, *store.findings, *done, *records.findings),
        (*trees.failures, *store.failures, *records.failures),
    )


def _repair_trees(repository: Repository, findings: Iterable[Finding]) -> Repaired:
    """Make indexes and lists of packages from the layers' trees, then flat images from indexes."""
    kinds = (*_INDEXES, *_FLAT_IMAGES, *_SQUASHFS, *_SBOM, Kind.PACKAGES_WRONG)
    wanted = [finding for finding in findings if finding.kind in kinds]
    wanted.sort(key=lambda finding: (finding.kind not in _INDEXES, finding.kind in _SBOM))
    if not wanted:
        return Repaired()
    repaired: list[Finding] = []
    failures: list[Failure] = []
    inventory, expected = survey(repository)
    layers = {
        layout.layer_index(layer.digest): layer
        for manifest in inventory.manifests
        for layer in manifest.layers
    }
    records = {layout.layer_packages(digest): digest for digest in expected.layers}
    images = {layout.flat_image(image.manifest.image_id): image for image in inventory.images}
    files = {layout.squashfs_file(image.manifest.image_id): image for image in inventory.images}
    bills = {p: i for i in inventory.images if i.sbom for p in layout.sbom_files(i.name)}
    for finding in wanted:
        try:
            if finding.kind in _INDEXES:
                _repair_index(repository, finding, layers[finding.path], expected)
            elif finding.kind is Kind.PACKAGES_WRONG:
                repair_packages(repository, finding, records[finding.path])
            elif finding.kind in _SQUASHFS:
                squashfs.rewrite(repository, files[finding.path], finding.what)
            elif finding.kind in _SBOM:
                rewrite_sbom(repository, bills[finding.path], finding.what)
            elif finding.path == layout.FLAT:
                _bring_up_to_date(repository, outdated_flat_images(repository, inventory))
            else:
                relink_flat_image(repository, images[finding.path], finding.what)
        except (PublisherError, OSError) as error:
            failures.append(Failure.of(finding, error))
        except KeyError:
            continue  # removed by a concurrent publisher
        else:
            repaired.append(finding)
    return Repaired(tuple(repaired), tuple(failures))


def _bring_up_to_date(repository: Repository, images: Sequence[LiveImage]) -> None:
    """Link flat images of earlier releases anew; raise the first error after all were tried."""
    first: PublisherError | OSError | None = None
    for image in images:
        recorded = current_users(repository, image.manifest.image_id)
        if recorded.runtime_files >= flat_files.VERSION:
            continue  # another finding about it was repaired already
        try:
            relink_flat_image(repository, image, "its files for runtimes were outdated")
        except (PublisherError, OSError) as error:
            first = first or error
    if first is not None:
        raise first


def _repair_store(repository: Repository, findings: Sequence[Finding]) -> Repaired:
    """Convert Podman's store, or build it anew, if there is any finding about it."""
    if not findings:
        return Repaired()
    try:
        repair_podman_store(repository)
    except (PublisherError, OSError) as error:
        return Repaired((), tuple(Failure.of(finding, error) for finding in findings))
    return Repaired(tuple(findings))


def _repair_index(
    repository: Repository, finding: Finding, layer: Descriptor, expected: Expected
) -> None:
    digest = layer.digest
    diff_ids = expected.diff_ids.get(digest, set())
    if len(diff_ids) != 1:
        raise PublisherError(
            f"cannot make an index of layer {digest} from its tree",
            why="no config of an image has the layer's diff ID",
            hint="publisher verify --refetch",
        )
    before = read_damaged(repository, finding.path)
    content = index_from_tree(repository, layer, next(iter(diff_ids)))
    with repository.transaction(f"repair of layer {digest}") as transaction:
        with transaction.exclusive():
            # A concurrent publisher may have removed the layer, or fetched it with its index.
            present = repository.exists(layout.layer_tree(digest))
            if present and read_damaged(repository, finding.path) == before:
                transaction.replace(finding.path, content)
                transaction.record(digest, "index made from its tree", finding.what)
                transaction.commit()


def _repair_records(repository: Repository, findings: Sequence[Finding], now: datetime) -> Repaired:
    """Derive links and records from the manifests, which are read under the lock."""
    if not findings:
        return Repaired()
    repaired = []
    failures = []
    with repository.transaction("repair of links and records") as transaction:
        with transaction.exclusive():
            work = _Records(repository, transaction, *survey(repository), now)
            wanted = set(findings)
            # Findings that have disappeared need no repair; new ones are for the next verification.
            for finding in (f for f in work.inventory.findings if f in wanted):
                try:
                    work.repair(finding)
                except (PublisherError, OSError) as error:
                    failures.append(Failure.of(finding, error))
                else:
                    transaction.record(finding.image or finding.path, "repaired", finding.what)
                    repaired.append(finding)
            work.finish()
            transaction.commit()
    return Repaired(tuple(repaired), tuple(failures))


class _Records:
    """Writes links and records into one transaction, under the lock."""

    def __init__(
        self,
        repository: Repository,
        transaction: Transaction,
        inventory: Inventory,
        expected: Expected,
        now: datetime,
    ) -> None:
        self.inventory = inventory
        self._repository = repository
        self._transaction = transaction
        self._expected = expected
        self._now = now
        self._published: Mapping[str, LiveImage] = {
            image.name: image for image in reversed(inventory.images)
        }
        self._reschedule = False
        self._relink = False

    def repair(self, finding: Finding) -> None:
        """Repair one finding; raise PublisherError if another one has to be repaired first."""
        path, kind = finding.path, finding.kind
        if kind in _LINKS:
            self._link(path)
        elif kind in _ORIGINS:
            self._transaction.replace(path, self._origin(path))
        elif kind in _USERS:
            self._transaction.replace(path, self._users(path))
        elif kind in _PUBLICATIONS:
            self._transaction.replace(path, self._publication(finding.image))
        elif kind in _CHAINS:
            self._check_origins()
            self._relink = True
        elif kind is Kind.BUNDLE_WRONG:
            for image_id in self._expected.images:
                if path.startswith(f"{layout.flat_image(image_id)}/"):
                    replace_bundle(self._repository, self._transaction, image_id)
        elif kind is Kind.RETIRED_DAMAGED:
            record = rebuild_retired_publication(self._repository, self.inventory, path, self._now)
            self._transaction.replace(path, record.to_bytes())
        elif path == layout.PINS:
            content = rebuild_pins(self._repository, self.inventory, self._now).to_bytes()
            self._transaction.replace(path, content)
        elif kind is Kind.RETIRED_UNSCHEDULED or _is_of_schedule(path):
            self._check_no_newer_schedule(path)
            self._reschedule = True
        else:  # of a thin image, which the next ingest compares with the registry, or of hot files
            self._transaction.remove(path)

    def finish(self) -> None:
        """Write the records that several findings concern."""
        records = RecordSet(self._repository)
        if self._reschedule:
            records.replace_schedule(rebuild_schedule(self._repository, self.inventory, self._now))
        if self._relink:
            relink_chains(records, self.inventory)
        records.write(self._transaction)

    def _check_origins(self) -> None:
        """Raise PublisherError if a record of a layer is wrong: it has to be repaired first."""
        for finding in self.inventory.findings:
            if finding.kind in _ORIGINS:
                raise PublisherError(
                    "cannot link layers by chain ID", why=f"{finding.path} is wrong as well"
                )

    def _check_no_newer_schedule(self, path: str) -> None:
        """Raise PublisherError if a newer release wrote a part of the schedule.

        The schedule is replaced as a whole, so that such a part would be lost.
        """
        for finding in self.inventory.findings:
            if finding.kind is Kind.FUTURE_VERSION and _is_of_schedule(finding.path):
                raise PublisherError(
                    f"cannot rebuild {path}",
                    why=f"a newer release wrote {finding.path}",
                    hint=finding.how,
                )

    def _link(self, path: str) -> None:
        name = path.removeprefix(f"{layout.SQUASHFS_NAMES}/")
        if name != path:
            self._link_squashfs(name)
            return
        image_id = self._published[name].manifest.image_id
        if not self._repository.exists(layout.flat_image(image_id)):
            raise PublisherError(f"cannot link {name}", why="its flat image is missing as well")
        self._transaction.symlink(name, layout.link_target(name, image_id))

    def _link_squashfs(self, name: str) -> None:
        image_id = self._published[name].manifest.image_id
        if not self._repository.exists(layout.squashfs_file(image_id)):
            raise PublisherError(f"cannot link {name}", why="its squashfs file is missing as well")
        text = layout.squashfs_target(name, image_id)
        self._transaction.symlink(layout.squashfs_link(name), text)

    def _publication(self, name: str) -> bytes:
        image = self._published.get(name)
        if image is None:
            raise PublisherError(
                f"cannot rebuild {layout.publication_file(name)}",
                why="the image's manifest is unreadable as well",
                hint="publisher verify --refetch",
            )
        return rebuild_publication(self._repository, image, self._now).to_bytes()

    def _origin(self, path: str) -> bytes:
        """Return the correct record, with the keys that another tool added."""
        certain = self.inventory.certain
        try:
            found = Origin.parse(read_damaged(self._repository, path) or b"", path)
        except InvalidRecord as error:
            if not certain and self._repository.exists(path):
                raise _uncertain(path) from error
            found = Origin()
        images = frozenset(self._expected.layers[self._expected.origins[path]])
        return replace(found, images=images if certain else images | found.images).to_bytes()

    def _users(self, path: str) -> bytes:
        users = frozenset(self._expected.images[self._expected.users[path]])
        certain = self.inventory.certain
        try:
            found = ImageUsers.parse(read_damaged(self._repository, path) or b"", path)
        except InvalidRecord as error:
            if not certain:
                raise _uncertain(path) from error
            found = ImageUsers()
        return replace(found, users=users if certain else users | found.users).to_bytes()


def _uncertain(path: str) -> PublisherError:
    return PublisherError(
        f"cannot rebuild {path}",
        why="a manifest or the remove schedule is unreadable and may belong in it",
        hint="publisher verify --refetch",
    )


def _is_of_schedule(path: str) -> bool:
    """Return whether the file is the remove schedule's, or its entries for one manifest."""
    return path == layout.REMOVE_SCHEDULE or (
        path.startswith(f"{layout.RETIRED}/") and path.endswith(f"/{layout.SCHEDULE_FILE}")
    )
