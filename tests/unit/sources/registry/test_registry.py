from __future__ import annotations

import gzip
import logging
import socket
import tracemalloc
from dataclasses import replace

import pytest

from publisher.errors import DigestMismatch, InvalidManifest
from publisher.oci.digest import digest_of
from publisher.oci.document import Document
from publisher.oci.media_types import DOCKER_SCHEMA1
from publisher.oci.reference import parse_reference
from publisher.sources import AuthenticationFailed, ImageNotFound, SourceError
from publisher.sources.image import fetch_images
from publisher.sources.open import Sources
from tests.clocks import SkippingClock
from tests.layer_builder import image_index
from tests.registry import Change, OwnRegistry, error_reply, json_reply
from tests.registry_faults import (
    corrupt,
    cut,
    html,
    huge,
    redirect,
    reset,
    shorter,
    slow,
    status,
    with_digest,
    without_digest,
)
from tests.registry_images import AMD64, fast_sources, open_image, read_blob, sample_image


def test_a_tag_is_resolved_by_one_head_request(registry: OwnRegistry, sources: Sources) -> None:
    digest = registry.add("library/x", "latest", sample_image())
    assert open_image(sources, registry).resolve() == digest
    assert [request.method for request in registry.requests] == ["HEAD"]


def test_the_manifest_is_kept_byte_for_byte(registry: OwnRegistry, sources: Sources) -> None:
    built = sample_image()
    registry.add("library/x", "latest", built)
    assert open_image(sources, registry).manifest() == built.manifest


@pytest.mark.parametrize("code", [400, 403, 405, 406, 501])
def test_get_is_used_where_a_registry_refuses_head(
    registry: OwnRegistry, sources: Sources, code: int
) -> None:
    digest = registry.add("library/x", "latest", sample_image())
    registry.misbehave(status(code), method="HEAD")
    assert open_image(sources, registry).resolve() == digest


def test_get_is_used_where_a_registry_sends_no_digest(
    registry: OwnRegistry, sources: Sources
) -> None:
    digest = registry.add("library/x", "latest", sample_image())
    registry.misbehave(without_digest())
    assert open_image(sources, registry).resolve() == digest


def test_a_registry_with_neither_digest_nor_manifest_is_an_error(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.misbehave(html())
    with pytest.raises(SourceError, match=r"web page.*may not be a registry"):
        open_image(sources, registry).resolve()


@pytest.mark.parametrize("code", [408, 500, 502, 503, 504])
def test_a_temporary_fault_is_tried_again(
    registry: OwnRegistry, sources: Sources, code: int
) -> None:
    digest = registry.add("library/x", "latest", sample_image())
    registry.misbehave(status(code), times=4)
    assert open_image(sources, registry).resolve() == digest
    assert registry.count("HEAD") == 5


def test_a_lasting_fault_is_an_error_after_five_tries(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.misbehave(status(503))
    with pytest.raises(SourceError, match=r"status 503 \(tried 5 times\)") as caught:
        open_image(sources, registry).manifest()
    assert not isinstance(caught.value, ImageNotFound)
    assert registry.count() == 5


def test_a_connection_that_is_reset_is_tried_again(registry: OwnRegistry, sources: Sources) -> None:
    built = sample_image()
    registry.add("library/x", "latest", built)
    registry.misbehave(reset(), times=3)
    assert open_image(sources, registry).manifest() == built.manifest


def test_a_manifest_that_breaks_off_is_requested_again(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = sample_image()
    registry.add("library/x", "latest", built)
    registry.misbehave(cut(20), times=2)
    registry.misbehave(reset(20), times=1, skip=2)
    assert open_image(sources, registry).manifest() == built.manifest


@pytest.mark.parametrize("code", [400, 404, 410, 418])
def test_answers_are_not_tried_again(registry: OwnRegistry, sources: Sources, code: int) -> None:
    registry.misbehave(status(code), path="/manifests/")
    with pytest.raises(SourceError):
        open_image(sources, registry).manifest()
    assert registry.count(path="/manifests/") == 1


def test_a_registry_that_cannot_be_reached_is_an_error_with_the_cause() -> None:
    with OwnRegistry() as gone:
        pass
    clock = SkippingClock()
    with fast_sources(clock=clock) as sources:
        with pytest.raises(SourceError, match=r"Connection refused \(tried 5 times\)"):
            open_image(sources, gone).resolve()
        assert len(clock.waits) == 4
        with pytest.raises(SourceError, match="shortly before: Connection refused"):
            open_image(sources, gone, "library/y").resolve()
        assert len(clock.waits) == 4, "it is not tried again"


def test_a_host_without_an_address_is_an_error_but_not_an_absent_image(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)  # a test asks no name server
    with pytest.raises(SourceError, match=r"not known \(tried 5 times\)") as caught:
        sources.open(parse_reference("registry.example.org/x")).resolve()
    assert not isinstance(caught.value, ImageNotFound)


def test_a_404_with_a_registrys_error_document_means_that_the_image_does_not_exist(
    registry: OwnRegistry, sources: Sources
) -> None:
    with pytest.raises(ImageNotFound):
        open_image(sources, registry).resolve()
    registry.add("library/x", "other", sample_image())
    with pytest.raises(ImageNotFound):
        open_image(sources, registry).manifest()
    with pytest.raises(ImageNotFound):
        list(open_image(sources, registry, "library/y").tags())


@pytest.mark.parametrize("code", ["MANIFEST_UNKNOWN", "NAME_UNKNOWN"])
def test_a_missing_image_may_be_reported_with_another_status_than_404(
    registry: OwnRegistry, sources: Sources, code: str
) -> None:
    registry.misbehave(lambda request, reply: error_reply(400, code))
    with pytest.raises(ImageNotFound):
        open_image(sources, registry).manifest()


def test_a_404_from_a_host_that_is_not_a_registry_does_not_mean_that_the_image_is_absent(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.misbehave(html(404))
    with pytest.raises(SourceError) as caught:
        open_image(sources, registry).resolve()
    assert not isinstance(caught.value, ImageNotFound)
    registry.heal()
    registry.misbehave(status(404))
    with pytest.raises(SourceError) as caught:
        open_image(sources, registry).resolve()
    assert not isinstance(caught.value, ImageNotFound)


def test_a_bare_404_counts_where_the_registry_otherwise_works(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.misbehave(status(404), path="/manifests/")
    with pytest.raises(ImageNotFound):
        open_image(sources, registry).resolve()


@pytest.mark.parametrize("code", [500, 502, 503, 403, 400])
def test_no_other_answer_means_an_absent_image(
    registry: OwnRegistry, sources: Sources, code: int
) -> None:
    registry.misbehave(status(code))
    with pytest.raises(SourceError) as caught:
        open_image(sources, registry).resolve()
    assert not isinstance(caught.value, ImageNotFound)


def test_a_403_is_a_matter_of_permission(registry: OwnRegistry, sources: Sources) -> None:
    registry.misbehave(lambda request, reply: error_reply(403, "DENIED", "not for you"))
    with pytest.raises(AuthenticationFailed, match=r"403.*DENIED not for you"):
        open_image(sources, registry).manifest()


def test_a_manifest_with_another_digest_than_requested_is_refused(
    registry: OwnRegistry, sources: Sources
) -> None:
    digest = registry.add("library/x", "latest", sample_image())
    registry.misbehave(corrupt())
    for source in (
        open_image(sources, registry),
        open_image(sources, registry, f"library/x@{digest}"),
    ):
        with pytest.raises(DigestMismatch) as caught:
            source.manifest()
        assert caught.value.expected == digest
        assert caught.value.actual in str(caught.value)


def test_a_pinned_digest_is_what_counts_not_the_header(
    registry: OwnRegistry, sources: Sources
) -> None:
    digest = registry.add("library/x", "latest", sample_image())
    other = digest_of(b"other")
    registry.misbehave(with_digest(other))
    with pytest.raises(DigestMismatch):
        open_image(sources, registry).manifest()
    assert open_image(sources, registry, f"library/x@{digest}").manifest().digest == digest


def test_sha512_digests_are_verified_too(registry: OwnRegistry, sources: Sources) -> None:
    built = sample_image().manifest
    digest = digest_of(built.data, "sha512")
    registry.add_document("library/x", "latest", Document(built.data, built.media_type, digest))
    assert open_image(sources, registry).manifest().digest == digest
    registry.misbehave(corrupt())
    with pytest.raises(DigestMismatch):
        open_image(sources, registry, f"library/x@{digest}").manifest()


def test_a_huge_manifest_is_refused_without_reading_it(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.add("library/x", "latest", sample_image())
    for announced in (True, False):
        registry.heal()
        registry.misbehave(huge(50_000_000, announced=announced), method="GET")
        with pytest.raises(SourceError, match="longer than"):
            open_image(sources, registry).manifest()


def test_a_manifest_may_come_compressed_if_it_comes_whole(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = sample_image()
    registry.add("library/x", "latest", built)

    def compressed(length: int | None = None) -> Change:
        return lambda request, reply: replace(
            reply.with_headers(content_encoding="gzip"), body=gzip.compress(reply.body)[:length]
        )

    source = open_image(sources, registry)
    registry.misbehave(compressed(-9), method="GET", times=1)
    registry.misbehave(compressed(), method="GET", skip=1, times=1)
    assert source.manifest() == built.manifest
    assert registry.count("GET") == 2, "what ended early was asked for again"
    registry.misbehave(lambda request, reply: reply.with_headers(content_encoding="gzip"))
    with pytest.raises(SourceError, match="gzip encoding is corrupt"):
        source.manifest()


def test_a_small_answer_that_decompresses_to_a_huge_document_is_refused(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.add("library/x", "latest", sample_image())
    bomb = gzip.compress(bytes(100_000_000))
    registry.misbehave(
        lambda request, reply: replace(reply.with_headers(content_encoding="gzip"), body=bomb)
    )
    tracemalloc.start()
    with pytest.raises(SourceError, match="is longer than 8388608 bytes"):
        open_image(sources, registry).manifest()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000


def test_the_missing_image_of_an_index_is_named(registry: OwnRegistry, sources: Sources) -> None:
    built = sample_image()
    registry.add_document("library/x", "latest", image_index({"linux/amd64": built}))
    with pytest.raises(ImageNotFound, match=f"manifest {built.manifest.digest} of http"):
        fetch_images(open_image(sources, registry), [AMD64])


def test_schema_1_is_refused_by_its_name(registry: OwnRegistry, sources: Sources) -> None:
    data = b'{"schemaVersion": 1, "name": "library/x", "tag": "latest", "fsLayers": []}'
    document = Document(data, DOCKER_SCHEMA1[1], digest_of(data))
    registry.add_document("library/x", "latest", document)
    assert open_image(sources, registry).manifest().media_type in DOCKER_SCHEMA1


def test_json_that_is_not_a_manifest_is_refused(registry: OwnRegistry, sources: Sources) -> None:
    registry.misbehave(lambda request, reply: json_reply(200, {"hello": "world"}))
    with pytest.raises(InvalidManifest):
        open_image(sources, registry).manifest()


def test_redirects_are_followed(registry: OwnRegistry, sources: Sources) -> None:
    built = sample_image()
    with OwnRegistry() as storage:
        storage.add("library/x", "latest", built)
        registry.misbehave(redirect(storage.url + "{path}?signature=s3cret"))
        source = open_image(sources, registry)
        assert source.manifest() == built.manifest
        assert read_blob(source, built.layers[0].descriptor) == built.layers[0].blob


def test_a_circle_of_redirects_ends(registry: OwnRegistry, sources: Sources) -> None:
    registry.misbehave(redirect(registry.url + "{path}"))
    with pytest.raises(SourceError, match="redirects"):
        open_image(sources, registry).resolve()
    assert registry.count() < 10


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[/", "gopher:x"]
)
def test_a_redirect_to_something_that_is_not_http_is_an_error(
    registry: OwnRegistry, sources: Sources, target: str
) -> None:
    registry.misbehave(redirect(target))
    with pytest.raises(SourceError):
        open_image(sources, registry).manifest()


def test_a_failure_of_storage_behind_a_redirect_is_tried_again_from_the_registry(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = sample_image()
    with OwnRegistry() as storage:
        storage.add("library/x", "latest", built)
        storage.misbehave(status(503), times=2)
        registry.misbehave(redirect(storage.url + "{path}"), path="/blobs/")
        source = open_image(sources, registry)
        assert read_blob(source, built.layers[0].descriptor) == built.layers[0].blob
    assert registry.count("GET", "/blobs/") == 3


def test_a_config_is_verified(registry: OwnRegistry, sources: Sources) -> None:
    built = sample_image()
    registry.add("library/x", "latest", built)
    from publisher.oci.manifest import parse_manifest

    descriptor = parse_manifest(built.manifest).config
    assert open_image(sources, registry).fetch(descriptor) == built.config
    registry.misbehave(corrupt(), path="/blobs/")
    with pytest.raises(DigestMismatch):
        open_image(sources, registry).fetch(descriptor)
    registry.heal()
    registry.misbehave(shorter(), path="/blobs/")
    with pytest.raises(SourceError, match="the manifest states"):
        open_image(sources, registry).fetch(descriptor)


def test_a_slow_registry_is_waited_for(registry: OwnRegistry, sources: Sources) -> None:
    built = sample_image()
    registry.add("library/x", "latest", built)
    registry.misbehave(slow(delay=0.2, pause=0.01, piece=200))
    assert open_image(sources, registry).manifest() == built.manifest


def test_requests_are_logged_without_queries_or_headers(
    registry: OwnRegistry, sources: Sources, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="publisher")
    built = sample_image()
    with OwnRegistry() as storage:
        storage.add("library/x", "latest", built)
        registry.misbehave(redirect(storage.url + "{path}?signature=s3cret"))
        open_image(sources, registry).resolve()
    lines = [record.getMessage() for record in caplog.records]
    path = "/v2/library/x/manifests/latest"
    assert f"HEAD {registry.host}{path} 307 (try 1)" in lines
    assert f"HEAD {storage.host}{path} 200 (try 1)" in lines
    assert "s3cret" not in caplog.text


def test_a_pinned_image_is_resolved_without_a_request(
    registry: OwnRegistry, sources: Sources
) -> None:
    digest = registry.add("library/x", "latest", sample_image())
    registry.misbehave(status(500))
    assert open_image(sources, registry, f"library/x:latest@{digest}").resolve() == digest
    assert registry.count() == 0


def test_a_missing_tag_is_an_error_that_names_the_nearest_ones(
    registry: OwnRegistry, sources: Sources
) -> None:
    for tag in ("1.7.0", "1.7.12", "1.8", "latest"):
        registry.add("library/x", tag, sample_image())
    source = open_image(sources, registry, "library/x:1.7.13")
    for ask in (source.resolve, source.manifest):
        with pytest.raises(ImageNotFound, match=r"nearest tags: 1\.7\.12, 1\.7\.0") as caught:
            ask()
        assert caught.value.nearest[:2] == ("1.7.12", "1.7.0")
    registry.misbehave(status(403), path="/tags/")
    with pytest.raises(ImageNotFound, match=r"does not have it$"):
        open_image(sources, registry, "library/x:1.7.13").resolve()


def test_the_digest_of_a_manifest_may_be_a_sha512_one(
    registry: OwnRegistry, sources: Sources
) -> None:
    built = sample_image()
    registry.add("library/x", "latest", built)
    digest = digest_of(built.manifest.data, "sha512")
    registry.misbehave(with_digest(digest), path="/manifests/")
    source = open_image(sources, registry)
    assert source.resolve() == digest
    assert source.manifest().digest == digest
    document = Document(built.manifest.data, built.manifest.media_type, digest)
    registry.add_document("library/x", None, document)
    for name in ("library/x", f"library/x@{digest}"):
        source = open_image(sources, registry, name)
        (found,) = fetch_images(source, [AMD64], source.resolve())
        assert found.document == document
