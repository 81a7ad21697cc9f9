"""The signatures of an image are read from registries of every kind, also from bad ones."""

from __future__ import annotations

import json

import pytest

from publisher.ingest.signatures import CosignSignatures
from publisher.policy.cosign import bundled_signatures
from publisher.policy.model import SignatureRule
from publisher.sources import SourceError
from publisher.sources.settings import RegistrySettings, Settings
from publisher.sources.signatures import MAX_SIGNATURES, attached_signatures
from tests.cosign import ARTIFACT, Key, signature_manifest, tag_of
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


def test_the_signatures_of_an_image_are_read_once_for_all_rules(registry: OwnRegistry) -> None:
    first, second, other = (Key.generate() for _ in range(3))
    registry.lists_referrers = True
    digest = registry.add(NAME, "latest", sample_image())
    for signed, tag in ((first.sign(digest), tag_of(digest)), (second.sign_in_bundle(digest), "b")):
        registry.blobs |= signed.blobs
        registry.add_document(NAME, tag, signed.manifest)
    keys = {"1": first, "2": second, "3": other}
    public = {path: key.private.public_key() for path, key in keys.items()}

    def whys(*paths: str) -> list[str]:
        rules = [SignatureRule(("*",), (path,)) for path in paths]
        before = registry.count("GET")
        with fast_sources() as sources:
            source = open_image(sources, registry)
            found = CosignSignatures(public, {}).why_unsigned(source, digest, rules)
        counts.append(registry.count("GET") - before)
        return found

    counts: list[int] = []
    assert whys("1", "1") == ["", ""]
    assert whys("2") == [""]
    assert whys("1", "2", "3") == ["", "", "none of its signatures is by an accepted key"]
    # A manifest and its payload; for both signatures, also the list of referrers.
    assert counts == [2, 5, 5]


def test_a_registry_cannot_send_signatures_without_end(registry: OwnRegistry) -> None:
    registry.lists_referrers = True
    digest = registry.add(NAME, "latest", sample_image())
    key = Key.generate()
    for number in range(MAX_SIGNATURES + 1):
        empty = signature_manifest(
            b"", "", layers=[], artifactType=ARTIFACT, subject={"digest": digest}, n=number
        )
        registry.add_document(NAME, None, empty.manifest)
    with fast_sources() as sources:
        with pytest.raises(SourceError, match=f"more than {MAX_SIGNATURES}") as caught:
            list(attached_signatures(open_image(sources, registry), digest))
    assert caught.value.hint
    assert registry.count("GET", "/manifests/sha256:") == MAX_SIGNATURES + 1
    bundle = key.bundle(digest)
    bundle["dsseEnvelope"]["signatures"] *= 1000
    assert bundled_signatures(json.dumps(bundle).encode()) == []
