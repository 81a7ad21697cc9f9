"""Check the records of layers' packages, and read the packages from the trees again.

A layer without a record is not a finding: it may have no package databases, and those of a layer of
an earlier release are read from its tree.
"""

from __future__ import annotations

from collections.abc import Iterator

from publisher.layers.errors import LayerError
from publisher.repository import Repository, RepositoryChanged, RepositoryError
from publisher.repository.damaged import read_damaged
from publisher.repository.packages import read_layer_packages
from publisher.tree import layer_packages, layout
from publisher.tree.layer_packages import PackageRecord
from publisher.tree.record import InvalidRecord
from publisher.verify.expected import Expected
from publisher.verify.findings import Finding, Kind, Remedy, Severity
from publisher.verify.inventory import Inventory, read_record
from publisher.verify.record_versions import add_newer_version, is_newer


def check_packages(repository: Repository, inventory: Inventory, expected: Expected) -> None:
    """Add findings about records that are damaged, or of another layer."""
    for digest in sorted(expected.layers):
        path, name = layout.layer_packages(digest), expected.layer_names[digest]
        if not repository.exists(path):
            continue
        data = read_record(repository, inventory, path)
        if data is None:
            continue
        try:
            PackageRecord.parse(data, digest)
        except InvalidRecord as error:
            if is_newer(data, layer_packages.VERSION):
                add_newer_version(inventory, path, error, image=name)
            else:
                inventory.warning(Kind.PACKAGES_WRONG, path, error.why, Remedy.DERIVE, image=name)


def compare_packages(repository: Repository, digest: str, name: str) -> Iterator[Finding]:
    """Yield a finding if the record of a layer differs from the databases in its tree."""
    path = layout.layer_packages(digest)
    data = read_damaged(repository, path)
    if data is None:
        return
    try:
        PackageRecord.parse(data, digest)
        expected = _record(repository, digest)
    except InvalidRecord:
        return  # the structure has a finding
    except (LayerError, RepositoryError, RepositoryChanged):
        return  # findings of their own
    if data != expected:
        what = "it differs from the package databases in the layer's tree"
        yield Finding(Severity.WARNING, Kind.PACKAGES_WRONG, path, what, Remedy.DERIVE, "", name)


def repair_packages(repository: Repository, finding: Finding, digest: str) -> None:
    """Write the record of a layer anew, from its tree; remove it if it would list nothing."""
    before = read_damaged(repository, finding.path)
    record = _record(repository, digest)
    with repository.transaction(f"repair of layer {digest}") as transaction:
        with transaction.exclusive():
            # A concurrent publisher may have removed the layer, or fetched it with its record.
            if read_damaged(repository, finding.path) == before and before is not None:
                if record is None:
                    transaction.remove(finding.path)
                else:
                    transaction.replace(finding.path, record)
                transaction.record(digest, "packages read from its tree", finding.what)
                transaction.commit()


def _record(repository: Repository, digest: str) -> bytes | None:
    """Return the record by the layer's tree; None if it would list nothing, or be too large."""
    packages = read_layer_packages(repository, digest)
    record = PackageRecord.of(digest, packages).to_bytes()
    return record if packages.databases and len(record) <= layer_packages.LARGEST else None
