from __future__ import annotations

import json
from typing import Any

import pytest

from publisher.errors import InvalidManifest
from publisher.oci.digest import digest_of
from publisher.oci.document import Document
from publisher.oci.media_types import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from publisher.oci.platform import Platform
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.image import PlatformNotFound, available_platforms, fetch_images
from publisher.sources.open import Sources
from tests.layer_builder import Image, file, image, image_index, layer
from tests.registry import OwnRegistry
from tests.registry_images import AMD64, open_image, sample_image

ARM64 = Platform("linux", "arm64")
ARM_V7 = Platform("linux", "arm", "v7")


def build(architecture: str, variant: str = "") -> Image:
    return image(
        layer(file("arch", f"{architecture}{variant}".encode())),
        architecture=architecture,
        variant=variant,
    )


def index_of(entries: list[dict[str, Any]], media_type: str = OCI_INDEX) -> Document:
    data = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()
    return Document(data, media_type, digest_of(data))


def entry(
    document: Document, platform: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "mediaType": document.media_type,
        "digest": document.digest,
        "size": len(document.data),
    }
    return described | ({"platform": platform} if platform else {}) | more


def push(registry: OwnRegistry, images: list[Image], index: Document) -> None:
    for each in images:
        registry.add("library/x", None, each)
    registry.add_document("library/x", "latest", index)


def test_an_image_without_an_index_is_fetched(registry: OwnRegistry, sources: Sources) -> None:
    built = sample_image()
    registry.add("library/x", "latest", built)
    (found,) = fetch_images(open_image(sources, registry), [AMD64])
    assert found.document == built.manifest
    assert found.config_document.data == built.config
    assert found.index_digest is None
    assert found.platform == AMD64


def test_each_requested_platform_gets_its_image_in_the_requested_order(
    registry: OwnRegistry, sources: Sources
) -> None:
    images = {
        "linux/amd64": build("amd64"),
        "linux/arm64/v8": build("arm64", "v8"),
        "linux/arm/v7": build("arm", "v7"),
    }
    index = image_index(images)
    push(registry, list(images.values()), index)
    wanted = [ARM64, AMD64, ARM_V7, AMD64]
    found = fetch_images(open_image(sources, registry), wanted)
    assert [each.platform for each in found] == wanted
    assert [each.document for each in found] == [
        images[name].manifest
        for name in ("linux/arm64/v8", "linux/amd64", "linux/arm/v7", "linux/amd64")
    ]
    assert {each.index_digest for each in found} == {index.digest}


def test_attestations_and_unknown_platforms_are_ignored(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = build("amd64")
    attestation = build("unknown")
    index = index_of(
        [
            entry(attestation.manifest, {"os": "unknown", "architecture": "unknown"}),
            entry(built.manifest, {"os": "linux", "architecture": "amd64"}),
        ]
    )
    push(registry, [built, attestation], index)
    source = open_image(sources, registry)
    (found,) = fetch_images(source, [AMD64])
    assert found.document == built.manifest
    assert available_platforms(source, source.manifest()) == [AMD64]


def test_index_entries_without_a_platform_get_the_platform_of_their_config(
    registry: OwnRegistry, sources: Sources
) -> None:
    amd64, arm64 = build("amd64"), build("arm64", "v8")
    chart = json.loads(amd64.manifest.data)
    chart["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
    data = json.dumps(chart).encode()
    artifact = Document(data, OCI_MANIFEST, digest_of(data))
    index = index_of([entry(artifact), entry(arm64.manifest), entry(amd64.manifest)])
    push(registry, [amd64, arm64], index)
    registry.add_document("library/x", None, artifact)
    found = fetch_images(open_image(sources, registry), [AMD64, ARM64])
    assert [each.document for each in found] == [amd64.manifest, arm64.manifest]
    with pytest.raises(PlatformNotFound, match=r"linux/amd64, linux/arm64"):
        fetch_images(open_image(sources, registry), [ARM_V7])


@pytest.mark.parametrize("variant", ["", "v6"])
def test_a_config_need_not_name_the_variant_that_the_index_names(
    registry: OwnRegistry, sources: Sources, variant: str
) -> None:
    built = build("arm", variant)
    push(registry, [built], image_index({"linux/arm/v6": built}))
    (found,) = fetch_images(open_image(sources, registry), [Platform("linux", "arm", "v6")])
    assert found.document == built.manifest


def test_an_index_within_an_index_is_followed(registry: OwnRegistry, sources: Sources) -> None:
    built = build("arm64")
    inner = index_of([entry(built.manifest, {"os": "linux", "architecture": "arm64"})], DOCKER_LIST)
    outer = index_of([entry(inner)])
    push(registry, [built], outer)
    registry.add_document("library/x", None, inner)
    (found,) = fetch_images(open_image(sources, registry), [ARM64])
    assert found.document == built.manifest
    assert found.index_digest == outer.digest


def test_indexes_without_end_are_refused(registry: OwnRegistry, sources: Sources) -> None:
    inner = index_of([])
    for _ in range(10):
        registry.add_document("library/x", None, inner)
        inner = index_of([entry(inner)])
    registry.add_document("library/x", "latest", inner)
    with pytest.raises(InvalidManifest, match="deep"):
        fetch_images(open_image(sources, registry), [AMD64])
    assert registry.count() <= 5


def test_an_index_of_very_many_indexes_is_refused(registry: OwnRegistry, sources: Sources) -> None:
    inner = [index_of([], media_type) for media_type in (OCI_INDEX,)]
    for n in range(60):
        data = json.dumps(
            {"schemaVersion": 2, "manifests": [], "annotations": {"n": str(n)}}
        ).encode()
        inner.append(Document(data, OCI_INDEX, digest_of(data)))
    for each in inner:
        registry.add_document("library/x", None, each)
    registry.add_document("library/x", "latest", index_of([entry(each) for each in inner]))
    with pytest.raises(InvalidManifest, match="more than"):
        fetch_images(open_image(sources, registry), [AMD64])
    assert registry.count() < 50


def test_a_missing_platform_is_an_error_that_names_the_existing_ones(
    registry: OwnRegistry, sources: Sources
) -> None:
    images = {"linux/amd64": build("amd64"), "linux/arm64": build("arm64")}
    push(registry, list(images.values()), image_index(images))
    with pytest.raises(PlatformNotFound, match=r"linux/s390x.*linux/amd64, linux/arm64") as caught:
        fetch_images(open_image(sources, registry), [AMD64, Platform("linux", "s390x")])
    assert not isinstance(caught.value, ImageNotFound)
    assert caught.value.wanted == "linux/s390x"
    assert caught.value.available == ("linux/amd64", "linux/arm64")


def test_the_message_about_an_index_of_thousands_of_platforms_is_short(
    registry: OwnRegistry, sources: Sources
) -> None:
    index = image_index({f"linux/other{number}": build("amd64") for number in range(5000)})
    registry.add_document("library/x", "latest", index)
    with pytest.raises(PlatformNotFound, match="and 4984 more") as caught:
        fetch_images(open_image(sources, registry), [AMD64])
    assert len(str(caught.value)) < 1000


def test_a_single_image_of_another_platform_is_refused_by_name(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.add("library/x", "latest", build("arm64", "v8"))
    with pytest.raises(
        PlatformNotFound,
        match=r"exists for linux/arm64.*--platform linux/arm64",
    ):
        fetch_images(open_image(sources, registry), [AMD64])
    (found,) = fetch_images(open_image(sources, registry), [ARM64])
    assert found.platform == ARM64


def test_an_index_that_states_a_wrong_platform_is_refused(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = build("arm64")
    push(registry, [built], image_index({"linux/amd64": built}))
    with pytest.raises(InvalidManifest, match="config linux/arm64"):
        fetch_images(open_image(sources, registry), [AMD64])


@pytest.mark.parametrize("off", [-1, 1, 1000])
def test_an_index_entry_whose_size_is_not_that_of_the_manifest_is_refused(
    registry: OwnRegistry, sources: Sources, off: int
) -> None:
    built = build("amd64")
    size = len(built.manifest.data) + off
    platform = {"os": "linux", "architecture": "amd64"}
    push(registry, [built], index_of([entry(built.manifest, platform, size=size)]))
    with pytest.raises(InvalidManifest, match=rf"states {size} bytes"):
        fetch_images(open_image(sources, registry), [AMD64])


def test_an_entry_whose_size_is_not_that_of_the_nested_index_is_refused(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = build("amd64")
    inner = image_index({"linux/amd64": built})
    push(registry, [built], index_of([entry(inner, size=1)]))
    registry.add_document("library/x", None, inner)
    with pytest.raises(InvalidManifest, match="states 1 bytes"):
        fetch_images(open_image(sources, registry), [AMD64])


@pytest.mark.parametrize(
    "config_type",
    [
        "application/vnd.cncf.helm.config.v1+json",
        "application/vnd.dev.cosign.simplesigning.v1+json",
    ],
)
def test_artifacts_are_refused_by_their_type(
    registry: OwnRegistry, sources: Sources, config_type: str
) -> None:
    manifest = json.loads(sample_image().manifest.data)
    manifest["config"]["mediaType"] = config_type
    data = json.dumps(manifest).encode()
    registry.add_document("library/x", "latest", Document(data, OCI_MANIFEST, digest_of(data)))
    with pytest.raises(InvalidManifest, match="artifact of type"):
        fetch_images(open_image(sources, registry), [AMD64])


def test_schema_1_is_refused_with_the_reason(registry: OwnRegistry, sources: Sources) -> None:
    data = b'{"schemaVersion": 1, "name": "library/x", "tag": "latest", "fsLayers": []}'
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    registry.add_document("library/x", "latest", Document(data, kind, digest_of(data)))
    with pytest.raises(InvalidManifest, match=r"schema 1.*push the image again"):
        fetch_images(open_image(sources, registry), [AMD64])


def test_a_config_that_names_other_layers_is_refused(
    registry: OwnRegistry, sources: Sources
) -> None:
    built, other = sample_image(1000, 2000), sample_image(1000)
    manifest = json.loads(built.manifest.data)
    manifest["config"] = json.loads(other.manifest.data)["config"]
    registry.add("library/x", None, built)
    registry.add("library/x", None, other)
    data = json.dumps(manifest).encode()
    registry.add_document("library/x", "latest", Document(data, OCI_MANIFEST, digest_of(data)))
    with pytest.raises(InvalidManifest, match=r"2 layers.*1 diff IDs"):
        fetch_images(open_image(sources, registry), [AMD64])


def test_the_resolved_image_is_fetched_even_if_the_tag_moves(
    registry: OwnRegistry, sources: Sources
) -> None:
    old, new = sample_image(seed=1), sample_image(seed=2)
    registry.add("library/x", "latest", old)
    source = open_image(sources, registry)
    digest = source.resolve()
    registry.add("library/x", "latest", new)
    (found,) = fetch_images(source, [AMD64], digest)
    assert found.document == old.manifest


def test_a_config_that_is_missing_is_an_error(registry: OwnRegistry, sources: Sources) -> None:
    registry.add("library/x", "latest", sample_image())
    registry.blobs.clear()
    with pytest.raises(SourceError, match="blob"):
        fetch_images(open_image(sources, registry), [AMD64])


def test_a_config_of_seven_megabytes_is_read(registry: OwnRegistry, sources: Sources) -> None:
    built = image(layer(file("a")), config={"Labels": {"notes": "x" * 7_000_000}})
    registry.add("library/x", "latest", built)
    (found,) = fetch_images(open_image(sources, registry), [AMD64])
    assert found.config_document.data == built.config
