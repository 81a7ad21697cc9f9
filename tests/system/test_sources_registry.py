"""Sources against the real docker-registry, compared with skopeo."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import PublisherError
from publisher.oci.digest import check_digest
from publisher.oci.image import PlatformImage
from publisher.oci.media_types import INDEX_TYPES
from publisher.oci.platform import Platform
from publisher.oci.reference import parse_reference
from publisher.sources import AuthenticationFailed, ImageNotFound, Source, SourceError
from publisher.sources.image import available_platforms, fetch_images
from publisher.sources.open import Sources
from publisher.sources.registry.login import check_login
from publisher.sources.settings import RegistrySettings, Settings
from publisher.sources.tags import expand_tags
from tests.components import Registry, docker_registry, program, run
from tests.cutting_proxy import cutting_proxy
from tests.layer_builder import Compression, Image, file, image, image_index, layer, write_layout
from tests.registry_images import (
    AMD64,
    as_docker,
    noise,
    push_as_it_is,
    read_blob,
    write_auths,
)
from tests.token_service import token_service

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def sources() -> Iterator[Sources]:
    with Sources(base_delay=0.05) as sources:
        yield sources


def sample(compression: Compression = "gzip", seed: int = 0, **fields: Any) -> Image:
    return image(
        layer(file("a", noise(20_000, seed)), compression=compression),
        layer(file("b", b"hello"), compression=compression),
        **fields,
    )


def skopeo_raw(reference: str, *options: str) -> bytes:
    command = (program("skopeo"), "inspect", "--tls-verify=false", "--raw", *options)
    return run(*command, f"docker://{reference}").encode()


def skopeo_inspect(reference: str, *options: str) -> dict[str, Any]:
    command = (program("skopeo"), *options, "inspect", "--tls-verify=false")
    found: dict[str, Any] = json.loads(run(*command, f"docker://{reference}"))
    return found


def open_at(sources: Sources, host: str, name: str) -> Source:
    return sources.open(parse_reference(f"http://{host}/{name}"))


def fetch_whole(source: Source, platform: Platform = AMD64) -> PlatformImage:
    """An image with all its layers, every digest verified."""
    digest = source.resolve()
    (found,) = fetch_images(source, [platform], digest)
    for descriptor in found.manifest.layers:
        check_digest(read_blob(source, descriptor), descriptor.digest, "layer")
    return found


MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_images_of_every_form_are_read_as_skopeo_reads_them(
    registry: Registry, sources: Sources, compression: Compression, form: str
) -> None:
    built = sample(compression)
    built = as_docker(built) if form == "v2s2" else built
    name = f"form/{form}-{compression}"
    push_as_it_is(registry.url, name, "1.0", built)
    source = open_at(sources, registry.host, f"{name}:1.0")
    found = fetch_whole(source)
    assert found.document == built.manifest
    assert found.document.data == skopeo_raw(f"{registry.host}/{name}:1.0")
    if (form, compression) != ("v2s2", "zstd"):  # a name that skopeo does not know
        reported = skopeo_inspect(f"{registry.host}/{name}:1.0")
        assert found.document.digest == reported["Digest"]
        assert [each.digest for each in found.manifest.layers] == reported["Layers"]
        assert found.config_document.data == skopeo_raw(f"{registry.host}/{name}:1.0", "--config")
        assert list(source.tags()) == reported["RepoTags"]
    for descriptor, each in zip(found.manifest.layers, built.layers, strict=True):
        assert descriptor.media_type == each.descriptor.media_type
        stored = registry.blob_path(descriptor.digest).read_bytes()
        if compression == "none":  # a tar archive begins with its first member's name
            assert stored == each.tar
            assert stored.startswith((b"a\0", b"b\0"))
        else:
            assert stored.startswith(MAGIC[compression])


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_an_image_pushed_by_skopeo_is_read_as_skopeo_reads_it(
    registry: Registry, sources: Sources, tmp_path: Path, form: str
) -> None:
    write_layout(sample(), tmp_path / "layout", "x")
    reference = registry.push(f"oci:{tmp_path}/layout:x", f"pushed/{form}:1", "--format", form)
    found = fetch_whole(open_at(sources, registry.host, f"pushed/{form}:1"))
    assert found.document.data == skopeo_raw(reference)
    assert [each.digest for each in found.manifest.layers] == skopeo_inspect(reference)["Layers"]


def push_index(registry: Registry, folder: Path, name: str) -> tuple[dict[str, Image], str]:
    """An index of three platforms with attestations, as builders write it today."""
    images = {
        "linux/amd64": sample(seed=1),
        "linux/arm64/v8": sample(seed=2, architecture="arm64", variant="v8"),
        "linux/arm/v7": sample(seed=3, architecture="arm", variant="v7"),
        "unknown/unknown": sample(seed=4, architecture="unknown", os="unknown"),
    }
    for number, each in enumerate(images.values()):
        write_layout(each, folder, str(number))
    index = image_index(images)
    (folder / "blobs" / index.digest.replace(":", "/")).write_bytes(index.data)
    described = {
        "mediaType": index.media_type,
        "digest": index.digest,
        "size": len(index.data),
        "annotations": {"org.opencontainers.image.ref.name": "multi"},
    }
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    registry.push(f"oci:{folder}:multi", name, "--all")
    return images, index.digest


def test_an_index_with_three_platforms_and_attestations(
    registry: Registry, sources: Sources, tmp_path: Path
) -> None:
    images, digest = push_index(registry, tmp_path / "layout", "multi/x:1.0")
    source = open_at(sources, registry.host, "multi/x:1.0")
    document = source.manifest()
    assert document.media_type in INDEX_TYPES
    assert document.digest == digest
    assert document.data == skopeo_raw(f"{registry.host}/multi/x:1.0")
    platforms = [AMD64, Platform("linux", "arm64"), Platform("linux", "arm", "v7")]
    assert available_platforms(source, document) == platforms
    for platform, built in zip(platforms, images.values(), strict=False):
        assert fetch_whole(source, platform).document == built.manifest
        chosen = ["--override-arch", platform.architecture, "--override-os", "linux"]
        if platform.variant:
            chosen += ["--override-variant", platform.variant]
        reported = skopeo_inspect(f"{registry.host}/multi/x:1.0", *chosen)
        assert reported["Layers"] == [each.digest for each in built.layers]
    with pytest.raises(SourceError, match=r"linux/amd64, linux/arm/v7, linux/arm64"):
        fetch_images(source, [Platform("linux", "riscv64")])


def test_tags_are_listed_and_matched(registry: Registry, sources: Sources, tmp_path: Path) -> None:
    write_layout(sample(), tmp_path / "layout", "x")
    registry.push(f"oci:{tmp_path}/layout:x", "tags/x:1.0")
    for tag in ("1.1", "1.2", "1.10", "2.0-rc1", "latest"):
        run(
            *(program("skopeo"), "copy", "--src-tls-verify=false", "--dest-tls-verify=false"),
            *(f"docker://{registry.host}/tags/x:1.0", f"docker://{registry.host}/tags/x:{tag}"),
        )
    source = open_at(sources, registry.host, "tags/x")
    reported = json.loads(
        run(
            program("skopeo"), "list-tags", "--tls-verify=false", f"docker://{registry.host}/tags/x"
        )
    )
    assert sorted(source.tags()) == sorted(reported["Tags"])
    assert expand_tags(source, [">=1.1,<2"], ["1.2"]) == ["1.1", "1.10"]


def test_a_missing_image_is_absent(registry: Registry, sources: Sources) -> None:
    for name in ("nobody/nothing:1.0", "tags/x:9.9"):
        with pytest.raises(ImageNotFound):
            open_at(sources, registry.host, name).resolve()


def test_a_tampered_blob_is_noticed(registry: Registry, sources: Sources, tmp_path: Path) -> None:
    built = sample(seed=77)
    write_layout(built, tmp_path / "layout", "x")
    registry.push(f"oci:{tmp_path}/layout:x", "tampered/x:1.0")
    stored = registry.blob_path(built.image_id)
    stored.write_bytes(stored.read_bytes().replace(b"layer 1", b"layer !"))
    with pytest.raises(PublisherError) as caught:
        fetch_images(open_at(sources, registry.host, "tampered/x:1.0"), [AMD64])
    assert built.image_id in str(caught.value)


def test_a_broken_network_is_overcome_by_ranges(
    registry: Registry, sources: Sources, tmp_path: Path
) -> None:
    big = layer(file("big", noise(8_000_000)), compression="none")
    write_layout(image(big), tmp_path / "layout", "x")
    registry.push(f"oci:{tmp_path}/layout:x", "broken/x:1.0", "--dest-compress-format", "gzip")
    with cutting_proxy(registry.host, limit=1_500_000, cuts=4) as proxy:
        found = fetch_whole(open_at(sources, proxy.host, "broken/x:1.0"))
    assert proxy.done == 4
    assert found.manifest.layers[0].size > 7_900_000


def test_htpasswd(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="publisher")
    users = {"ann": "s3cret-of-ann"}
    built = sample()
    write_layout(built, tmp_path / "layout", "x")
    with docker_registry(tmp_path / "registry", htpasswd=users) as registry:
        registry.push(f"oci:{tmp_path}/layout:x", "a/x:1", "--dest-creds", "ann:s3cret-of-ann")
        good = write_auths(tmp_path / "good.json", {registry.host: ("ann", users["ann"])})
        bad = write_auths(tmp_path / "bad.json", {registry.host: ("ann", "wr0ng")})
        with Sources(Settings(credential_files=(good,))) as sources:
            assert fetch_whole(open_at(sources, registry.host, "a/x:1")).document == built.manifest
            with pytest.raises(ImageNotFound):
                open_at(sources, registry.host, "a/x:2").resolve()
        for settings in (Settings(), Settings(credential_files=(bad,))):
            with Sources(settings) as sources, pytest.raises(AuthenticationFailed) as caught:
                open_at(sources, registry.host, "a/x:1").resolve()
            assert "wr0ng" not in str(caught.value)
        check_login(Settings(), registry.host, "ann", users["ann"], plain_http=True)
        with pytest.raises(AuthenticationFailed):
            check_login(Settings(), registry.host, "ann", "wr0ng", plain_http=True)
        insecure = Settings(
            {registry.host: RegistrySettings(insecure=True)}, credential_files=(good,)
        )
        with Sources(insecure) as sources:
            bare = sources.open(parse_reference(f"{registry.host}/a/x:1"))
            assert bare.resolve() == built.manifest.digest
    for secret in (users["ann"], "wr0ng"):
        assert secret not in caplog.text


def test_tokens_that_expire_within_a_blob(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="publisher")
    users = {"ann": "s3cret-of-ann"}
    big = image(layer(file("big", noise(6_000_000)), compression="gzip"))
    write_layout(big, tmp_path / "layout", "x")
    with (
        # good for ten seconds, with the minute that the registry allows for clocks
        token_service(tmp_path / "tokens", users, lifetime=-50, announced=300) as service,
        docker_registry(tmp_path / "registry", token=service) as registry,
        cutting_proxy(registry.host, limit=2_000_000, cuts=1, pause=12) as proxy,
    ):
        registry.push(f"oci:{tmp_path}/layout:x", "a/x:1", "--dest-creds", "ann:s3cret-of-ann")
        good = write_auths(tmp_path / "good.json", {proxy.host: ("ann", users["ann"])})
        bad = write_auths(tmp_path / "bad.json", {proxy.host: ("ann", "wr0ng")})
        with Sources(Settings(credential_files=(good,)), base_delay=0.05) as sources:
            assert fetch_whole(open_at(sources, proxy.host, "a/x:1")).document == big.manifest
        assert proxy.done == 1
        asked = [line for line in caplog.messages if "/token 200" in line]
        assert len(asked) == 2, "one token for all, and one after the first had expired"
        assert any("/blobs/" in line and " 206 " in line for line in caplog.messages)
        with Sources() as sources, pytest.raises(ImageNotFound):
            open_at(sources, proxy.host, "a/x:2").resolve()
        with Sources(Settings(credential_files=(bad,))) as sources:
            with pytest.raises(AuthenticationFailed, match="user name and password"):
                open_at(sources, proxy.host, "a/x:1").resolve()
    for secret in ("s3cret-of-ann", "wr0ng", "eyJ"):  # tokens begin with eyJ
        assert secret not in caplog.text
