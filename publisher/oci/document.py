"""The exact bytes of manifests, indexes and configs, and a strict JSON reader for them."""

from __future__ import annotations

import json
import math

from publisher.errors import InvalidManifest
from publisher.lazy import dataclass
from publisher.oci.media_types import (
    DOCKER_SCHEMA1,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
)

MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
"""The largest manifest, index or config that is read; registries accept 4 MiB."""

MAX_NESTING = 64
"""Levels of objects and lists in a document. Real ones have less than ten."""


@dataclass(frozen=True, slots=True)
class Document:
    """The exact bytes of a manifest, index or config, whose digest was verified by the reader."""

    data: bytes
    media_type: str
    digest: str


def detect_media_type(data: bytes, declared: str = "") -> str:
    """Return the media type: the document's own, else `declared`, else the one its fields imply.

    Args:
        data: A manifest or index.
        declared: The Content-Type, or the media type of the descriptor; may be empty.

    Raises:
        InvalidManifest: The document is neither, or contradicts `declared`. The specification
            requires this check: the same bytes could otherwise be read as two images.
    """
    value = read_object(data, "manifest")
    stated = value.get("mediaType", "")
    if not isinstance(stated, str):
        raise InvalidManifest("cannot read manifest", why="mediaType is not a string")
    known = (*MANIFEST_TYPES, *INDEX_TYPES, *DOCKER_SCHEMA1)
    declared = declared.partition(";")[0].strip()
    if stated and declared in known and stated != declared:
        raise InvalidManifest(
            "cannot read manifest",
            why=f"its mediaType is {stated}, but it was served as {declared}",
        )
    if stated:
        return stated
    if declared in known:
        return declared
    if value.get("schemaVersion") == 1:
        return DOCKER_SCHEMA1[0]
    if "manifests" in value:
        return OCI_INDEX
    if "config" in value and "layers" in value:
        return OCI_MANIFEST
    raise InvalidManifest(
        "cannot read manifest",
        why=f"neither an image manifest nor an image index (media type {declared or 'not given'})",
    )


def read_object(data: bytes, what: str) -> dict[str, object]:
    """Return the JSON object in `data`; raise InvalidManifest, naming `what`, if it is not one.

    Stricter than `json.loads`: UTF-8 only, no key twice, no NaN or infinity, at most MAX_NESTING
    levels and MAX_DOCUMENT_BYTES.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidManifest(
            f"cannot read {what}", why=f"{len(data)} bytes is more than {MAX_DOCUMENT_BYTES}"
        )
    try:
        value = json.loads(
            data.decode(
                "utf-8"
            ),  # json.loads would take UTF-16 as well, which no other reader does
            object_pairs_hook=_object_of_pairs,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except RecursionError as error:
        raise _too_deep(what) from error  # Python 3.11; later versions parse far deeper
    except ValueError as error:
        raise InvalidManifest(
            f"cannot read {what}", why=f"not JSON: {error}; it begins {data[:60]!r}"
        ) from error
    if not isinstance(value, dict):
        raise InvalidManifest(f"cannot read {what}", why="not a JSON object")
    if _nesting_exceeds(value, MAX_NESTING):
        raise _too_deep(what)
    return value


def _too_deep(what: str) -> InvalidManifest:
    return InvalidManifest(
        f"cannot read {what}", why=f"it is nested deeper than {MAX_NESTING} levels"
    )


def _object_of_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        # Programs differ in which one they use: the same bytes could be two images.
        raise ValueError("an object has the same key twice")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number that JSON can hold")
    return number


def _nesting_exceeds(value: dict[str, object], limit: int) -> bool:
    level: list[dict[str, object] | list[object]] = [value]
    for _ in range(limit):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True
