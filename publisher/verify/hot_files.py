"""Check the lists of hot files, and the file bundles of CVMFS that are published with them."""

from __future__ import annotations

from publisher.entry import EntryType
from publisher.repository import Repository, Transaction
from publisher.repository.damaged import read_damaged
from publisher.tree import hot_files, layout
from publisher.tree.hot_files import HotFiles
from publisher.tree.record import InvalidRecord
from publisher.verify.expected import Expected
from publisher.verify.findings import Kind, Remedy
from publisher.verify.inventory import Inventory, read_record
from publisher.verify.record_versions import add_newer_version, is_newer


def check_hot_files(repository: Repository, inventory: Inventory, expected: Expected) -> None:
    """Add findings about lists that are unreadable, and about bundles that differ from them."""
    for image_id, name in sorted(expected.image_names.items()):
        path = layout.hot_files(image_id)
        if not repository.exists(path):
            continue
        data = read_record(repository, inventory, path)
        if data is None:
            continue
        try:
            record = _parse(data, image_id)
        except InvalidRecord as error:
            if is_newer(data, hot_files.VERSION):
                add_newer_version(inventory, path, error, image=name)
            else:
                what = f"{error.why}; the repair removes it: trace the image again"
                inventory.warning(Kind.RECORD_DAMAGED, path, what, Remedy.DERIVE, image=name)
            continue
        _check_bundle(repository, inventory, record, name)


def _check_bundle(
    repository: Repository, inventory: Inventory, record: HotFiles, name: str
) -> None:
    flat = layout.flat_image(record.image_id)
    # Without a mount the content of flat images is unknown.
    if not _has_bundle(repository, record) or repository.local_root is None:
        return
    if repository.kind(flat) is not EntryType.DIRECTORY:
        return
    found = read_damaged(repository, record.bundle_path)
    if found != record.bundle():
        state = "is missing" if found is None else "differs from the list of hot files"
        what = f"the file bundle {state}, so that clients do not prefetch these files"
        inventory.warning(Kind.BUNDLE_WRONG, record.bundle_path, what, Remedy.DERIVE, image=name)


def replace_bundle(repository: Repository, transaction: Transaction, image_id: str) -> None:
    """Publish the bundle of the image again, if it has one. Only under the lock."""
    path = layout.hot_files(image_id)
    data = read_damaged(repository, path)
    if data is None:
        return
    try:
        record = _parse(data, image_id)
    except InvalidRecord:
        return  # a finding of its own
    if _has_bundle(repository, record):
        transaction.replace(record.bundle_path, record.bundle())


def _has_bundle(repository: Repository, record: HotFiles) -> bool:
    """Return whether a bundle is published with the record; a copy in a directory has none."""
    return bool(record.trigger) and repository.url.kind == "cvmfs"


def _parse(data: bytes, image_id: str) -> HotFiles:
    path = layout.hot_files(image_id)
    record = HotFiles.parse(data, path)
    if record.image_id != image_id:
        raise InvalidRecord(path, why=f"it describes image {record.image_id}", field="imageId")
    return record
