from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from publisher.errors import PublisherError
from publisher.oci.digest import check_digest, digest_of
from publisher.oci.document import Document
from publisher.oci.image import PlatformImage
from publisher.oci.reference import parse_reference
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.image import fetch_images
from publisher.sources.open import Sources
from tests.layer_builder import Image, image_index, write_layout
from tests.registry_images import AMD64, read_blob, sample_image


def write_tar(path: Path, files: Mapping[str, bytes | str]) -> Path:
    """A tar archive of files; text stands for a symbolic link."""
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
    """What Docker 1.10 to 24 saves."""
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


def test_what_docker_saves_is_read(built: Image, sources: Sources, tmp_path: Path) -> None:
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
def test_a_malformed_archive_of_old_is_an_error(
    sources: Sources, tmp_path: Path, files: dict[str, bytes | str]
) -> None:
    with pytest.raises(PublisherError):
        fetch(sources, f"docker-archive:{write_tar(tmp_path / 'bad.tar', files)}")
