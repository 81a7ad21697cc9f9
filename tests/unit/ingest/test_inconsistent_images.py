"""Manifests and configs that do not belong together, of layers that are all published or staged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from publisher.ingest.report import Outcome, Status
from publisher.ingest.run import ingest
from publisher.oci.digest import digest_of as digest
from publisher.oci.document import Document
from publisher.oci.media_types import OCI_MANIFEST
from publisher.repository import Repository
from publisher.wishlist import Wish, wish_for
from publisher.wishlist.model import Request
from tests.layer_builder import Image, Layer, file, image, layer
from tests.registry import OwnRegistry
from tests.registry_images import fast_sources

LOWER, UPPER = layer(file("lower", b"l")), layer(file("upper", b"u"))
GOOD = image(LOWER, UPPER)


def with_layers(built: Image, layers: Sequence[Layer]) -> Image:
    """The image with a manifest that lists other layers beside the same config."""
    manifest = json.loads(built.manifest.data)
    listed = {entry["digest"]: entry for entry in manifest["layers"]}
    manifest["layers"] = [listed[each.digest] for each in layers]
    data = json.dumps(manifest).encode()
    return Image(Document(data, OCI_MANIFEST, digest(data)), built.config, built.layers)


@pytest.fixture
def registry(repository: Repository) -> Iterator[OwnRegistry]:
    """A registry of which one good image is published."""
    with OwnRegistry() as registry:
        registry.add("team/good", "1", GOOD)
        assert publish(repository, wish(registry, "team/good:1")).status is Status.PUBLISHED
        yield registry


def wish(registry: OwnRegistry, name: str) -> Wish:
    return wish_for(f"{registry.url}/{name}")


def publish(repository: Repository, requested: Wish) -> Outcome:
    with fast_sources() as sources:
        (outcome,) = ingest([Request(requested)], repository, sources).outcomes
    return outcome


@pytest.mark.parametrize("outputs", [("flat", "layers"), ("layers",)])
@pytest.mark.parametrize(
    "bad",
    [
        with_layers(GOOD, (UPPER, LOWER)),
        with_layers(GOOD, (LOWER, LOWER)),
        with_layers(GOOD, (LOWER,)),
        image(replace(LOWER, diff_id=UPPER.diff_id)),
        image(LOWER.with_descriptor(size=LOWER.descriptor.size + 1)),
    ],
    ids=["other order", "one twice", "one too few", "another diff ID", "another size"],
)
def test_an_image_whose_config_names_other_layers_is_refused_although_all_are_staged(
    repository: Repository, registry: OwnRegistry, bad: Image, outputs: tuple[str, ...]
) -> None:
    registry.add("team/bad", "1", bad)

    outcome = publish(repository, replace(wish(registry, "team/bad:1"), outputs=outputs))

    assert outcome.status is Status.FAILED, outcome
    assert list(repository.names()) == [f"{registry.host}/team/good:1"]
    assert not repository.exists(f"{registry.host}/team/bad:1")
