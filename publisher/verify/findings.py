"""The findings of a verification: one value for each difference from the expected state."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from publisher.lazy import dataclass


class Severity(enum.StrEnum):
    """The severity of a finding."""

    ERROR = "error"  # a published image is damaged or missing
    WARNING = "warning"  # no image is affected, but records are wrong or space is wasted
    NOTE = "note"  # different from what this publisher writes, but harmless


class Remedy(enum.StrEnum):
    """How a finding is repaired; the value is the option of `publisher verify`, or "none"."""

    DERIVE = "repair"  # from the rest of the repository
    REFETCH = "refetch"  # by downloading again
    NONE = "none"  # by an administrator


class Kind(enum.StrEnum):
    """The kind of a finding."""

    UNFINISHED = "unfinished-transaction"
    TRANSACTION_DAMAGED = "transaction-damaged"
    MANIFEST_MISSING = "manifest-missing"
    MANIFEST_DAMAGED = "manifest-damaged"
    CONFIG_MISSING = "config-missing"
    CONFIG_DAMAGED = "config-damaged"
    PUBLICATION_MISSING = "publication-missing"
    PUBLICATION_DAMAGED = "publication-damaged"
    RECORD_DAMAGED = "record-damaged"
    PINS_MISSING = "pins-missing"
    FUTURE_VERSION = "future-version"
    LAYER_MISSING = "layer-missing"
    LAYER_DAMAGED = "layer-damaged"
    LAYER_WRITABLE = "layer-writable"
    INDEX_MISSING = "index-missing"
    INDEX_DAMAGED = "index-damaged"
    INDEX_DERIVED = "index-derived"
    PACKAGES_WRONG = "packages-wrong"
    FLAT_MISSING = "flat-image-missing"
    FLAT_DAMAGED = "flat-image-damaged"
    FLAT_OUTDATED = "runtime-files-outdated"
    SQUASHFS_MISSING = "squashfs-file-missing"
    SQUASHFS_DAMAGED = "squashfs-file-damaged"
    LINK_MISSING = "link-missing"
    LINK_WRONG = "link-wrong"
    SBOM_MISSING = "sbom-missing"
    SBOM_DAMAGED = "sbom-damaged"
    ORIGIN_MISSING = "origin-missing"
    ORIGIN_WRONG = "origin-wrong"
    USERS_MISSING = "users-missing"
    USERS_WRONG = "users-wrong"
    RETIRED_MISSING = "retired-metadata-missing"
    RETIRED_DAMAGED = "retired-metadata-damaged"
    RETIRED_UNSCHEDULED = "retired-image-unscheduled"
    BUNDLE_WRONG = "bundle-wrong"
    CHAIN_MISSING = "chain-links-missing"
    CHAIN_WRONG = "chain-link-wrong"
    ORPHAN_CHAIN = "orphan-chain-link"
    ORPHAN_LAYER = "orphan-layer"
    ORPHAN_FLAT = "orphan-flat-image"
    ORPHAN_SQUASHFS = "orphan-squashfs-file"
    ORPHAN_LINK = "orphan-link"
    ORPHAN_METADATA = "orphan-metadata"
    PODMAN_STORE = "podman-store-damaged"
    TAR_SPLIT_MISSING = "tar-split-missing"
    FOREIGN = "foreign"
    OTHER_TOOL = "other-tool"


ORPHANS = (
    Kind.ORPHAN_LINK,
    Kind.ORPHAN_CHAIN,
    Kind.ORPHAN_FLAT,
    Kind.ORPHAN_SQUASHFS,
    Kind.ORPHAN_LAYER,
    Kind.ORPHAN_METADATA,
)
"""Findings about content without users, in the order in which it can be removed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference from the expected state.

    Attributes:
        path: Relative to the repository's root; "" for the repository as a whole.
        what: What is wrong and why it matters, as a sentence without a full stop.
        remedy: How it is repaired.
        how: What an administrator can do if `remedy` is NONE: a command, or one action.
        image: The published name that is affected, or "".
    """

    severity: Severity
    kind: Kind
    path: str
    what: str
    remedy: Remedy = Remedy.NONE
    how: str = ""
    image: str = ""


def worst(findings: Iterable[Finding]) -> Severity | None:
    """Return the highest severity among `findings`; None without any."""
    found = {finding.severity for finding in findings}
    return next((severity for severity in Severity if severity in found), None)


def is_wanted(finding: Finding, refetching: bool) -> bool:
    """Return whether the finding can be repaired: by derivation, or if `refetching` by download."""
    return finding.remedy is Remedy.DERIVE or (refetching and finding.remedy is Remedy.REFETCH)
