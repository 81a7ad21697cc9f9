"""Pushing thin images to a registry that misbehaves, and into an engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from publisher.ingest.thin_push import push_set, push_thin
from publisher.oci.config import parse_config
from publisher.oci.digest import digest_of
from publisher.oci.media_types import OCI_MANIFEST
from publisher.oci.reference import parse_reference
from publisher.sources import AuthenticationFailed, SourceError
from publisher.sources.errors import RegistryNotPermitted
from publisher.sources.open import Sources
from publisher.sources.settings import EngineTLS, Settings
from publisher.thin import ThinImageError
from publisher.thin.image import Original, ThinSet, build_image, build_set
from publisher.thin.recipe import layered_recipe
from tests.registry import OwnRegistry, Reply, Request, error_reply
from tests.registry_faults import reset, status
from tests.registry_images import fast_sources


def thin_set(*architectures: str) -> ThinSet:
    images = []
    for architecture in architectures:
        data = json.dumps(
            {"architecture": architecture, "os": "linux", "rootfs": {"diff_ids": []}}
        ).encode()
        config = parse_config(data, digest_of(data))
        original = Original("quay.io/a/b:1", f"sha256:{'a' * 64}", OCI_MANIFEST, config, data, {})
        images.append((original, build_image(original, layered_recipe("", "cvmfs://x", []))))
    return build_set(images, "quay.io/a/b:1", f"sha256:{'b' * 64}")


@pytest.fixture
def registry() -> Iterator[OwnRegistry]:
    with OwnRegistry() as registry:
        yield registry


@pytest.fixture
def sources() -> Iterator[Sources]:
    with fast_sources() as sources:
        yield sources


def push(thin: ThinSet, sources: Sources, registry: OwnRegistry) -> bool:
    reference = parse_reference(f"http://{registry.host}/thin/b:1")
    return push_set(thin, sources.destination(reference), "1")


def sent(registry: OwnRegistry) -> list[str]:
    return [request.method for request in registry.requests if request.method in ("POST", "PUT")]


@pytest.mark.parametrize("architectures", [("amd64",), ("amd64", "arm64")])
def test_a_push_uploads_everything_and_the_next_one_nothing(
    registry: OwnRegistry, sources: Sources, architectures: tuple[str, ...]
) -> None:
    thin = thin_set(*architectures)
    assert push(thin, sources, registry)
    assert registry.tags["thin/b"]["1"] == thin.top.digest
    kept = registry.manifests["thin/b"]
    assert kept[thin.top.digest].data == thin.top.data
    for image in thin.images:
        assert kept[image.manifest.digest].data == image.manifest.data
        for blob in (image.config, image.layer):
            assert registry.blobs[blob.digest] == blob.data
    before = len(sent(registry))
    assert not push(thin, sources, registry)
    assert len(sent(registry)) == before


def test_existing_blobs_are_not_sent_again(registry: OwnRegistry, sources: Sources) -> None:
    thin = thin_set("amd64")
    [image] = thin.images
    registry.blobs |= {image.config.digest: image.config.data, image.layer.digest: image.layer.data}
    assert push(thin, sources, registry)
    assert sent(registry) == ["PUT"], "the manifest alone"


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD"])
@pytest.mark.parametrize("fault", [status(503), status(429, retry_after="0"), reset()])
def test_temporary_faults_are_tried_again(
    registry: OwnRegistry, sources: Sources, method: str, fault: object
) -> None:
    registry.misbehave(fault, method=method, times=2)  # type: ignore[arg-type]
    thin = thin_set("amd64")
    assert push(thin, sources, registry)
    assert registry.tags["thin/b"]["1"] == thin.top.digest


def test_an_upload_that_the_registry_lost_is_repeated(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.misbehave(
        lambda request, reply: error_reply(404, "BLOB_UPLOAD_UNKNOWN"),
        method="PUT",
        path="/blobs/uploads/",
        times=1,
    )
    assert push(thin_set("amd64"), sources, registry)


def test_an_upload_address_with_another_scheme_is_of_the_same_registry(
    registry: OwnRegistry, sources: Sources
) -> None:
    def behind_a_proxy(request: Request, reply: Reply) -> Reply:
        path = reply.with_headers().headers["location"]
        return reply.with_headers(location=f"https://{registry.host}{path}?state=x%2Fy")

    registry.misbehave(behind_a_proxy, method="POST")
    assert push(thin_set("amd64"), sources, registry)
    queries = [request.query for request in registry.requests if "/uploads/" in request.path]
    assert {"state": ["x/y"]}.items() <= queries[-1].items()


def test_a_tag_that_names_something_else_afterwards_is_an_error(
    registry: OwnRegistry, sources: Sources
) -> None:
    other = f"sha256:{'f' * 64}"
    registry.misbehave(
        lambda request, reply: replace(reply, status=200).with_headers(docker_content_digest=other),
        method="HEAD",
        path="/manifests/",
    )
    with pytest.raises(ThinImageError, match=other):
        push(thin_set("amd64"), sources, registry)


def test_a_registry_that_stores_other_bytes_than_were_sent_is_an_error(
    registry: OwnRegistry, sources: Sources
) -> None:
    other = f"sha256:{'f' * 64}"
    registry.misbehave(
        lambda request, reply: reply.with_headers(docker_content_digest=other),
        method="PUT",
        path="/manifests/",
    )
    with pytest.raises(Exception, match="stored another manifest"):
        push(thin_set("amd64"), sources, registry)


def test_a_refused_push_is_reported_as_such(registry: OwnRegistry, sources: Sources) -> None:
    registry.misbehave(lambda request, reply: error_reply(403, "DENIED", "no push"), method="POST")
    with pytest.raises(AuthenticationFailed, match=r"push to .*/thin/b.*no push"):
        push(thin_set("amd64"), sources, registry)


def test_an_image_repository_that_has_to_be_created_first_is_named(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.misbehave(lambda request, reply: error_reply(404, "NAME_UNKNOWN"), method="POST")
    with pytest.raises(SourceError, match=r"create .*/thin/b first"):
        push(thin_set("amd64"), sources, registry)


def test_a_push_into_an_engine_uses_the_tls_settings_of_the_environment(tmp_path: Path) -> None:
    tls = EngineTLS(tmp_path, verify=True)
    with fast_sources(Settings(docker_host="tcp://127.0.0.1:1", docker_tls=tls)) as sources:
        with pytest.raises(SourceError, match=r"cannot load thin/b:1 .* not contain ca\.pem"):
            push_thin(thin_set("amd64"), "docker-daemon:thin/b:1", sources)


def test_an_engine_pushes_to_no_registry_that_is_not_permitted(tmp_path: Path) -> None:
    settings = Settings(docker_host=f"unix://{tmp_path}/none", only=frozenset({"quay.io"}))
    with fast_sources(settings) as sources:
        with pytest.raises(RegistryNotPermitted, match="the registry example"):
            push_thin(thin_set("amd64"), "example.org/thin/b:1", sources, through_engine=True)
        with pytest.raises(SourceError, match="engine"):
            push_thin(thin_set("amd64"), "quay.io/thin/b:1", sources, through_engine=True)
