"""Documents of any kind: media types, and bytes that are not what they should be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.errors import InvalidManifest
from publisher.oci.config import parse_config
from publisher.oci.digest import is_digest
from publisher.oci.document import detect_media_type
from publisher.oci.index import parse_index
from publisher.oci.manifest import parse_manifest, parse_published_manifest
from publisher.oci.media_types import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    OCI_INDEX,
    OCI_MANIFEST,
)
from tests.mutations import mutated, nested
from tests.oci_documents import (
    CONFIG,
    DUCC,
    ONE,
    SCHEMA1,
    document,
    index,
    manifest,
    without,
)

EVERYTHING = mutated(
    manifest(), index("linux/amd64", "linux/arm/v7", "unknown/unknown"), CONFIG, SCHEMA1, DUCC
) | st.binary(max_size=200)

PARSERS: dict[str, Callable[[bytes], object]] = {
    "manifest": lambda data: parse_manifest(document(data)),
    "index": lambda data: parse_index(document(data, OCI_INDEX)),
    "config": lambda data: parse_config(data, ONE),
    "published manifest": parse_published_manifest,
    "media type": detect_media_type,
}


@pytest.mark.parametrize("parser", PARSERS)
@given(data=EVERYTHING)
def test_any_document_is_read_or_refused_with_invalid_manifest(parser: str, data: bytes) -> None:
    try:
        PARSERS[parser](data)
    except InvalidManifest as error:
        assert str(error)


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("depth", [80, 200, 330, 490, 600, 900, 10_000, 1_000_000])
@pytest.mark.parametrize(("around", "after"), [('{"a":', "}"), ('{"a":[', "]}")])
def test_deep_nesting_is_refused_without_a_recursion_error(
    parser: str, depth: int, around: str, after: str
) -> None:
    with pytest.raises(InvalidManifest):
        PARSERS[parser](nested(depth, around, after))


@given(data=mutated(manifest()))
def test_the_descriptors_of_an_accepted_manifest_are_valid(data: bytes) -> None:
    try:
        found = parse_manifest(document(data))
    except InvalidManifest:
        return
    for descriptor in (found.config, *found.layers):
        assert is_digest(descriptor.digest)
        assert 0 <= descriptor.size < 2**63
    # The remove schedule keeps it, parsed, in a file of its own.
    assert json.loads(json.dumps(json.loads(data), allow_nan=False)) == json.loads(data)


@pytest.mark.parametrize(
    ("value", "declared", "found"),
    [
        (manifest(), "", OCI_MANIFEST),
        (manifest(), OCI_MANIFEST, OCI_MANIFEST),
        (manifest(), f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST),
        (manifest(), "application/json", OCI_MANIFEST),
        (without("mediaType"), "", OCI_MANIFEST),
        (without("mediaType"), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (index("linux/amd64"), "", OCI_INDEX),
        ({"manifests": []}, "", OCI_INDEX),
        ({"manifests": []}, DOCKER_LIST, DOCKER_LIST),
        (SCHEMA1, "", DOCKER_SCHEMA1[0]),
        (SCHEMA1, DOCKER_SCHEMA1[1], DOCKER_SCHEMA1[1]),
    ],
)
def test_the_media_type_is_that_of_the_document_or_the_declared_one(
    value: Any, declared: str, found: str
) -> None:
    assert detect_media_type(json.dumps(value).encode(), declared) == found


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        (manifest(), OCI_INDEX),
        (index("linux/amd64"), OCI_MANIFEST),
        (manifest(), DOCKER_MANIFEST),
        (manifest(mediaType=[]), ""),
        ({"schemaVersion": 2}, ""),
        ({"errors": []}, "application/json"),
    ],
)
def test_a_document_that_two_readers_would_read_differently_is_refused(
    value: Any, declared: str
) -> None:
    with pytest.raises(InvalidManifest):
        detect_media_type(json.dumps(value).encode(), declared)
