"""Manifests, indexes, configs: read from exact bytes; what is unsound is refused, not guessed."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.errors import DigestMismatch, InvalidManifest
from publisher.oci.config import parse_config
from publisher.oci.descriptor import Descriptor
from publisher.oci.digest import check_digest, digest_hex, digest_of, is_digest
from publisher.oci.document import MAX_DOCUMENT_BYTES, Document, detect_media_type
from publisher.oci.index import ImageIndex, parse_index
from publisher.oci.manifest import check_consistency, parse_manifest, parse_published_manifest
from publisher.oci.media_types import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    FOREIGN_LAYER_TYPES,
    LAYER_TYPES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
)
from publisher.oci.platform import Platform
from tests import layer_builder as build
from tests.mutations import mutated, nested

ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "123")
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
IN_TOTO = "application/vnd.in-toto+json"


def manifest(**changes: Any) -> dict[str, Any]:
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": ONE, "size": 10},
        "layers": [
            {"mediaType": GZIP, "digest": TWO, "size": 20},
            {"mediaType": GZIP, "digest": THREE, "size": 30, "annotations": {"a": "b"}},
        ],
        "annotations": {"org.opencontainers.image.title": "x"},
    }
    return {**value, **changes}


def document(value: Any, media_type: str = OCI_MANIFEST) -> Document:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Document(data, media_type, digest_of(data))


def index(*platforms: str) -> dict[str, Any]:
    manifests = []
    for number, text in enumerate(platforms):
        os, architecture, *variant = text.split("/")
        platform = {"os": os, "architecture": architecture}
        if variant:
            platform["variant"] = variant[0]
        manifests.append(
            {
                "mediaType": OCI_MANIFEST,
                "digest": f"sha256:{number:064x}",
                "size": 1,
                "platform": platform,
            }
        )
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}


CONFIG = {
    "os": "linux",
    "architecture": "arm64",
    "variant": "v8",
    "config": {"Env": ["A=b"], "Cmd": ["sh"]},
    "rootfs": {"type": "layers", "diff_ids": [ONE, TWO]},
}


# Digests


@given(st.binary(), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_is_the_hash_of_the_bytes(data: bytes, algorithm: str) -> None:
    digest = digest_of(data, algorithm)
    assert digest == f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    assert is_digest(digest)
    assert digest_hex(digest) == digest.removeprefix(f"{algorithm}:")
    check_digest(data, digest, "x")


@given(st.binary(min_size=1), st.data(), st.sampled_from(["sha256", "sha512"]))
def test_one_changed_bit_is_a_mismatch_that_names_both_digests(
    data: bytes, choice: st.DataObject, algorithm: str
) -> None:
    expected = digest_of(data, algorithm)
    bit = choice.draw(st.integers(0, 8 * len(data) - 1))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DigestMismatch) as caught:
        check_digest(bytes(changed), expected, "layer of x")
    assert expected in str(caught.value)
    assert digest_of(bytes(changed), algorithm) in str(caught.value)
    assert "layer of x" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "0" * 64,
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "0" * 128,
        "sha512:" + "0" * 64,
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 64 + "\n",
        "md5:" + "0" * 32,
        "sha256:../" + "0" * 61,
        "sha256:" + "\N{ARABIC-INDIC DIGIT ZERO}" * 64,
    ],
)
def test_what_cannot_be_verified_is_no_digest(text: str) -> None:
    assert not is_digest(text)


# Manifests


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


def test_dockers_own_manifest_is_as_good() -> None:
    config = {"mediaType": DOCKER_CONFIG, "digest": ONE, "size": 10}
    value = manifest(mediaType=DOCKER_MANIFEST, config=config)
    assert parse_manifest(document(value, DOCKER_MANIFEST)).image_id == ONE


def test_an_image_without_layers_is_an_image() -> None:
    assert parse_manifest(document(manifest(layers=[]))).layers == ()


def without(key: str) -> dict[str, Any]:
    value = manifest()
    del value[key]
    return value


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
        (layer_with(digest="sha256:abc"), "layer 1 has no digest that we can verify"),
        (layer_with(digest="md5:" + "0" * 32), "layer 1 has no digest that we can verify"),
        (layer_with(digest=None), "layer 1 has no digest that we can verify"),
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
        (nested(5000), "not JSON"),
        (b'{"schemaVersion": 2, "a": NaN}', "not JSON"),
        (b'{"schemaVersion": 2, "a": -Infinity}', "not JSON"),
        (b'{"schemaVersion": 2, "a": 1e999}', "not JSON"),
        (b'{"schemaVersion": 2, "config": {}, "config": {}}', "twice"),
        (b" " * MAX_DOCUMENT_BYTES + b"{}", "is more than"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused_with_the_reason(value: Any, why: str) -> None:
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


# Whatever arrives


SCHEMA1 = {"schemaVersion": 1, "name": "x", "fsLayers": [{"blobSum": ONE}], "history": []}
DUCC = {
    "SchemaVersion": 2,
    "MediaType": DOCKER_MANIFEST,
    "Config": {"MediaType": DOCKER_CONFIG, "Size": 10, "Digest": ONE},
    "Layers": [
        {"MediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "Size": 2, "Digest": TWO}
    ],
}
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
def test_whatever_arrives_is_read_or_refused_in_our_own_words(parser: str, data: bytes) -> None:
    try:
        PARSERS[parser](data)
    except InvalidManifest as error:
        assert str(error)


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("depth", [80, 200, 330, 490, 600, 900, 10_000, 1_000_000])
@pytest.mark.parametrize(("around", "after"), [('{"a":', "}"), ('{"a":[', "]}")])
def test_deep_nesting_is_refused_and_not_fallen_into(
    parser: str, depth: int, around: str, after: str
) -> None:
    with pytest.raises(InvalidManifest):
        PARSERS[parser](nested(depth, around, after))


@given(data=mutated(manifest()))
def test_what_was_accepted_is_sound(data: bytes) -> None:
    try:
        found = parse_manifest(document(data))
    except InvalidManifest:
        return
    for descriptor in (found.config, *found.layers):
        assert is_digest(descriptor.digest)
        assert 0 <= descriptor.size < 2**63
    # The remove schedule keeps it, parsed, in a file of its own.
    assert json.loads(json.dumps(json.loads(data), allow_nan=False)) == json.loads(data)


# Which of them is meant: manifest or index


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
def test_the_document_says_what_it_is(value: Any, declared: str, found: str) -> None:
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


@pytest.mark.parametrize("key", ["layers", "config"])
def test_an_index_that_is_a_manifest_as_well_is_refused(key: str) -> None:
    with pytest.raises(InvalidManifest, match="fields of an image manifest"):
        parse_index(document({**index("linux/amd64"), key: []}, OCI_INDEX))


# Platforms


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/amd64/v1", Platform("linux", "amd64")),
        ("linux/amd64/v3", Platform("linux", "amd64", "v3")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("linux/arm64", Platform("linux", "arm64")),
        ("linux/arm64/v8", Platform("linux", "arm64")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/arm", Platform("linux", "arm", "v7")),
        ("linux/arm/v6", Platform("linux", "arm", "v6")),
        ("linux/riscv64", Platform("linux", "riscv64")),
    ],
)
def test_a_platform_is_read_and_its_spellings_are_one(text: str, platform: Platform) -> None:
    assert Platform.parse(text) == platform
    assert Platform.parse(str(platform)) == platform


@pytest.mark.parametrize(
    "text",
    ["", "linux", "linux/", "/amd64", "linux/a/b/c", "Linux/AMD64", "linux/a b", "linux/amd64\n"],
)
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="os/architecture"):
        Platform.parse(text)


PLATFORMS = st.builds(
    Platform,
    os=st.sampled_from(["linux", "windows", "unknown"]),
    architecture=st.sampled_from(["amd64", "x86_64", "arm64", "aarch64", "arm", "unknown"]),
    variant=st.sampled_from(["", "v1", "v2", "v6", "v7", "v8"]),
)


@given(PLATFORMS)
def test_one_spelling_of_a_platform_stays_what_it_is(platform: Platform) -> None:
    once = platform.normalized()
    assert once.normalized() == once


def _index_of(platforms: list[Platform]) -> ImageIndex:
    return ImageIndex(
        tuple(
            Descriptor(OCI_MANIFEST, f"sha256:{number:064x}", 1, platform)
            for number, platform in enumerate(platforms)
        )
    )


@given(st.lists(PLATFORMS, max_size=6), PLATFORMS)
def test_the_chosen_image_is_the_best_that_is_offered(
    platforms: list[Platform], wanted: Platform
) -> None:
    def rank(offered: Platform) -> int | None:
        """0 is best; None does not serve."""
        if "unknown" in (offered.os, offered.architecture):
            return None
        mine, theirs = wanted.normalized(), offered.normalized()
        if (mine.os, mine.architecture) != (theirs.os, theirs.architecture):
            return None
        if mine.variant == theirs.variant:
            return 0
        if not theirs.variant:
            return 1
        return None if mine.variant else 2

    ranked = [(r, n) for n, p in enumerate(platforms) if (r := rank(p)) is not None]
    chosen = _index_of(platforms).choose(wanted)
    if not ranked:
        assert chosen is None
    else:
        assert chosen is not None
        assert int(digest_hex(chosen.digest), 16) == min(ranked)[1]


def test_the_order_of_an_index_does_not_matter_for_different_platforms() -> None:
    platforms = ["linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7", "windows/amd64"]
    for order in itertools.permutations(platforms):
        found = parse_index(document(index(*order), OCI_INDEX))
        for wanted in platforms:
            chosen = found.choose(Platform.parse(wanted))
            assert chosen is not None
            assert chosen.digest == f"sha256:{order.index(wanted):064x}"


def test_attestations_and_other_artifacts_are_never_chosen() -> None:
    value = index("unknown/unknown", "linux/amd64", "linux/amd64")
    value["manifests"][1]["mediaType"] = IN_TOTO
    found = parse_index(document(value, OCI_INDEX))
    chosen = found.choose(Platform.parse("linux/amd64"))
    assert chosen is not None
    assert chosen.digest == f"sha256:{2:064x}"
    assert found.choose(Platform("unknown", "unknown")) is None


def test_an_index_in_an_index_is_found_but_is_no_image() -> None:
    value = index("linux/amd64", "linux/arm64")
    value["manifests"][0] |= {"mediaType": OCI_INDEX, "platform": None}
    found = parse_index(document(value, OCI_INDEX))
    assert [d.digest for d in found.nested()] == [f"sha256:{0:064x}"]
    assert [d.digest for d in found.images()] == [f"sha256:{1:064x}"]


# Configs


def test_a_config_keeps_everything_that_it_says() -> None:
    found = parse_config(json.dumps(CONFIG).encode(), ONE)
    assert found.platform == Platform("linux", "arm64", "v8")
    assert found.diff_ids == (ONE, TWO)
    assert found.values == CONFIG


@pytest.mark.parametrize("rootfs", [None, {}, {"diff_ids": None}, {"diff_ids": []}])
def test_a_config_of_an_image_without_layers_may_leave_them_out(rootfs: Any) -> None:
    assert parse_config(json.dumps({**CONFIG, "rootfs": rootfs}).encode(), ONE).diff_ids == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"os": None},
        {"architecture": 1},
        {"variant": 8},
        {"rootfs": {"diff_ids": "x"}},
        {"rootfs": {"diff_ids": ["x"]}},
        {"rootfs": {"diff_ids": [None]}},
        {"config": "sh"},
        {"config": ["sh"]},
    ],
)
def test_a_config_with_values_of_the_wrong_kind_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidManifest):
        parse_config(json.dumps({**CONFIG, **changes}).encode(), ONE)


def test_a_config_and_a_manifest_of_different_images_do_not_go_together() -> None:
    found = parse_manifest(document(manifest()))
    check_consistency(found, parse_config(json.dumps(CONFIG).encode(), ONE), ONE)
    other = json.dumps({**CONFIG, "rootfs": {"diff_ids": [ONE]}}).encode()
    with pytest.raises(InvalidManifest, match="2 layers, but its config has 1 diff ID"):
        check_consistency(found, parse_config(other, ONE), ONE)


# What is published


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
