"""The signatures of an image are read from registries of every kind, also from bad ones."""

from __future__ import annotations

from publisher.sources.settings import RegistrySettings, Settings
from publisher.sources.signatures import attached_signatures
from tests.cosign import Key
from tests.registry import OwnRegistry
from tests.registry_faults import cut, dropped
from tests.registry_images import fast_sources, open_image, sample_image

NAME = "library/x"


def add_signed(registry: OwnRegistry) -> str:
    """Add an image whose signature only the referrers API lists; return its digest."""
    registry.lists_referrers = True
    digest = registry.add(NAME, "latest", sample_image())
    signed = Key.generate().sign_as_referrer(digest)
    registry.blobs |= signed.blobs
    registry.add_document(NAME, None, signed.manifest)
    return digest


def test_a_connection_that_fails_during_the_list_of_referrers_is_tried_again(
    registry: OwnRegistry,
) -> None:
    digest = add_signed(registry)
    registry.misbehave(cut(20), path="/referrers/", times=1)
    registry.misbehave(dropped(), path="/referrers/", times=1, skip=1)
    with fast_sources() as sources:
        [[signature]] = attached_signatures(open_image(sources, registry), digest)
    assert signature.digest == digest
    assert registry.count("GET", "/referrers/") == 3


def test_a_mirror_without_the_referrers_api_does_not_hide_signatures(
    registry: OwnRegistry,
) -> None:
    digest = add_signed(registry)
    with OwnRegistry() as mirror:
        mirror.add(NAME, "latest", sample_image())
        settings = Settings({registry.host: RegistrySettings(mirror=mirror.url)})
        with fast_sources(settings) as sources:
            [[signature]] = attached_signatures(open_image(sources, registry), digest)
        assert mirror.count("GET", "/referrers/") == 1
    assert signature.digest == digest
