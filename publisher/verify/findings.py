"""What a verification finds: one value for each thing that is not as it should be."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Severity(enum.StrEnum):
    """How bad it is."""

    ERROR = "error"  # somebody gets something wrong, or nothing, where an image should be
    WARNING = "warning"  # no image suffers, but space or records are not as they should be
    NOTE = "note"  # different from what this publisher writes, and sound


class Remedy(enum.StrEnum):
    """How it can be put right."""

    DERIVE = "repair"  # from what is in the repository
    REFETCH = "refetch"  # by downloading it again
    NONE = "none"  # not by a program


class Kind(enum.StrEnum):
    """What is wrong."""

    UNFINISHED = "unfinished-transaction"
    MANIFEST_MISSING = "manifest-missing"
    MANIFEST_DAMAGED = "manifest-damaged"
    CONFIG_MISSING = "config-missing"
    CONFIG_DAMAGED = "config-damaged"
    PUBLICATION_MISSING = "publication-missing"
    PUBLICATION_DAMAGED = "publication-damaged"
    RECORD_DAMAGED = "record-damaged"
    FUTURE_VERSION = "future-version"
    LAYER_MISSING = "layer-missing"
    LAYER_DAMAGED = "layer-damaged"
    INDEX_MISSING = "index-missing"
    INDEX_DAMAGED = "index-damaged"
    INDEX_DERIVED = "index-derived"
    FLAT_MISSING = "flat-image-missing"
    FLAT_DAMAGED = "flat-image-damaged"
    FLAT_OUTDATED = "runtime-files-outdated"
    LINK_MISSING = "link-missing"
    LINK_WRONG = "link-wrong"
    ORIGIN_MISSING = "origin-missing"
    ORIGIN_WRONG = "origin-wrong"
    USERS_MISSING = "users-missing"
    USERS_WRONG = "users-wrong"
    RETIRED_MISSING = "retired-metadata-missing"
    ORPHAN_LAYER = "orphan-layer"
    ORPHAN_FLAT = "orphan-flat-image"
    ORPHAN_LINK = "orphan-link"
    ORPHAN_METADATA = "orphan-metadata"
    PODMAN_STORE = "podman-store-damaged"
    FOREIGN = "foreign"
    OTHER_TOOL = "other-tool"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    `path` is relative to the repository's root, `what` a sentence, `how` what an administrator can
    do where no program can. `image` is the published name that suffers, if it is one.
    """

    severity: Severity
    kind: Kind
    path: str
    what: str
    remedy: Remedy = Remedy.NONE
    how: str = ""
    image: str = ""


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The highest severity among `findings`; None without any."""
    found = {finding.severity for finding in findings}
    return next((severity for severity in Severity if severity in found), None)
