from __future__ import annotations

from dataclasses import replace

import pytest

from publisher.sources import ImageNotFound, SourceError
from publisher.sources.open import Sources
from tests.registry import OwnRegistry
from tests.registry_faults import (
    cut,
    endless,
    longer,
    longer_unannounced,
    reset,
    shorter,
    slow,
    status,
)
from tests.registry_images import open_image, read_blob, sample_image

SIZE = 300_000


@pytest.mark.parametrize("breakage", [reset, cut])
def test_a_blob_that_breaks_is_continued_where_it_broke(
    registry: OwnRegistry, sources: Sources, breakage: object
) -> None:
    built = sample_image(SIZE)
    registry.add("library/x", "latest", built)
    registry.misbehave(breakage(100_000), path="/blobs/", times=2)  # type: ignore[operator]
    layer = built.layers[0]
    assert read_blob(open_image(sources, registry), layer.descriptor) == layer.blob
    ranges = [request.headers.get("range") for request in registry.seen("GET", "/blobs/")]
    assert ranges[0] is None
    assert len(ranges) == 3
    begins = [int(value.removeprefix("bytes=").rstrip("-")) for value in ranges[1:] if value]
    assert begins == sorted(begins)
    assert 0 < begins[0] <= 100_000


def test_a_blob_is_read_from_the_start_where_a_registry_ignores_ranges(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = sample_image(SIZE)
    layer = built.layers[0]
    registry.add("library/x", "latest", built)
    registry.misbehave(
        lambda request, reply: replace(reply, status=200, body=layer.blob).with_headers(
            content_range=None
        ),
        path="/blobs/",
    )
    registry.misbehave(cut(100_000), path="/blobs/", times=2)
    assert read_blob(open_image(sources, registry), layer.descriptor) == layer.blob
    assert registry.count("GET", "/blobs/") == 3


def test_a_registry_that_refuses_ranges_is_read_from_the_start(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = sample_image(SIZE)
    layer = built.layers[0]
    registry.add("library/x", "latest", built)
    registry.misbehave(cut(100_000), path="/blobs/", times=1)
    registry.misbehave(status(416), path="/blobs/", skip=1, times=1)
    assert read_blob(open_image(sources, registry), layer.descriptor) == layer.blob


def test_another_range_than_requested_is_not_used(registry: OwnRegistry, sources: Sources) -> None:
    built = sample_image(SIZE)
    layer = built.layers[0]
    registry.add("library/x", "latest", built)
    registry.misbehave(cut(100_000), path="/blobs/", times=1)
    wrong = f"bytes 5-{len(layer.blob) - 1}/{len(layer.blob)}"
    registry.misbehave(
        lambda request, reply: replace(reply, status=206).with_headers(content_range=wrong),
        path="/blobs/",
        skip=1,
        times=1,
    )
    assert read_blob(open_image(sources, registry), layer.descriptor) == layer.blob


def test_a_blob_without_progress_is_an_error(registry: OwnRegistry, sources: Sources) -> None:
    built = sample_image(SIZE)
    registry.add("library/x", "latest", built)
    registry.misbehave(reset(10), path="/blobs/")
    with pytest.raises(SourceError, match=r"after \d+ of \d+ bytes.*tried 5 times"):
        read_blob(open_image(sources, registry), built.layers[0].descriptor)
    assert registry.count("GET", "/blobs/") == 5


def test_a_large_blob_may_break_off_often_as_long_as_it_makes_progress(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = sample_image(12_000_000)
    layer = built.layers[0]
    registry.add("library/x", "latest", built)
    registry.misbehave(cut(1_200_000), path="/blobs/")
    assert read_blob(open_image(sources, registry), layer.descriptor) == layer.blob
    assert registry.count("GET", "/blobs/") == 11


@pytest.mark.parametrize("fault", [shorter(), longer()])
def test_a_length_that_contradicts_the_manifest_is_an_error(
    registry: OwnRegistry, sources: Sources, fault: object
) -> None:
    built = sample_image(SIZE)
    registry.add("library/x", "latest", built)
    registry.misbehave(fault, path="/blobs/")  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=r"it has \d+ bytes; the manifest states \d+"):
        read_blob(open_image(sources, registry), built.layers[0].descriptor)


@pytest.mark.parametrize("fault", [longer_unannounced(), endless()])
def test_no_more_bytes_are_read_than_the_manifest_states(
    registry: OwnRegistry, sources: Sources, fault: object
) -> None:
    built = sample_image(SIZE)
    registry.add("library/x", "latest", built)
    registry.misbehave(fault, path="/blobs/")  # type: ignore[arg-type]
    received = 0
    with (
        pytest.raises(SourceError, match="longer than"),
        open_image(sources, registry).blob(built.layers[0].descriptor) as chunks,
    ):
        for chunk in chunks:
            received += len(chunk)
    assert received <= built.layers[0].descriptor.size


def test_a_blob_is_read_as_sent_whatever_content_encoding_claims(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = sample_image(SIZE)
    layer = built.layers[0]
    registry.add("library/x", "latest", built)
    registry.misbehave(
        lambda request, reply: reply.with_headers(content_encoding="gzip"), path="/blobs/"
    )
    assert read_blob(open_image(sources, registry), layer.descriptor) == layer.blob
    assert registry.seen("GET", "/blobs/")[0].headers["accept-encoding"] == "identity"


def test_a_blob_without_a_length_is_read_to_its_end(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = sample_image(SIZE)
    layer = built.layers[0]
    registry.add("library/x", "latest", built)
    registry.misbehave(lambda request, reply: replace(reply, chunked=True), path="/blobs/")
    assert read_blob(open_image(sources, registry), layer.descriptor) == layer.blob


def test_a_consumer_that_stops_early_frees_the_connection(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = sample_image(3_000_000)
    registry.add("library/x", "latest", built)
    source = open_image(sources, registry)
    for _ in range(10):  # more than may be in flight at once
        with source.blob(built.layers[0].descriptor) as chunks:
            assert next(chunks)
    assert source.resolve() == built.manifest.digest


def test_a_missing_blob_is_an_error(registry: OwnRegistry, sources: Sources) -> None:
    built = sample_image(SIZE)
    registry.add("library/x", "latest", built)
    registry.blobs.clear()
    with pytest.raises(ImageNotFound):
        read_blob(open_image(sources, registry), built.layers[0].descriptor)


def test_a_foreign_layer_is_fetched_from_the_urls_in_its_descriptor(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = sample_image(SIZE)
    layer = built.layers[0]
    with OwnRegistry() as elsewhere:
        elsewhere.add("a/b", "c", built)
        url = f"{elsewhere.url}/v2/a/b/blobs/{layer.digest}"
        descriptor = replace(layer.descriptor, urls=(url,))
        assert read_blob(open_image(sources, registry), descriptor) == layer.blob


def test_a_blob_that_arrives_too_slowly_counts_as_broken(
    registry: OwnRegistry, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.sources.http.connections.SLOW_AFTER", 0.1)
    built = sample_image(SIZE)
    registry.add("library/x", "latest", built)
    registry.misbehave(slow(pause=0.05, piece=10), path="/blobs/")
    with pytest.raises(SourceError, match="bytes arrived in"):
        read_blob(open_image(sources, registry), built.layers[0].descriptor)
