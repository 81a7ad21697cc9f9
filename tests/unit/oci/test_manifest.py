"""Image manifests: read from exact bytes, and refused with the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from publisher.errors import InvalidManifest
from publisher.oci.config import parse_config
from publisher.oci.document import MAX_DOCUMENT_BYTES, detect_media_type
from publisher.oci.manifest import parse_manifest, parse_published_manifest
from publisher.oci.media_types import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    FOREIGN_LAYER_TYPES,
    LAYER_TYPES,
    OCI_INDEX,
)
from publisher.oci.platform import Platform
from tests import layer_builder as build
from tests.mutations import nested
from tests.oci_documents import (
    DUCC,
    FOREIGN,
    GZIP,
    IN_TOTO,
    ONE,
    THREE,
    TWO,
    document,
    index,
    manifest,
    without,
)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-8-sig"])
def test_json_in_another_encoding_than_utf8_is_refused(encoding: str) -> None:
    data = '{"schemaVersion": 2, "config": {}, "layers": []}'.encode(encoding)
    with pytest.raises(InvalidManifest):
        detect_media_type(data)


def test_a_manifest_names_its_config_and_its_layers_from_bottom_to_top() -> None:
    found = parse_manifest(document(manifest()))
    assert found.image_id == ONE
    assert [layer.digest for layer in found.layers] == [TWO, THREE]
    assert found.layers[1].annotations == {"a": "b"}
    assert found.size == 50


def test_a_layer_that_is_listed_twice_is_downloaded_once() -> None:
    layer = {"mediaType": GZIP, "digest": TWO, "size": 20}
    found = parse_manifest(document(manifest(layers=[layer, layer])))
    assert len(found.layers) == 2
    assert found.size == 20


@pytest.mark.parametrize("media_type", sorted(LAYER_TYPES))
def test_every_usual_kind_of_layer_is_accepted(media_type: str) -> None:
    layers = [{"mediaType": media_type, "digest": TWO, "size": 20}]
    assert parse_manifest(document(manifest(layers=layers))).layers[0].media_type == media_type


@pytest.mark.parametrize("media_type", sorted(FOREIGN_LAYER_TYPES))
def test_a_foreign_layer_is_accepted_as_a_descriptor(media_type: str) -> None:
    layers = [{"mediaType": media_type, "digest": TWO, "size": 1, "urls": ["https://x/y"]}]
    assert parse_manifest(document(manifest(layers=layers))).layers[0].urls == ("https://x/y",)


def test_a_manifest_in_dockers_format_is_accepted() -> None:
    config = {"mediaType": DOCKER_CONFIG, "digest": ONE, "size": 10}
    value = manifest(mediaType=DOCKER_MANIFEST, config=config)
    assert parse_manifest(document(value, DOCKER_MANIFEST)).image_id == ONE


def test_an_image_without_layers_is_an_image() -> None:
    assert parse_manifest(document(manifest(layers=[]))).layers == ()


def layer_with(**changes: Any) -> dict[str, Any]:
    return manifest(layers=[{"mediaType": GZIP, "digest": TWO, "size": 20, **changes}])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"<html>", "not JSON"),
        (b"", "not JSON"),
        (b"\xff\xfe\xff", "not JSON"),
        ([], "not a JSON object"),
        (without("config"), "config is not an object"),
        (without("layers"), "layers is not a list"),
        (without("schemaVersion"), "schemaVersion is None"),
        (manifest(schemaVersion=1), "schemaVersion is 1"),
        (manifest(layers={}), "layers is not a list"),
        (manifest(layers=[TWO]), "layer 1 is not an object"),
        (manifest(manifests=[]), "fields of an image index"),
        (layer_with(digest="sha256:abc"), "layer 1 has no sha256 or sha512 digest"),
        (layer_with(digest="md5:" + "0" * 32), "layer 1 has no sha256 or sha512 digest"),
        (layer_with(digest=None), "layer 1 has no sha256 or sha512 digest"),
        (layer_with(size=-1), "layer 1 has no size"),
        (layer_with(size=True), "layer 1 has no size"),
        (layer_with(size="20"), "layer 1 has no size"),
        (layer_with(size=1.5), "layer 1 has no size"),
        (layer_with(size=2**63), "layer 1 has no size"),
        (layer_with(mediaType="text/plain"), "unknown media type 'text/plain'"),
        (layer_with(mediaType=None), "layer 1 has no media type"),
        (layer_with(mediaType=FOREIGN, urls=[1]), "urls that are not strings"),
        (manifest(artifactType="application/x"), "artifact of type 'application/x'"),
        (
            manifest(config={"mediaType": IN_TOTO, "digest": ONE, "size": 1}),
            "artifact of type 'application/vnd.in-toto+json'",
        ),
        (nested(40, '{"a":[', "]}"), "nested"),
        (nested(5000), "nested deeper than 64 levels"),
        (b'{"schemaVersion": 2, "a": NaN}', "not JSON"),
        (b'{"schemaVersion": 2, "a": -Infinity}', "not JSON"),
        (b'{"schemaVersion": 2, "a": 1e999}', "not JSON"),
        (b'{"schemaVersion": 2, "config": {}, "config": {}}', "twice"),
        (b" " * MAX_DOCUMENT_BYTES + b"{}", "is more than"),
    ],
)
def test_a_malformed_manifest_is_refused_with_the_reason(value: Any, why: str) -> None:
    given_document = document(value)
    with pytest.raises(InvalidManifest) as caught:
        parse_manifest(given_document)
    assert why in caught.value.why
    assert given_document.digest in caught.value.what
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("media_type", DOCKER_SCHEMA1)
def test_schema_1_is_refused_with_advice(media_type: str) -> None:
    with pytest.raises(InvalidManifest, match="schema 1") as caught:
        parse_manifest(document({"schemaVersion": 1}, media_type))
    assert "push the image again" in caught.value.hint


def test_an_index_is_not_a_manifest() -> None:
    with pytest.raises(InvalidManifest, match="is not an image"):
        parse_manifest(document(index("linux/amd64"), OCI_INDEX))


def test_a_published_manifest_is_read_in_both_forms() -> None:
    exact = parse_published_manifest(json.dumps(manifest()).encode())
    assert exact == parse_manifest(document(manifest()))
    ducc = parse_published_manifest(json.dumps(DUCC).encode())
    assert ducc.media_type == DOCKER_MANIFEST
    assert (ducc.image_id, ducc.config.size) == (ONE, 10)
    assert [(layer.digest, layer.size) for layer in ducc.layers] == [(TWO, 2)]


def test_an_image_of_the_builder_is_read_as_it_was_built() -> None:
    layers = [build.layer(build.file("a", b"1")), build.layer(build.file("b", b"2"))]
    built = build.image(*layers, architecture="arm", variant="v6")
    found = parse_manifest(built.manifest)
    assert [each.digest for each in found.layers] == [each.digest for each in layers]
    config = parse_config(built.config, found.image_id)
    assert config.diff_ids == tuple(each.diff_id for each in layers)
    assert config.platform == Platform("linux", "arm", "v6")
