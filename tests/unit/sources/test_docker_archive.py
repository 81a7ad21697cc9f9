from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard

from publisher.errors import PublisherError
from publisher.ingest.report import Status
from publisher.ingest.run import ingest
from publisher.oci.digest import check_digest, digest_of
from publisher.oci.document import Document
from publisher.oci.image import PlatformImage
from publisher.oci.platform import Platform
from publisher.oci.reference import parse_reference
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.image import fetch_images
from publisher.sources.open import Sources
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.layer_builder import Image, image_index, write_layout
from tests.memory_repository import MemoryRepository
from tests.registry_images import AMD64, read_blob, sample_image


def write_tar(path: Path, files: Mapping[str, bytes | str]) -> Path:
    """A tar archive of files; a text is the target of a symbolic link."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def saved(built: Image, *names: str) -> dict[str, bytes | str]:
    """Return an archive as Docker 1.10 to 24 saves it."""
    files: dict[str, bytes | str] = {}
    layers = []
    for number, layer in enumerate(built.layers):
        folder = hashlib.sha256(b"%d" % number).hexdigest()
        files |= {
            f"{folder}/VERSION": b"1.0",
            f"{folder}/json": b"{}",
            f"{folder}/layer.tar": layer.tar,
        }
        layers.append(f"{folder}/layer.tar")
    config = f"{built.image_id.partition(':')[2]}.json"
    entry = {"Config": config, "RepoTags": list(names) or None, "Layers": layers}
    return {**files, config: built.config, "manifest.json": json.dumps([entry]).encode()}


def fetch(sources: Sources, reference: str) -> PlatformImage:
    """An image with all its layers read and verified."""
    source = sources.open(parse_reference(reference))
    digest = source.resolve()
    (found,) = fetch_images(source, [AMD64], digest)
    assert found.document.digest == digest
    for layer, diff_id in zip(found.manifest.layers, found.config.diff_ids, strict=True):
        data = read_blob(source, layer)
        check_digest(data, layer.digest, "layer")
        if layer.media_type.endswith("gzip"):
            data = gzip.decompress(data)
        check_digest(data, diff_id, "diff ID")
    return found


@pytest.fixture
def built() -> Image:
    return sample_image(3_000, 20_000)


def test_an_archive_of_docker_save_is_read(built: Image, sources: Sources, tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "saved.tar", saved(built, "x:1.0"))
    found = fetch(sources, f"docker-archive:{archive}:x:1.0")
    assert found.config_document.data == built.config
    assert found.manifest.image_id == built.image_id
    assert [layer.digest for layer in found.manifest.layers] == [b.diff_id for b in built.layers]


def test_the_same_archive_gives_the_same_manifest(
    built: Image, sources: Sources, tmp_path: Path
) -> None:
    one = write_tar(tmp_path / "one.tar", saved(built, "x:1.0"))
    other = write_tar(tmp_path / "other.tar", dict(reversed(saved(built, "y:2.0").items())))
    digests = {fetch(sources, f"docker-archive:{path}").document.digest for path in (one, other)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("debian:stable", "debian:stable"),
        ("debian:stable", "docker.io/library/debian:stable"),
        ("docker.io/library/debian:stable", "debian:stable"),
        ("docker.io/group/x:1", "group/x:1"),
        ("127.0.0.1:5000/a/b:latest", "127.0.0.1:5000/a/b"),
        ("localhost/x:1", "localhost/x:1"),
    ],
)
def test_names_mean_the_same_with_and_without_docker_hub(
    built: Image, sources: Sources, tmp_path: Path, name: str, asked: str
) -> None:
    files = saved(built, name)
    entries = json.loads(files["manifest.json"])
    entries.append({"Config": "none.json", "RepoTags": ["other:1"], "Layers": []})
    files["manifest.json"] = json.dumps(entries).encode()
    files["none.json"] = sample_image(seed=4).config
    archive = write_tar(tmp_path / "saved.tar", files)
    assert fetch(sources, f"docker-archive:{archive}:{asked}").manifest.image_id == built.image_id
    with pytest.raises(SourceError, match="several images"):
        sources.open(parse_reference(f"docker-archive:{archive}"))


def test_layers_may_be_links_to_each_other(built: Image, sources: Sources, tmp_path: Path) -> None:
    files = saved(built, "x:1")
    names = [name for name in files if name.endswith("layer.tar")]
    moved = {}
    for number, name in enumerate(names):
        moved[f"shared/{number}.tar"] = files[name]
        files[name] = f"../shared/{number}.tar"
    archive = write_tar(tmp_path / "saved.tar", {**files, **moved})
    assert fetch(sources, f"docker-archive:{archive}").manifest.image_id == built.image_id


def test_layers_may_be_compressed(built: Image, sources: Sources, tmp_path: Path) -> None:
    files = saved(built, "x:1")
    for name in [name for name in files if name.endswith("layer.tar")]:
        content = files[name]
        assert isinstance(content, bytes)
        files[name] = gzip.compress(content, mtime=0)
    archive = write_tar(tmp_path / "saved.tar", files)
    found = fetch(sources, f"docker-archive:{archive}")
    assert {layer.media_type[-4:] for layer in found.manifest.layers} == {"gzip"}


def test_an_archive_from_before_docker_1_10_is_read(
    built: Image, sources: Sources, tmp_path: Path
) -> None:
    files: dict[str, bytes | str] = {}
    parent = None
    for number, layer in enumerate(built.layers):
        folder = hashlib.sha256(b"%d" % number).hexdigest()
        described = {
            "id": folder,
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"]},
        }
        if parent:
            described["parent"] = parent
        files |= {
            f"{folder}/VERSION": b"1.0",
            f"{folder}/json": json.dumps(described).encode(),
            f"{folder}/layer.tar": layer.tar,
        }
        parent = folder
    for repositories in (None, {"x": {"1.0": parent}}):
        if repositories:
            files["repositories"] = json.dumps(repositories).encode()
        archive = write_tar(tmp_path / "old.tar", files)
        found = fetch(sources, f"docker-archive:{archive}" + (":x:1.0" if repositories else ""))
        assert found.config.diff_ids == tuple(layer.diff_id for layer in built.layers)
        assert found.config.container.command == ("sh",)
    with pytest.raises(ImageNotFound, match=r"x:1\.0"):
        sources.open(parse_reference(f"docker-archive:{archive}:x:2.0"))


def test_the_layout_in_a_newer_archive_is_used_as_it_is(
    built: Image, sources: Sources, tmp_path: Path
) -> None:
    """Docker 25 and later, with its own store: manifests of uncompressed layers in a layout."""
    files = layout_files(built, tmp_path, "docker.io/library/x:1.0", built.manifest)
    files["manifest.json"] = b"[]"
    archive = write_tar(tmp_path / "new.tar", files)
    for reference in (f"docker-archive:{archive}", f"docker-archive:{archive}:x:1.0"):
        assert fetch(sources, reference).document == built.manifest
    with pytest.raises(ImageNotFound):
        sources.open(parse_reference(f"docker-archive:{archive}:x:2.0"))


def test_the_nested_index_of_an_engine_on_containerd_is_followed(
    built: Image, sources: Sources, tmp_path: Path
) -> None:
    index = image_index({"linux/amd64": built, "linux/arm64": sample_image(seed=3)})
    files = layout_files(built, tmp_path, "docker.io/library/x:1.0", index)
    files[f"blobs/{index.digest.replace(':', '/')}"] = index.data
    archive = write_tar(tmp_path / "new.tar", files)
    source = sources.open(parse_reference(f"docker-archive:{archive}:x:1.0"))
    assert source.resolve() == index.digest
    (found,) = fetch_images(source, [AMD64], index.digest)
    assert found.document == built.manifest


def layout_files(built: Image, tmp_path: Path, name: str, top: Document) -> dict[str, bytes | str]:
    folder = write_layout(built, tmp_path / "layout", "1.0")
    described = {
        "mediaType": top.media_type,
        "digest": top.digest,
        "size": len(top.data),
        "annotations": {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        },
    }
    index = {"schemaVersion": 2, "manifests": [described]}
    (folder / "index.json").write_text(json.dumps(index))
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{}",
        b"[1]",
        b"[{}]",
        b'[{"Config": "gone.json", "Layers": []}]',
        b'[{"Config": "manifest.json", "Layers": []}]',
        b'[{"Config": "config.json", "Layers": ["gone/layer.tar"]}]',
        b'[{"Config": "config.json", "Layers": 7}]',
        b'[{"Config": "config.json", "Layers": ["../../../etc/passwd"]}]',
        b'[{"Config": "config.json", "Layers": ["circle"]}]',
        b"[" * 100_000,
    ],
)
def test_a_malformed_archive_is_an_error(sources: Sources, tmp_path: Path, manifest: bytes) -> None:
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(b"x")]},
    }
    archive = write_tar(
        tmp_path / "bad.tar",
        {"manifest.json": manifest, "config.json": json.dumps(config).encode(), "circle": "circle"},
    )
    with pytest.raises(PublisherError):
        fetch(sources, f"docker-archive:{archive}")


@pytest.mark.parametrize(
    "files",
    [
        {"repositories": b"[]"},
        {"repositories": b'{"x": {"1": "gone"}}'},
        {"repositories": b'{"x": {"1": "a"}}', "a/json": b'{"parent": "a"}'},
        {"repositories": b'{"x": {"1": "a"}}', "a/json": b"7"},
        {"repositories": b'{"x": {"1": "a"}}', "a/json": b"{}"},
        {"repositories": b'{"x": 7}'},
    ],
)
def test_a_malformed_archive_from_before_docker_1_10_is_an_error(
    sources: Sources, tmp_path: Path, files: dict[str, bytes | str]
) -> None:
    with pytest.raises(PublisherError):
        fetch(sources, f"docker-archive:{write_tar(tmp_path / 'bad.tar', files)}")


def test_an_archive_with_an_empty_layout_is_read_by_its_manifest_json(
    built: Image, sources: Sources, tmp_path: Path
) -> None:
    """Docker 25 writes `docker save IMAGEID` so: the image has no name to list."""
    files = layout_files(built, tmp_path, "docker.io/library/x:1.0", built.manifest)
    files["index.json"] = b'{"schemaVersion": 2, "manifests": null}'
    blobs = [f"blobs/sha256/{layer.diff_id.partition(':')[2]}" for layer in built.layers]
    files |= dict(zip(blobs, (layer.tar for layer in built.layers), strict=True))
    config = f"blobs/sha256/{built.image_id.partition(':')[2]}"
    entry = {"Config": config, "RepoTags": None, "Layers": blobs}
    files["manifest.json"] = json.dumps([entry]).encode()
    archive = write_tar(tmp_path / "saved.tar", files)
    found = fetch(sources, f"docker-archive:{archive}")
    assert found.config_document.data == built.config


def compressed(archive: Path, form: str) -> Path:
    data = archive.read_bytes()
    archive.write_bytes(gzip.compress(data) if form == "gzip" else zstandard.compress(data))
    return archive


@pytest.mark.parametrize("form", ["gzip", "zstd"])
@pytest.mark.parametrize("layers", ["plain", "compressed"])
def test_a_compressed_archive_is_resolved_without_temporary_files(
    built: Image,
    sources: Sources,
    tmp_path: Path,
    form: str,
    layers: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = saved(built, "x:1.0")
    if layers == "compressed":
        for name in [name for name in files if name.endswith("layer.tar")]:
            content = files[name]
            assert isinstance(content, bytes)
            files[name] = gzip.compress(content, mtime=0)
    plain = fetch(sources, f"docker-archive:{write_tar(tmp_path / 'plain.tar', files)}")
    archive = compressed(write_tar(tmp_path / "saved.tar", files), form)
    with monkeypatch.context() as patch:
        patch.setattr("publisher.sources.spool.tempfile.TemporaryFile", refuse_temporary_file)
        source = sources.open(parse_reference(f"docker-archive:{archive}:x:1.0"))
        assert source.resolve() == plain.document.digest
        assert fetch_images(source, [AMD64])[0].document == plain.document
    assert fetch(sources, f"docker-archive:{archive}").document == plain.document


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
def test_a_run_that_changes_nothing_decompresses_no_archive_to_the_disk(
    built: Image, tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if transport == "docker-archive":
        files = saved(built, "x:1.0")
    else:
        files = layout_files(built, tmp_path, "1.0", built.manifest)
    archive = compressed(write_tar(tmp_path / "saved.tar", files), "gzip")
    repository = MemoryRepository()

    def run() -> Status:
        request = Request(wish_for(f"{transport}:{archive}", name="tool"))
        with Sources() as sources:  # new, as in each run
            [outcome] = ingest([request], repository, sources).outcomes
        return outcome.status

    assert run() is Status.PUBLISHED
    monkeypatch.setattr("publisher.sources.spool.tempfile.TemporaryFile", refuse_temporary_file)
    assert run() is Status.UNCHANGED


def refuse_temporary_file(**options: object) -> None:
    raise AssertionError("a temporary file was made")


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_an_archive_that_decompresses_without_end_is_refused(
    sources: Sources, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.sources.archive.MAX_UNPACKED", 1_000_000)
    archive = compressed(write_tar(tmp_path / "bomb.tar", {"a": bytes(2_000_000)}), form)
    for transport in ("docker-archive", "oci-archive"):
        with pytest.raises(SourceError, match=r"more than 1000000 bytes.*decompress the file"):
            sources.open(parse_reference(f"{transport}:{archive}")).resolve()


def test_an_archive_that_does_not_fit_into_the_temporary_folder_is_refused_before_it_is_written(
    built: Image, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = compressed(write_tar(tmp_path / "saved.tar", saved(built, "x:1.0")), "gzip")
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr("publisher.sources.archive.shutil.disk_usage", lambda folder: usage)
    monkeypatch.setattr("publisher.sources.spool.tempfile.TemporaryFile", refuse_temporary_file)
    with pytest.raises(SourceError, match=r"needs \d+ bytes in .*, which has 1000.*set TMPDIR"):
        fetch(sources, f"docker-archive:{archive}")


def test_a_hint_of_an_archive_with_several_images_can_be_written_as_it_is(
    built: Image, sources: Sources, tmp_path: Path
) -> None:
    one, other = saved(built, "x:1.0"), saved(sample_image(seed=4), "group/y:2.0")
    entries = [json.loads(files["manifest.json"])[0] for files in (one, other)]
    files = {**other, **one, "manifest.json": json.dumps(entries).encode()}
    archive = write_tar(tmp_path / "saved.tar", files)
    for written in (f"docker-archive:{archive}", f"docker-archive:{archive}:z:1.0"):
        with pytest.raises(SourceError, match=r"group/y:2\.0") as caught:
            sources.open(parse_reference(written))
        assert sources.open(parse_reference(caught.value.hint.removeprefix("write "))).resolve()


def test_a_newer_archive_of_several_images_opened_as_a_layout_names_the_docker_archive(
    built: Image, sources: Sources, tmp_path: Path
) -> None:
    files = layout_files(built, tmp_path, "docker.io/library/x:1.0", built.manifest)
    index = json.loads(files["index.json"])
    second = sample_image(seed=5)
    entry = {
        "mediaType": second.manifest.media_type,
        "digest": second.manifest.digest,
        "size": len(second.manifest.data),
        "annotations": {
            "io.containerd.image.name": "docker.io/library/y:1.0",
            "org.opencontainers.image.ref.name": "1.0",
        },
    }
    index["manifests"].append(entry)
    files["index.json"] = json.dumps(index).encode()
    files["manifest.json"] = b"[]"
    archive = write_tar(tmp_path / "new.tar", files)
    for written in (f"oci-archive:{archive}", f"oci-archive:{archive}:1.0"):
        with pytest.raises(SourceError, match="several images") as caught:
            sources.open(parse_reference(written)).resolve()
        named = parse_reference(caught.value.hint.removeprefix("write "))
        assert sources.open(named).resolve() == built.manifest.digest


def test_an_image_for_windows_names_the_platform_to_request(
    sources: Sources, tmp_path: Path
) -> None:
    built = sample_image()
    config = json.loads(built.config) | {"os": "windows", "os.version": "10.0.17763.1"}
    files = saved(replace(built, config=json.dumps(config).encode()), "x:1.0")
    archive = write_tar(tmp_path / "saved.tar", files)
    source = sources.open(parse_reference(f"docker-archive:{archive}"))
    with pytest.raises(SourceError, match=r"exists for windows/amd64.*--platform windows/amd64"):
        fetch_images(source, [AMD64])
    assert fetch_images(source, [Platform("windows", "amd64")])


@pytest.mark.parametrize(
    "change",
    [{"RepoTags": "x:1"}, {"Layers": "abc"}, {"RepoTags": [1]}, {"Layers": [None]}, {"Config": 5}],
)
def test_lists_of_docker_save_that_hold_something_else_are_malformed(
    built: Image, sources: Sources, tmp_path: Path, change: dict[str, object]
) -> None:
    files = saved(built, "x:1.0")
    [entry] = json.loads(files["manifest.json"])
    files["manifest.json"] = json.dumps([entry | change]).encode()
    archive = write_tar(tmp_path / "saved.tar", files)
    with pytest.raises(SourceError, match="format of docker save"):
        fetch(sources, f"docker-archive:{archive}")


def test_an_archive_whose_name_contains_colons_is_named_with_a_final_colon(
    built: Image, sources: Sources, tmp_path: Path
) -> None:
    other = sample_image(seed=8)
    (tmp_path / "with:colon").mkdir()
    one = write_tar(tmp_path / "with:colon/saved:1.tar", saved(built, "team/x:1.0"))
    for text in (f"docker-archive:{one}:", f"docker-archive:{one}::team/x:1.0"):
        assert fetch(sources, text).manifest.image_id == built.image_id
    first, second = saved(built, "x:1.0"), saved(other, "localhost:5000/y:2.0")
    entries = [*json.loads(first["manifest.json"]), *json.loads(second["manifest.json"])]
    both = {**first, **second, "manifest.json": json.dumps(entries).encode()}
    several = write_tar(tmp_path / "saved:2.tar", both)
    with pytest.raises(SourceError, match="several images") as caught:
        fetch(sources, f"docker-archive:{several}:")
    named = parse_reference(caught.value.hint.removeprefix("write "))
    assert named.location == str(several)
    assert sources.open(named).resolve()
