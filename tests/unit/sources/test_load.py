"""Many images: what a run with nothing to do costs, and what an unreliable registry does to one."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

from publisher.oci.digest import check_digest
from publisher.sources.image import fetch_images
from publisher.sources.open import Sources
from tests.registry import OwnRegistry
from tests.registry_faults import Unreliable
from tests.registry_images import AMD64, open_image, read_blob, sample_image

WISHES = 1000


def test_a_thousand_wishes_with_nothing_new_are_a_thousand_heads_on_few_connections(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = sample_image()
    for number in range(WISHES):
        registry.add(f"group/image-{number}", "latest", built)
    names = [f"group/image-{number}:latest" for number in range(WISHES)]

    def resolve(name: str) -> str:
        return open_image(sources, registry, name).resolve()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(resolve, names[:20])) == {built.manifest.digest}
        assert set(pool.map(resolve, names)) == {built.manifest.digest}
    assert [r.method for r in registry.requests] == ["HEAD"] * (WISHES + 20)
    assert registry.connections <= 4


def test_resolving_leaves_nothing_behind_in_memory(registry: OwnRegistry, sources: Sources) -> None:
    registry.add("library/x", "latest", sample_image())

    def resolve(times: int) -> None:
        for _ in range(times):
            open_image(sources, registry).resolve()
        registry.requests.clear()

    resolve(100)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    resolve(300)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000


def test_a_run_through_an_unreliable_registry_gets_every_byte(
    registry: OwnRegistry, sources: Sources
) -> None:
    images = {f"group/image-{n}": sample_image(5_000, 20_000, seed=n) for n in range(200)}
    for name, built in images.items():
        registry.add(name, "latest", built)
    unreliable = Unreliable(0.2, seed=7)
    registry.misbehave(unreliable)

    def fetch(name: str) -> None:
        source = open_image(sources, registry, name)
        digest = source.resolve()
        (image,) = fetch_images(source, [AMD64], digest)
        assert image.document == images[name].manifest
        for layer in image.manifest.layers:
            data = read_blob(source, layer)
            check_digest(data, layer.digest, name)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(fetch, name) for name in images]:
            future.result()
    needed = 5 * len(images)  # HEAD, manifest, config, two layers
    assert unreliable.failures > needed // 10
    assert registry.count() <= needed + 2 * unreliable.failures
