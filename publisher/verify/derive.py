"""Mending what follows from the rest of the repository: `publisher verify --repair`.

Nothing is deleted here. What is replaced is known to be wrong, and goes in the same transaction in
which what is right comes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from publisher.errors import PublisherError
from publisher.oci.descriptor import Descriptor
from publisher.repository import Repository, RepositoryChanged, Transaction
from publisher.runtimes.flat_image import flat_plan
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.record import InvalidRecord
from publisher.tree.users import ImageUsers
from publisher.verify.findings import Finding, Kind, Remedy
from publisher.verify.inventory import Inventory, LiveImage, take_inventory
from publisher.verify.reindex import index_from_tree
from publisher.verify.run import look
from publisher.verify.structure import Expected

_INDEXES = (Kind.INDEX_MISSING, Kind.INDEX_DAMAGED)
_FLAT_IMAGES = (Kind.FLAT_MISSING, Kind.FLAT_DAMAGED, Kind.FLAT_OUTDATED)
_LINKS = (Kind.LINK_MISSING, Kind.LINK_WRONG)
_RECORDS = (Kind.ORIGIN_MISSING, Kind.ORIGIN_WRONG, Kind.USERS_MISSING, Kind.USERS_WRONG)
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """A finding that could not be repaired, and why."""

    finding: Finding
    why: str


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was put right, and what resisted."""

    findings: tuple[Finding, ...] = ()
    failures: tuple[Failure, ...] = ()


def derive(repository: Repository, findings: Iterable[Finding]) -> Repaired:
    """Remedy those of `findings` that can be derived: indexes, then flat images, then the rest."""
    derivable = [finding for finding in findings if finding.remedy is Remedy.DERIVE]
    derivable.sort(key=lambda finding: finding.kind not in _INDEXES)
    repaired: list[Finding] = []
    failures: list[Failure] = []
    inventory, expected = look(repository)
    layers = {layer.digest: layer for image in inventory.images for layer in image.manifest.layers}
    for finding in derivable:
        try:
            if finding.kind in _INDEXES:
                _repair_index(repository, finding, layers, expected)
            elif finding.kind in _FLAT_IMAGES:
                _repair_flat_image(repository, finding, inventory.images)
            else:
                continue
        except (PublisherError, OSError) as error:
            failures.append(Failure(finding, str(error)))
        else:
            repaired.append(finding)
    records = _repair_records(repository, [f for f in derivable if f.kind in (*_LINKS, *_RECORDS)])
    # Opening the repository for writing has finished what was unfinished.
    repaired += [f for f in derivable if f.kind is Kind.UNFINISHED and not repository.unfinished()]
    return Repaired((*repaired, *records.findings), (*failures, *records.failures))


def _link_flat_image(repository: Repository, transaction: Transaction, image: LiveImage) -> None:
    """Prepare the flat image anew, in place of what there is of it."""
    if image.config is None and image.reference:
        raise PublisherError(
            f"cannot link the flat image of {image.name}",
            why="the image's config, which says what runtimes need, is lost",
            hint="--refetch gets it",
        )
    layers = [layer.digest for layer in image.manifest.layers]
    with flat_plan(repository, layers, image.config, image.name) as plan:
        transaction.link(layout.flat_image(image.manifest.image_id), plan, layers, anew=True)


def relink_flat_image(repository: Repository, image: LiveImage, why: str) -> None:
    """Publish the flat image anew, in place of what there is of it; `why` is for the history.

    Another run may replace a layer while it is being linked from: then it is linked once more.
    """
    for _ in range(_TRIES - 1):
        try:
            return _relink_once(repository, image, why)
        except RepositoryChanged:
            continue
    return _relink_once(repository, image, why)


def _relink_once(repository: Repository, image: LiveImage, why: str) -> None:
    with repository.transaction(f"repair of {image.name}") as transaction:
        _link_flat_image(repository, transaction, image)
        with transaction.exclusive():
            # Nothing is brought back that was removed meanwhile.
            if any(
                each.flat and each.manifest.image_id == image.manifest.image_id
                for each in take_inventory(repository).images
            ):
                transaction.record(image.name, "flat image linked anew", why)
                transaction.commit()


def _repair_index(
    repository: Repository,
    finding: Finding,
    layers: dict[str, Descriptor],
    expected: Expected,
) -> None:
    digest = next(d for d in layers if layout.layer_index(d) == finding.path)
    diff_ids = expected.diff_ids.get(digest, set())
    if len(diff_ids) != 1:
        raise PublisherError(
            f"cannot make an index of layer {digest} from its tree",
            why="no config of an image says what the layer's archive was",
            hint="--refetch gets the config and the layer",
        )
    before = repository.read(finding.path)
    content = index_from_tree(repository, layers[digest], next(iter(diff_ids)))
    with repository.transaction(f"repair of layer {digest}") as transaction:
        with transaction.exclusive():
            # A layer that was removed, or fetched again with its own index, meanwhile stays so.
            present = repository.exists(layout.layer_tree(digest))
            if present and repository.read(finding.path) == before:
                transaction.replace(finding.path, content)
                transaction.record(digest, "index made from its tree", finding.what)
                transaction.commit()


def _repair_flat_image(
    repository: Repository, finding: Finding, images: Sequence[LiveImage]
) -> None:
    image = next(
        image for image in images if layout.flat_image(image.manifest.image_id) == finding.path
    )
    relink_flat_image(repository, image, finding.what)


def _repair_records(repository: Repository, findings: Collection[Finding]) -> Repaired:
    """Links, origins and users, as they follow from the manifests that are there under the lock."""
    if not findings:
        return Repaired()
    repaired = []
    failures = []
    with repository.transaction("repair of links and records") as transaction:
        with transaction.exclusive():
            inventory, expected = look(repository)
            # What is gone by now needs no mending; what came up is for the next verification.
            for finding in (f for f in inventory.findings if f in findings):
                try:
                    _repair_record(repository, transaction, finding, inventory, expected)
                except PublisherError as error:
                    failures.append(Failure(finding, str(error)))
                else:
                    transaction.record(finding.image or finding.path, "repaired", finding.what)
                    repaired.append(finding)
            transaction.commit()
    return Repaired(tuple(repaired), tuple(failures))


def _repair_record(
    repository: Repository,
    transaction: Transaction,
    finding: Finding,
    inventory: Inventory,
    expected: Expected,
) -> None:
    if finding.kind in _LINKS:
        image = next(image for image in inventory.images if image.name == finding.path)
        image_id = image.manifest.image_id
        if not repository.exists(layout.flat_image(image_id)):
            raise PublisherError(
                f"cannot link {finding.path}", why="its flat image is not there either"
            )
        transaction.symlink(finding.path, layout.link_target(image.name, image_id))
        return
    for digest, images in expected.layers.items():
        if layout.layer_origin(digest) == finding.path:
            transaction.replace(
                finding.path, _origin(repository, finding.path, images, inventory.certain)
            )
            return
    for image_id, users in expected.users.items():
        if layout.image_users(image_id) == finding.path:
            transaction.replace(
                finding.path, _users(repository, finding.path, users, inventory.certain)
            )


def _origin(repository: Repository, path: str, images: set[str], certain: bool) -> bytes:
    """The record as it should be, with what else another tool noted in it."""
    try:
        found = Origin.parse(repository.read(path) or b"", path)
    except InvalidRecord as error:
        if not certain and repository.exists(path):
            raise _doubt(path) from error
        found = Origin()
    kept = frozenset() if certain else found.images
    return Origin(frozenset(images) | kept, found.extra).to_bytes()


def _users(repository: Repository, path: str, users: set[tuple[str, str]], certain: bool) -> bytes:
    data = repository.read(path)
    if certain:
        return ImageUsers(frozenset(users)).to_bytes()
    if data is None:
        raise _doubt(path)
    return ImageUsers(frozenset(users) | ImageUsers.parse(data, path).users).to_bytes()


def _doubt(path: str) -> PublisherError:
    return PublisherError(
        f"cannot write {path}",
        why="while another manifest is unreadable, nobody knows what else belongs there",
        hint="repair the manifest first",
    )
