from __future__ import annotations

import gzip
import json
import os
import tarfile
from pathlib import Path

import pytest
import zstandard

from publisher.errors import DigestMismatch, InvalidManifest, PublisherError
from publisher.oci.reference import parse_reference
from publisher.sources import ImageNotFound, Source, SourceError
from publisher.sources.image import fetch_images
from publisher.sources.open import Sources
from tests.layer_builder import Image, image_index, write_layout
from tests.registry_images import AMD64, read_blob, sample_image


def pack(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w") as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, str(path.relative_to(folder)), recursive=False)
    return archive


@pytest.fixture
def built() -> Image:
    return sample_image(5_000, 70_000)


@pytest.fixture
def layout(tmp_path: Path, built: Image) -> Path:
    write_layout(sample_image(100, seed=9), tmp_path / "layout", "other")
    return write_layout(built, tmp_path / "layout", "1.0")


def check(source: Source, built: Image) -> None:
    digest = source.resolve()
    assert digest == built.manifest.digest
    (found,) = fetch_images(source, [AMD64], digest)
    assert found.document == built.manifest
    for descriptor, layer in zip(found.manifest.layers, built.layers, strict=True):
        assert read_blob(source, descriptor) == layer.blob


def test_an_image_in_a_layout_is_found_by_its_tag(
    layout: Path, built: Image, sources: Sources
) -> None:
    source = sources.open(parse_reference(f"oci:{layout}:1.0"))
    check(source, built)
    assert sorted(source.tags()) == ["1.0", "other"]


@pytest.mark.parametrize("by", [":1.0", "@"])
def test_a_layout_whose_index_states_a_wrong_size_is_refused(
    layout: Path, built: Image, sources: Sources, by: str
) -> None:
    index = json.loads((layout / "index.json").read_bytes())
    for each in index["manifests"]:
        each["size"] += 1
    (layout / "index.json").write_text(json.dumps(index))
    suffix = by if by != "@" else f"@{built.manifest.digest}"
    source = sources.open(parse_reference(f"oci:{layout}{suffix}"))
    with pytest.raises(InvalidManifest, match="descriptor states"):
        fetch_images(source, [AMD64], source.resolve())


def test_an_image_in_a_layout_is_found_by_its_digest(
    layout: Path, built: Image, sources: Sources
) -> None:
    check(sources.open(parse_reference(f"oci:{layout}@{built.manifest.digest}")), built)


@pytest.mark.parametrize("form", ["plain", "gzip", "zstd"])
def test_an_archive_of_a_layout_is_read_like_the_layout(
    layout: Path, built: Image, sources: Sources, tmp_path: Path, form: str
) -> None:
    archive = pack(layout, tmp_path / "layout.tar")
    if form == "gzip":
        archive.write_bytes(gzip.compress(archive.read_bytes()))
    elif form == "zstd":
        archive.write_bytes(zstandard.compress(archive.read_bytes()))
    source = sources.open(parse_reference(f"oci-archive:{archive}:1.0"))
    check(source, built)
    assert sorted(source.tags()) == ["1.0", "other"]


def test_the_only_image_needs_no_tag(built: Image, sources: Sources, tmp_path: Path) -> None:
    layout = write_layout(built, tmp_path / "single", "whatever")
    check(sources.open(parse_reference(f"oci:{layout}")), built)
    write_layout(built, layout, "the-same-again")
    check(sources.open(parse_reference(f"oci:{layout}")), built)


def test_several_images_need_a_tag(layout: Path, sources: Sources) -> None:
    with pytest.raises(SourceError, match=r"several images.*other, 1\.0.*write oci:.*:other"):
        sources.open(parse_reference(f"oci:{layout}")).resolve()


def test_a_missing_tag_in_a_layout_is_absent_and_the_existing_ones_are_named(
    layout: Path, sources: Sources
) -> None:
    with pytest.raises(ImageNotFound, match=r"no image 2\.0.*1\.0, other.*layout:1\.0"):
        sources.open(parse_reference(f"oci:{layout}:2.0")).resolve()


def test_a_missing_folder_is_not_an_absent_image(sources: Sources, tmp_path: Path) -> None:
    """Its disk may not be mounted: only an existing layout shows that an image is absent."""
    for reference in (f"oci:{tmp_path}/gone:1.0", f"oci-archive:{tmp_path}/gone.tar:1.0"):
        with pytest.raises(SourceError) as caught:
            sources.open(parse_reference(reference)).resolve()
        assert not isinstance(caught.value, ImageNotFound)


def test_an_index_in_a_layout_is_followed(built: Image, sources: Sources, tmp_path: Path) -> None:
    layout = write_layout(built, tmp_path / "layout", "1.0")
    index = image_index({"linux/amd64": built})
    (layout / "blobs" / index.digest.replace(":", "/")).write_bytes(index.data)
    described = {
        "mediaType": index.media_type,
        "digest": index.digest,
        "size": len(index.data),
        "annotations": {"org.opencontainers.image.ref.name": "multi"},
    }
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    source = sources.open(parse_reference(f"oci:{layout}:multi"))
    (found,) = fetch_images(source, [AMD64], source.resolve())
    assert found.document == built.manifest
    assert found.index_digest == index.digest


def blob_path(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def test_a_damaged_layout_is_noticed(layout: Path, built: Image, sources: Sources) -> None:
    source = sources.open(parse_reference(f"oci:{layout}:1.0"))
    layer = built.layers[0].descriptor
    path = blob_path(layout, layer.digest)
    for data, words in (
        (path.read_bytes()[:-1], "ends after"),
        (path.read_bytes() + b"x", "longer"),
    ):
        path.write_bytes(data)
        with pytest.raises(SourceError, match=words):
            read_blob(source, layer)
    path.unlink()
    with pytest.raises(SourceError, match="the file blobs/sha256"):
        read_blob(source, layer)
    os.mkfifo(path)
    with pytest.raises(SourceError, match="not a file"):
        read_blob(source, layer)
    manifest = blob_path(layout, built.manifest.digest)
    manifest.write_bytes(manifest.read_bytes().replace(b"layer", b"lay3r"))
    with pytest.raises(DigestMismatch):
        source.manifest()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x1f\x8bnot gzip",
        b"\x28\xb5\x2f\xfdnot zstd",
        bytes(10240),
        b"x" * 20000,
    ],
)
@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive"])
def test_a_file_that_is_not_an_archive_is_an_error(
    sources: Sources, tmp_path: Path, content: bytes, transport: str
) -> None:
    file = tmp_path / "file.tar"
    file.write_bytes(content)
    with pytest.raises(PublisherError) as caught:
        sources.open(parse_reference(f"{transport}:{file}")).resolve()
    assert str(file) in str(caught.value)


def test_an_archive_that_was_cut_off_is_an_error(
    layout: Path, sources: Sources, tmp_path: Path
) -> None:
    archive = pack(layout, tmp_path / "layout.tar")
    data = archive.read_bytes()
    for size in range(512, len(data), len(data) // 7):
        archive.write_bytes(data[:size])
        with pytest.raises(PublisherError):
            source = sources.open(parse_reference(f"oci-archive:{archive}:1.0"))
            (found,) = fetch_images(source, [AMD64])
            for layer in found.manifest.layers:
                read_blob(source, layer)


def test_links_in_an_archive_stay_inside_it(sources: Sources, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"manifests": []}')
    archive = tmp_path / "evil.tar"
    for target in (str(secret), "../secret", "/etc/passwd", "index.json"):
        with tarfile.open(archive, "w") as tar:
            for name in ("oci-layout", "index.json"):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = tarfile.SYMTYPE, target
                tar.addfile(info)
        with pytest.raises(SourceError):
            sources.open(parse_reference(f"oci-archive:{archive}")).resolve()


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_a_compressed_archive_of_a_layout_is_resolved_without_temporary_files(
    layout: Path,
    built: Image,
    sources: Sources,
    tmp_path: Path,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = pack(layout, tmp_path / "layout.tar")
    data = archive.read_bytes()
    archive.write_bytes(gzip.compress(data) if form == "gzip" else zstandard.compress(data))
    monkeypatch.setattr("publisher.sources.spool.tempfile.TemporaryFile", refuse_temporary_file)
    source = sources.open(parse_reference(f"oci-archive:{archive}:1.0"))
    assert source.resolve() == built.manifest.digest
    assert source.manifest() == built.manifest


def refuse_temporary_file(**options: object) -> None:
    raise AssertionError("a temporary file was made")


def test_images_with_the_same_tag_in_a_layout_are_named_by_their_digests(
    built: Image, sources: Sources, tmp_path: Path
) -> None:
    layout = write_layout(built, tmp_path / "layout", "1.0")
    other = write_layout(sample_image(seed=8), tmp_path / "other", "1.0")
    entries = [
        json.loads((folder / "index.json").read_text())["manifests"][0]
        for folder in (layout, other)
    ]
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    with pytest.raises(SourceError, match="several images") as caught:
        sources.open(parse_reference(f"oci:{layout}:1.0")).resolve()
    named = caught.value.hint.removeprefix("write ")
    assert sources.open(parse_reference(named)).resolve() == built.manifest.digest


@pytest.mark.parametrize("name", ["a:b", "a:b:c", "with:colon/layout"])
def test_a_layout_whose_name_contains_a_colon_is_named_with_a_tag_or_a_final_colon(
    built: Image, sources: Sources, tmp_path: Path, name: str
) -> None:
    layout = write_layout(built, tmp_path / name, "1.0")
    for written in (f"oci:{layout}:1.0", f"oci:{layout}:"):
        reference = parse_reference(written)
        assert reference.location == str(layout)
        assert parse_reference(str(reference)) == reference
        check(sources.open(reference), built)
