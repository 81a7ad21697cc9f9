"""The real images that system tests publish are what they claim to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.components import docker_registry, podman, run
from tests.real_image import PACKAGES, RealImages

pytestmark = pytest.mark.system


def layers_of(images: RealImages, tag: str) -> list[tuple[str, str]]:
    """(media type, digest) of the layers of one tag."""
    index = json.loads((images.layout / "index.json").read_bytes())
    (digest,) = [
        entry["digest"]
        for entry in index["manifests"]
        if entry["annotations"]["org.opencontainers.image.ref.name"] == tag
    ]
    manifest = json.loads((images.layout / "blobs" / digest.replace(":", "/")).read_bytes())
    return [(layer["mediaType"], layer["digest"]) for layer in manifest["layers"]]


def test_the_images_share_their_lower_layers(real_images: RealImages) -> None:
    base, python, numpy = (layers_of(real_images, tag) for tag in ("base", "python", "numpy"))
    assert numpy[: len(python)] == python
    assert python[: len(base)] == base
    assert 1 == len(base) < len(python) < len(numpy)
    assert {media_type.rpartition("+")[2] for media_type, _ in numpy} == {"gzip"}


def test_the_zstd_variant_has_zstd_layers(real_images: RealImages) -> None:
    zstd = layers_of(real_images, "numpy-zstd")
    assert {media_type.rpartition("+")[2] for media_type, _ in zstd} == {"zstd"}
    assert len(zstd) == len(layers_of(real_images, "numpy"))


def test_the_top_layer_has_real_whiteouts_and_opaque_markers(real_images: RealImages) -> None:
    _, digest = layers_of(real_images, "numpy")[-1]
    names = run("tar", "-tzf", real_images.layout / "blobs" / digest.replace(":", "/")).split("\n")
    packages = PACKAGES.lstrip("/")
    assert {"etc/.wh.motd", f"{packages}/numpy/.wh.py.typed"} <= set(names)
    assert {"usr/share/doc/.wh..wh..opq", "etc/issue/.wh..wh..opq"} <= set(names)


def test_podman_runs_the_command_of_the_zstd_variant(
    real_images: RealImages, tmp_path: Path
) -> None:
    with (
        docker_registry(tmp_path / "registry") as registry,
        podman(tmp_path / "podman") as engine,
    ):
        reference = registry.push(real_images.source("numpy-zstd"), "numpy:zstd")
        engine("pull", "--quiet", "--tls-verify=false", reference)
        assert engine.run(reference) == "45\n"
