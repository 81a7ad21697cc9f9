"""`publisher ls`, `diff` and `find` report the contents of images."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase as fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from publisher.browse.find import find
from publisher.browse.images import list_images
from publisher.layers.index import LayerIndex
from publisher.layers.merge import merge
from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from tests.command import Result, run_here, succeed
from tests.layer_builder import (
    Layer,
    character_device,
    directory,
    file,
    hardlink,
    image,
    layer,
    opaque,
    symlink,
    whiteout,
    write_layout,
)
from tests.schemas import output_schema

BASE = layer(
    directory("usr/bin"),
    file("usr/bin/tool", b"1", mode=0o4755),
    file("usr/lib/libssl.so.3", b"ssl"),
    symlink("bin", "usr/bin"),
    file(b"caf\xe9", b"latin"),
    file("red\x1b[31m\n", b"evil"),
    directory("old"),
    file("old/x"),
)
TOP = layer(
    directory("", mode=0o711),
    whiteout("usr/lib/libssl.so.3"),
    file("usr/bin/tool", b"2", mode=0o755),
    hardlink("usr/bin/again", "usr/bin/tool"),
    opaque("old"),
)
OTHER = layer(file("other"))


def publish(root: Path, name: str, layers: Sequence[Layer]) -> None:
    write_layout(image(*layers), root / name, "1")
    succeed("ingest-image", f"oci:{root}/{name}:1", "--repository", root / "images")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("contents")
    publish(directory, "base", [BASE])
    publish(directory, "top", [BASE, TOP])
    return directory


def ask(root: Path, *arguments: str) -> Result:
    return run_here(*arguments, "--repository", root / "images")


def json_of(root: Path, *arguments: str, code: int = 0) -> Any:
    result = ask(root, *arguments, "--output", "json")
    assert result.code == code, result.err
    output_schema(f"{arguments[0]}/1").validate(result.json)
    return result.json


def test_ls_shows_one_directory_or_one_entry(root: Path) -> None:
    for path in "usr/bin", "/usr/bin/", "./usr//bin":
        lines = ask(root, "ls", "local/base:1", path).out.splitlines()
        assert [line.split()[-1] for line in lines] == ["usr/bin/tool"]
    (line,) = ask(root, "ls", "local/base:1", "bin").out.splitlines()
    assert line.endswith("bin -> usr/bin")
    top = json_of(root, "ls", "local/top:1", "usr/bin")["entries"]
    assert [(e["path"], e["type"], e["size"]) for e in top] == [
        ("usr/bin/again", "f", 1),  # programs in the image see two files
        ("usr/bin/tool", "f", 1),
    ]


def test_ls_shows_where_a_path_through_a_symlink_leads(root: Path) -> None:
    result = ask(root, "ls", "local/base:1", "bin/tool")
    assert result.code == 1
    assert "local/base:1 has no bin/tool" in result.err
    assert "bin is a symbolic link to usr/bin" in result.err
    assert "publisher ls local/base:1" in ask(root, "ls", "local/base:1", "nothing/here").err


def test_control_characters_in_names_are_escaped_and_names_that_are_not_utf_8_are_found(
    root: Path,
) -> None:
    text = ask(root, "ls", "local/base:1").out
    assert all(line.isprintable() for line in text.splitlines())
    assert "red\\x1b[31m\\n" in text
    found = ask(root, "find", "caf\udce9").out
    assert found.splitlines() == ["local/base:1  caf\\udce9", "local/top:1  caf\\udce9"]
    entries = json_of(root, "ls", "local/base:1", "caf\udce9")["entries"]
    assert [entry["path"] for entry in entries] == ["caf\udce9"]


def test_diff_compares_the_flat_images_and_not_the_layers(root: Path) -> None:
    assert ask(root, "diff", "local/base:1", "local/top:1").out.splitlines() == [
        "~ .  (mode)",
        "- old/x",
        "+ usr/bin/again",
        "~ usr/bin/tool  (content)",
        "- usr/lib/libssl.so.3",
    ]
    assert json_of(root, "diff", "local/top:1", "local/top:1")["differences"] == []


def test_diff_distinguishes_devices(tmp_path: Path) -> None:
    succeed("init", f"dir:{tmp_path}/images", "--devices", "keep")
    for name, minor in ("zero", 5), ("random", 8):
        made = write_layout(image(layer(character_device("d", 1, minor))), tmp_path / name, "1")
        result = ask(tmp_path, "ingest-image", f"oci:{made}:1")
        if "allows only root" in result.err:
            return  # only root can publish images with devices
    (difference,) = json_of(tmp_path, "diff", "local/zero:1", "local/random:1")["differences"]
    assert difference["fields"] == ["device"]


def test_find_matches_names_anywhere_and_with_a_slash_whole_paths(root: Path) -> None:
    def found(pattern: str) -> list[str]:
        return ask(root, "find", pattern).out.split()

    both = ["local/base:1", "usr/bin/tool", "local/top:1", "usr/bin/tool"]
    assert found("tool") == found("t??l") == found("usr/*/tool") == found("/usr/bin/tool") == both
    assert found("libssl*") == ["local/base:1", "usr/lib/libssl.so.3"]  # not where it was deleted
    assert found("bin/tool") == found("ssl") == found("TOOL") == []


def test_find_continues_where_one_image_is_unreadable(tmp_path: Path) -> None:
    for name, layers in ("a", [OTHER]), ("b", [BASE]):
        publish(tmp_path, name, layers)
    (tmp_path / "images" / layout.layer_index(OTHER.digest)).unlink()
    result = ask(tmp_path, "find", "tool")
    assert (result.code, result.out) == (1, "local/b:1  usr/bin/tool\n")
    assert "local/a:1: cannot look into layer" in result.err
    assert "it has no index (publisher verify --repair)" in result.err
    reported = json_of(tmp_path, "find", "tool", code=1)
    assert [each["image"] for each in reported["found"]] == ["local/b:1"]
    assert [each["image"] for each in reported["unknown"]] == ["local/a:1"]
    error = ask(tmp_path, "ls", "local/a:1", "--output", "json").json["error"]
    assert (error["kind"], error["data"]) == ("no-contents", {"name": "", "layer": OTHER.digest})
    (tmp_path / "images" / layout.manifest_file("local/a:1")).write_bytes(b"{")
    error = ask(tmp_path, "ls", "local/a:1", "--output", "json").json["error"]
    assert (error["kind"], error["data"]) == ("no-contents", {"name": "local/a:1", "layer": ""})


def test_the_contents_of_an_image_without_a_flat_image_are_shown(tmp_path: Path) -> None:
    write_layout(image(BASE, TOP), tmp_path / "top", "1")
    (tmp_path / "list.yaml").write_text(
        f"version: 2\ndefaults: {{outputs: [layers]}}\nimages:\n- oci:{tmp_path}/top:1\n"
    )
    succeed("ingest", tmp_path / "list.yaml", "--repository", tmp_path / "images")
    assert not (tmp_path / "images/local/top:1").exists()
    assert "usr/bin/again" in ask(tmp_path, "ls", "local/top:1", "usr/bin").out
    assert ask(tmp_path, "find", "again").out == "local/top:1  usr/bin/again\n"


def test_an_image_that_is_not_published_is_reported_as_such(root: Path) -> None:
    for arguments in ("ls", "local/none:1"), ("diff", "local/base:1", "local/none:1"):
        result = ask(root, *arguments)
        assert result.code == 1
        assert "no image is published as local/none:1" in result.err
        assert "try: `publisher list` shows what is" in result.err
    for name in "local/base", "local/base:2":
        assert "try: name a published tag: local/base:1\n" in ask(root, "ls", name).err


def test_find_of_a_whole_path_looks_up_what_the_merged_layers_have(root: Path) -> None:
    def found(pattern: str) -> list[str]:
        return ask(root, "find", pattern).out.split()

    assert found("usr/lib/libssl.so.3") == ["local/base:1", "usr/lib/libssl.so.3"]
    assert found("old/x") == ["local/base:1", "old/x"]  # the directory was made opaque
    assert found("usr/bin/again") == ["local/top:1", "usr/bin/again"]
    assert found("usr/bin/") == found("*/bin")
    assert found("bin/tool") == []


def test_find_agrees_with_a_comparison_of_all_entries(tmp_path: Path) -> None:
    """More matches than are held at once, links to lower layers, and directories replaced."""
    lower = layer(*(file(f"many/{n:04}") for n in range(1200)), file("d/in/file"), file("low"))
    upper = layer(whiteout("many/0007"), file("d"), hardlink("d2/link", "low"), whiteout("low"))
    publish(tmp_path, "stack", [lower, upper])
    place = f"dir:{tmp_path}/images"
    repository = DirectoryRepository(RepositoryURL.parse(place))
    [published] = list_images(repository)
    assert published.manifest is not None
    indexes = [LayerIndex(partial(repository.open_index, x.digest)) for x in (lower, upper)]
    every = [item.entry.path for item in merge(indexes)]
    for pattern in "*", "many/*", "many/00*", "d*", "d2/link", "d/in/file", "link", "low", "[lm]*":
        whole = "/" in pattern
        expected = [p for p in every if fnmatch(p if whole else p.rpartition("/")[2], pattern)]
        found = [each.entry.path for each in find(repository, pattern, lambda *_: None)]
        assert found == expected, pattern


def test_a_deleted_layer_is_reported_as_missing_and_the_hint_restores_it(
    tmp_path: Path,
) -> None:
    publish(tmp_path, "a", [BASE, OTHER])
    shutil.rmtree(tmp_path / "images" / layout.layer_directory(OTHER.digest))
    for arguments in ("ls", "local/a:1"), ("find", "tool"), ("diff", "local/a:1", "local/a:1"):
        result = ask(tmp_path, *arguments)
        assert result.code == 1
        assert f"cannot look into layer {OTHER.digest}" in result.err
        assert "it is missing" in result.err and "publisher verify --refetch" in result.err
    assert "layer-missing" in ask(tmp_path, "verify").out
    assert ask(tmp_path, "verify", "--refetch").code == 0
    assert ask(tmp_path, "ls", "local/a:1", "other").code == 0
