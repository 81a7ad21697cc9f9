"""Mirrors of a registry: used in its place, and replaced by it where they fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from publisher.sources import ImageNotFound, SourceError
from publisher.sources.settings import RegistrySettings, Settings
from tests.registry import OwnRegistry
from tests.registry_auth import BasicAuth, basic
from tests.registry_faults import corrupt, cut, html, reset, status
from tests.registry_images import fast_sources, open_image, read_blob, sample_image, write_auths


def mirrored(registry: OwnRegistry, mirror: OwnRegistry, prefix: str = "") -> Settings:
    return Settings({registry.host: RegistrySettings(mirror=mirror.url + prefix)})


def test_the_mirror_is_used_without_a_request_to_the_registry(registry: OwnRegistry) -> None:
    built = sample_image()
    with OwnRegistry() as mirror:
        mirror.add("proxied/library/x", "latest", built)
        with fast_sources(mirrored(registry, mirror, "/proxied")) as sources:
            source = open_image(sources, registry)
            assert source.resolve() == built.manifest.digest
            assert source.manifest() == built.manifest
            assert read_blob(source, built.layers[0].descriptor) == built.layers[0].blob
    assert registry.count() == 0


def test_tags_are_listed_by_the_registry_and_not_by_its_mirror(
    registry: OwnRegistry,
) -> None:
    for tag in ("1.0", "1.1", "1.2"):
        registry.add("library/x", tag, sample_image())
    with OwnRegistry() as mirror:
        mirror.add("library/x", "1.0", sample_image())
        with fast_sources(mirrored(registry, mirror)) as sources:
            assert sorted(open_image(sources, registry).tags()) == ["1.0", "1.1", "1.2"]
    assert mirror.count() == 0


@pytest.mark.parametrize(
    "fault", [status(500), status(404), status(403), html(), reset(), corrupt()]
)
def test_the_registry_is_used_where_its_mirror_fails(registry: OwnRegistry, fault: object) -> None:
    built = sample_image()
    registry.add("library/x", "latest", built)
    with OwnRegistry() as mirror:
        mirror.add("library/x", "latest", built)
        mirror.misbehave(fault)  # type: ignore[arg-type]
        with fast_sources(mirrored(registry, mirror)) as sources:
            source = open_image(sources, registry)
            assert source.manifest() == built.manifest
            assert list(source.tags()) == ["latest"]


def test_a_blob_that_breaks_off_at_a_mirror_is_resumed_at_the_registry(
    registry: OwnRegistry,
) -> None:
    built = sample_image(300_000)
    layer = built.layers[0]
    registry.add("library/x", "latest", built)
    with OwnRegistry() as mirror:
        mirror.add("library/x", "latest", built)
        mirror.misbehave(cut(100_000), path="/blobs/", times=1)
        mirror.misbehave(status(404), path="/blobs/", skip=1)
        with fast_sources(mirrored(registry, mirror)) as sources:
            assert read_blob(open_image(sources, registry), layer.descriptor) == layer.blob
    (request,) = registry.seen("GET", "/blobs/")
    assert int(request.headers["range"].removeprefix("bytes=").rstrip("-")) > 0


def test_a_mirror_that_cannot_be_reached_costs_little_time(registry: OwnRegistry) -> None:
    built = sample_image()
    registry.add("library/x", "latest", built)
    with OwnRegistry() as mirror:
        pass
    with fast_sources(mirrored(registry, mirror)) as sources:
        for _ in range(20):
            assert open_image(sources, registry).resolve() == built.manifest.digest


def test_an_image_is_absent_only_if_the_registry_itself_does_not_have_it(
    registry: OwnRegistry,
) -> None:
    with OwnRegistry() as mirror:
        with fast_sources(mirrored(registry, mirror)) as sources:
            with pytest.raises(ImageNotFound):
                open_image(sources, registry).resolve()
        registry.misbehave(status(500))
        with fast_sources(mirrored(registry, mirror)) as sources:
            with pytest.raises(SourceError) as caught:
                open_image(sources, registry).resolve()
            assert not isinstance(caught.value, ImageNotFound)


def test_a_mirror_has_its_own_credentials(registry: OwnRegistry, tmp_path: Path) -> None:
    built = sample_image()
    users = {"mia": "s3cret-of-mia"}
    with OwnRegistry(BasicAuth(users)) as mirror:
        mirror.add("library/x", "latest", built)
        auths = {registry.host: ("ann", "s3cret-of-ann"), mirror.host: ("mia", users["mia"])}
        file = write_auths(tmp_path / "auth.json", auths)
        settings = replace(mirrored(registry, mirror), credential_files=(file,))
        with fast_sources(settings) as sources:
            assert open_image(sources, registry).manifest() == built.manifest
        sent = {r.headers.get("authorization") for r in mirror.requests} - {None}
        assert sent == {basic("mia", users["mia"])}
