"""Thin images: the config of the original, reproducible bytes, and standard formats."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.entry import Entry, EntryType, Generated
from publisher.oci.config import parse_config
from publisher.oci.digest import digest_of
from publisher.oci.document import Document
from publisher.oci.index import parse_index
from publisher.oci.manifest import parse_manifest
from publisher.oci.media_types import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
)
from publisher.thin import ThinImageError, archive
from publisher.thin.image import Original, ThinImage, build_image, build_set
from publisher.thin.recipe import Recipe, RecipeLayer, base_url, flat_recipe, layered_recipe
from publisher.thin.save import save_layout
from tests.schemas import ROOT, recipe_schema

SETTINGS: dict[str, Any] = {
    "Env": ["PATH=/usr/bin", "WITH=a b'c\"d$e\\f\ng", "EMPTY="],
    "Entrypoint": ["/bin/sh", "-c"],
    "Cmd": ["echo 'a b'"],
    "User": "nobody:daemon",
    "WorkingDir": "/srv",
    "Volumes": {"/data": {}},
    "ExposedPorts": {"80/tcp": {}},
    "Labels": {"org.example": "ä"},
    "StopSignal": "SIGINT",
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30000000000},
    "Shell": ["/bin/bash", "-c"],
    "x-unknown": [1, None],
}
CONFIG: dict[str, Any] = {
    "architecture": "arm",
    "variant": "v7",
    "os": "linux",
    "os.features": ["a"],
    "created": "2026-01-02T03:04:05Z",
    "author": "somebody",
    "config": SETTINGS,
    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"]},
    "history": [{"created_by": "one"}, {"created_by": "env", "empty_layer": True}, {}],
    "docker_version": "20",
}
LAYERS = [f"sha256:{'c' * 64}", f"sha256:{'d' * 64}"]
NAME = "quay.io/a/b:1"


def original(media_type: str = OCI_MANIFEST, **config: Any) -> Original:
    data = json.dumps(CONFIG | config).encode()
    return Original(
        NAME,
        f"sha256:{'e' * 64}",
        media_type,
        parse_config(data, digest_of(data)),
        data,
        {"Org.X": "y"},
    )


def build(image: Original, url: str = "cvmfs://images.example.org") -> ThinImage:
    return build_image(image, layered_recipe(f"https://{image.name}@{image.digest}", url, LAYERS))


def contents(image: ThinImage) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(image.layer.data))) as opened:
        found = {}
        for member in opened:
            file = opened.extractfile(member) if member.isreg() else None
            found[member.name] = (member, file.read() if file else b"")
        return found


def test_the_config_is_kept_except_layers_history_and_the_mark() -> None:
    thin = json.loads(build(original()).config.data)
    kept = {key: value for key, value in thin.items() if key not in ("rootfs", "history")}
    env = [*SETTINGS["Env"], "CVMFS_IMAGE=true"]
    expected = CONFIG | {"config": SETTINGS | {"Env": env}}
    assert kept == {k: v for k, v in expected.items() if k not in ("rootfs", "history")}


def test_the_thin_image_of_a_thin_image_has_the_mark_once() -> None:
    config = json.loads(build(original()).config.data)
    again = json.loads(build(original(**config)).config.data)
    assert [v for v in again["config"]["Env"] if v.startswith("CVMFS")] == ["CVMFS_IMAGE=true"]


@pytest.mark.parametrize("settings", [None, {}, {"Env": None}])
def test_an_empty_config_gets_only_the_mark(settings: Any) -> None:
    thin = json.loads(build(original(config=settings)).config.data)
    assert thin["config"] == {"Env": ["CVMFS_IMAGE=true"]}


def test_the_history_has_as_many_steps_with_a_layer_as_there_are_layers() -> None:
    thin = json.loads(build(original()).config.data)
    with_layer = [step for step in thin["history"] if not step.get("empty_layer")]
    assert len(with_layer) == len(thin["rootfs"]["diff_ids"]) == 1
    assert [step.get("created_by") for step in thin["history"][:2]] == ["one", "env"]


def test_the_layer_contains_only_the_recipe_and_has_the_diff_id_of_the_config() -> None:
    thin = build(original())
    found = contents(thin)
    assert list(found) == ["thin.json"], "where the caller gives no other files"
    member, data = found["thin.json"]
    assert (member.mode, member.uid, member.gid, member.mtime) == (0o644, 0, 0, 0)
    assert data == thin.recipe.to_bytes()
    diff_ids = json.loads(thin.config.data)["rootfs"]["diff_ids"]
    assert diff_ids == [digest_of(gzip.decompress(thin.layer.data))]


def test_files_for_engines_follow_the_recipe_with_their_own_metadata() -> None:
    files = (
        Generated(Entry("etc", EntryType.DIRECTORY, 0o711, 1, 2, mtime_ns=5)),
        Generated(Entry("etc/passwd", EntryType.FILE, 0o600, 3, 2**31), b"root:"),
        Generated(Entry("ä\udcff" * 99, EntryType.SYMLINK, target="run")),
    )
    thin = build_image(original(), layered_recipe("o", "cvmfs://x", LAYERS), files)
    found = contents(thin)
    assert list(found) == ["thin.json", "etc", "etc/passwd", "ä\udcff" * 99]
    shown = [(m.type, m.mode, m.uid, m.gid, m.mtime, m.linkname) for m, _ in found.values()]
    assert shown[1:] == [
        (tarfile.DIRTYPE, 0o711, 1, 2, 0, ""),
        (tarfile.REGTYPE, 0o600, 3, 2**31, 0, ""),
        (tarfile.SYMTYPE, 0o644, 0, 0, 0, "run"),
    ]
    assert found["etc/passwd"][1] == b"root:"
    assert found["thin.json"] == (found["thin.json"][0], thin.recipe.to_bytes())


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST, ""])
def test_the_manifest_has_the_format_of_the_original(media_type: str) -> None:
    thin = build(original(media_type))
    manifest = parse_manifest(thin.manifest)
    assert thin.manifest.media_type == (media_type or OCI_MANIFEST)
    assert manifest.config.digest == digest_of(thin.config.data)
    assert manifest.config.size == len(thin.config.data)
    assert manifest.layers[0].digest == digest_of(thin.layer.data)
    is_docker = media_type == DOCKER_MANIFEST
    assert (manifest.config.media_type == DOCKER_CONFIG) == is_docker
    assert manifest.layers[0].media_type.startswith("application/vnd.docker") == is_docker


def test_annotations_name_the_original_and_keep_its_own() -> None:
    annotations = json.loads(build(original()).manifest.data)["annotations"]
    assert annotations == {
        "Org.X": "y",
        "org.opencontainers.image.base.name": NAME,
        "org.opencontainers.image.base.digest": f"sha256:{'e' * 64}",
    }
    assert "annotations" not in json.loads(build(original(DOCKER_MANIFEST)).manifest.data)


def test_the_digest_depends_on_nothing_but_the_image_and_the_repository() -> None:
    # Recorded: another machine, release or library must give the same digest.
    assert build(original()).manifest.digest == (
        "sha256:41f5139d4f8f536beb448dff019ce411e11d32691c4535b7407bd520400896a5"
    )


def test_recipes_for_two_repositories_differ_only_in_their_urls() -> None:
    one = json.loads(build(original(), "file:///srv/one").recipe.to_bytes())
    two = json.loads(build(original(), "file:///mnt/two").recipe.to_bytes())
    assert one != two
    for recipe in (one, two):
        for layer in recipe["layers"]:
            layer["url"] = layer["url"].partition("/.layers/")[2]
    assert one == two


def test_recipes_fit_the_schema_and_name_layers_bottom_to_top() -> None:
    layered = build(original()).recipe
    flat = flat_recipe("x", base_url("dir", "/srv/with space%"), LAYERS[0])
    for recipe in (layered, flat, Recipe("", ())):
        recipe_schema().validate(json.loads(recipe.to_bytes()))
    assert layered.layers[1] == RecipeLayer(
        "d" * 64, f"cvmfs://images.example.org/.layers/dd/{'d' * 64}/layerfs"
    )
    assert [layer.url for layer in flat.layers] == [
        f"file:///srv/with%20space%25/.flat/cc/{'c' * 64}"
    ]


def test_several_platforms_make_an_index_and_one_makes_a_manifest() -> None:
    arm = original()
    amd = original(architecture="amd64", variant="")
    images = [(each, build(each)) for each in (amd, arm)]
    thin = build_set(images, NAME, "sha256:" + "f" * 64)
    index = parse_index(thin.top)
    assert [str(entry.platform) for entry in index.manifests] == ["linux/amd64", "linux/arm/v7"]
    assert [entry.digest for entry in index.manifests] == [i.manifest.digest for _, i in images]
    assert thin.top.media_type == OCI_INDEX
    assert json.loads(thin.top.data)["annotations"] == {
        "org.opencontainers.image.base.name": NAME,
        "org.opencontainers.image.base.digest": "sha256:" + "f" * 64,
    }
    assert build_set(images[:1]).top == images[0][1].manifest


@pytest.mark.parametrize(
    "index",
    [
        b"5",
        b"[]",
        b"{}",
        b'{"manifests":null}',
        b'{"manifests":5}',
        b'{"manifests":{"a":1}}',
        b'{"manifests":"abc"}',
        b'{"manifests":' + b"[" * 100_000,
        b"\xff",
    ],
)
def test_a_damaged_layout_is_refused_with_a_hint(tmp_path: Path, index: bytes) -> None:
    image = original()
    (tmp_path / "index.json").write_bytes(index)
    with pytest.raises(ThinImageError, match=r"index\.json is damaged") as caught:
        save_layout(build_set([(image, build(image))]), tmp_path, "1")
    assert caught.value.hint
    assert (tmp_path / "index.json").read_bytes() == index


def test_an_index_of_docker_images_is_a_manifest_list_and_a_mixed_one_is_not() -> None:
    docker, oci = (original(media_type) for media_type in (DOCKER_MANIFEST, OCI_MANIFEST))
    both = [(docker, build(docker)), (docker, build(docker))]
    assert build_set(both).top.media_type == DOCKER_LIST
    assert "annotations" not in json.loads(build_set(both).top.data)
    assert build_set([both[0], (oci, build(oci))]).top.media_type == OCI_INDEX


@given(st.binary(max_size=200_000))
def test_stored_gzip_is_gzip(data: bytes) -> None:
    assert gzip.decompress(archive.gzip(data)) == data


@pytest.mark.parametrize("size", [0, 1, 0xFFFE, 0xFFFF, 0x10000, 3 * 0xFFFF])
def test_stored_gzip_is_correct_at_the_limits_of_its_blocks(size: int) -> None:
    assert gzip.decompress(archive.gzip(bytes(size))) == bytes(size)


@given(st.dictionaries(st.text(min_size=1), st.text()), st.lists(st.text()))
def test_any_label_and_variable_survives(labels: dict[str, str], env: list[str]) -> None:
    settings = {"Labels": labels, "Env": env}
    thin = json.loads(build(original(config=settings)).config.data)["config"]
    assert thin["Labels"] == labels
    kept = [variable for variable in env if variable.partition("=")[0] != "CVMFS_IMAGE"]
    assert thin["Env"] == [*kept, "CVMFS_IMAGE=true"]


def test_equal_images_are_equal_documents() -> None:
    assert build(original()) == build(original())
    changed = replace(original(), digest=f"sha256:{'0' * 64}")
    assert build(changed).manifest != build(original()).manifest
    assert isinstance(build(original()).manifest, Document)


def test_the_documented_example_is_what_is_written() -> None:
    data = (ROOT / "thin-images" / "example" / "thin.json").read_bytes()
    example = json.loads(data)
    recipe_schema().validate(example)
    recipe = layered_recipe(
        example["origin"],
        "cvmfs://images.example.org",
        [f"sha256:{layer['digest']}" for layer in example["layers"]],
    )
    assert recipe.to_bytes() == data
