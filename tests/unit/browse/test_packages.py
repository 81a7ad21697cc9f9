"""`publisher packages` and `publisher diff --packages`: what is installed in the flat image."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from publisher.browse.contents import merged_layers
from publisher.browse.find_packages import find_packages
from publisher.browse.package_cache import PackageCache
from publisher.browse.packages import image_packages, packages_of_layers
from publisher.packages.places import place_of
from publisher.packages.query import PackageQuery
from publisher.repository.directory.repository import DirectoryRepository
from publisher.repository.image_packages import ImageLayers
from publisher.repository.packages import layer_packages
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from tests.command import Result, run_here, succeed
from tests.layer_builder import (
    Layer,
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
from tests.package_databases import APK
from tests.schemas import ROOT, output_schema

PAGE = ROOT / "docs/packages.md"
SITE = "opt/tool/lib/python3.11/site-packages"


def dpkg(**versions: str) -> bytes:
    return "".join(
        f"Package: {name}\nStatus: install ok installed\nVersion: {version}\nArchitecture: all\n\n"
        for name, version in versions.items()
    ).encode()


def python(name: str, version: str) -> tuple[str, bytes]:
    """The path and content of a distribution's metadata."""
    content = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nlong text"
    return f"{SITE}/{name}-{version}.dist-info/METADATA", content.encode()


def npm(name: str) -> tuple[str, bytes]:
    path = f"usr/local/lib/node_modules/{name}/package.json"
    return path, json.dumps({"name": name, "version": "1.0.0"}).encode()


BASE = layer(
    file("usr/lib/os-release", b"ID=debian\nVERSION_ID=12\n"),
    symlink("etc/os-release", "../usr/lib/os-release"),
    file("var/lib/dpkg/status", dpkg(liba="1.0-1", tool="2")),
    file("lib/apk/db/installed", APK),
    file(*python("numpy", "1.25")),
    file(*python("six", "1.16")),
    file(*npm("old")),
    file(*npm("gone")),
)
TOP = layer(
    file("var/lib/dpkg/status", dpkg(liba="1.0-2")),
    whiteout("lib/apk/db/installed"),
    whiteout(f"{SITE}/numpy-1.25.dist-info"),
    file(*python("numpy", "1.26")),
    hardlink("opt/conda/conda-meta/x.json", python("numpy", "1.26")[0]),
    opaque("usr/local/lib/node_modules/old"),
    file("usr/local/lib/node_modules/gone", b"a file in place of the directory"),
    file(*npm("<b>\u202e\x1b[31m")),
    # Hostile: a link out of the tree, a loop, a directory, and what is no database.
    symlink("usr/lib/sysimage/rpm/rpmdb.sqlite", "/etc/shadow"),
    symlink("opt/loop/conda-meta", "conda-meta"),
    directory(f"{SITE}/a.dist-info/METADATA"),
    file("usr/lib/sysimage/rpm/Packages.db", b"RpmP"),
)


def publish(root: Path, name: str, layers: Sequence[Layer]) -> None:
    write_layout(image(*layers), root / name, "1")
    succeed("ingest-image", f"oci:{root}/{name}:1", "--repository", root / "images")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("packages")
    publish(directory, "base", [BASE])
    publish(directory, "top", [BASE, TOP])
    return directory


def ask(root: Path, *arguments: str) -> Result:
    return run_here(*arguments, "--repository", root / "images")


def json_of(root: Path, kind: str, *arguments: str, code: int = 0) -> Any:
    result = ask(root, *arguments, "--output", "json")
    assert result.code == code, result.err
    output_schema(kind).validate(result.json)
    return result.json


def listed(value: Any) -> list[str]:
    return [f"{each['type']} {each['name']} {each['version']}" for each in value["packages"]]


def test_packages_are_those_whose_databases_the_flat_image_has(root: Path) -> None:
    base = json_of(root, "packages/1", "packages", "local/base:1")
    assert listed(base) == [
        "apk libcrypto3 3.1.4-r5",
        "apk musl 1.2.4_git20230717-r4",
        "deb liba 1.0-1",
        "deb tool 2",
        "npm gone 1.0.0",
        "npm old 1.0.0",
        "pypi numpy 1.25",
        "pypi six 1.16",
    ]
    assert base["distribution"] == {"id": "debian", "version": "12"}
    assert base["skipped"] == []
    top = json_of(root, "packages/1", "packages", "local/top:1", code=1)
    assert listed(top) == [
        "deb liba 1.0-2",
        "npm <b>\u202e\x1b[31m 1.0.0",
        "pypi numpy 1.26",
        "pypi six 1.16",
    ]
    assert top["distribution"] == {"id": "debian", "version": "12"}
    assert {each["database"]: each["why"] for each in top["skipped"]} == {
        "opt/conda/conda-meta/x.json": "it is not JSON: Expecting value: line 1 column 1 (char 0)",
        "usr/lib/sysimage/rpm/Packages.db": "it is truncated",
        "usr/lib/sysimage/rpm/rpmdb.sqlite": "it is a symbolic link",
    }


def test_the_table_is_filtered_and_shows_no_control_characters(root: Path) -> None:
    table = ask(root, "packages", "local/top:1", "--type", "npm", "--type", "deb")
    assert table.code == 1
    assert table.out.splitlines() == [
        "NAME               VERSION  TYPE  ARCHITECTURE",
        "liba               1.0-2    deb   all",
        "<b>\\u202e\\x1b[31m  1.0.0    npm",
    ]
    assert "skipped usr/lib/sysimage/rpm/rpmdb.sqlite: it is a symbolic link" in table.err
    one = json_of(root, "packages/1", "packages", "local/base:1", "--name", "lib*")
    assert listed(one) == ["apk libcrypto3 3.1.4-r5", "deb liba 1.0-1"]
    none = ask(root, "packages", "local/base:1", "--name", "none")
    assert none.out == ""
    assert "no matching packages" in none.err


def test_diff_compares_packages(root: Path) -> None:
    lines = ask(root, "diff", "--packages", "local/base:1", "local/top:1").out.splitlines()
    assert lines == [
        "- apk libcrypto3 3.1.4-r5",
        "- apk musl 1.2.4_git20230717-r4",
        "~ deb liba 1.0-1 -> 1.0-2",
        "- deb tool 2",
        "+ npm <b>\\u202e\\x1b[31m 1.0.0",
        "- npm gone 1.0.0",
        "- npm old 1.0.0",
        "~ pypi numpy 1.25 -> 1.26",
    ]
    value = json_of(root, "diff-packages/1", "diff", "--packages", "local/base:1", "local/top:1")
    assert value["differences"][2] == {
        "type": "deb",
        "name": "liba",
        "change": "changed",
        "old": ["1.0-1"],
        "new": ["1.0-2"],
    }


def test_packages_are_those_of_the_merged_layers_whichever_image_was_read_before(
    tmp_path: Path,
) -> None:
    """All images of up to three of these layers; layers below are hidden in each way."""
    status = "var/lib/dpkg/status"
    layers = [
        layer(file(status, dpkg(liba="1")), file(*python("six", "1.16"))),
        layer(file(status, dpkg(liba="2")), file("other/status", dpkg(libb="1"))),
        layer(whiteout(status), file(*python("numpy", "1.26"))),
        layer(opaque("var/lib"), whiteout(f"{SITE}/six-1.16.dist-info")),
        layer(file("var", b"a file"), symlink("opt/tool", "elsewhere")),
        layer(hardlink(status, "other/status")),  # in a lower layer
    ]
    publish(tmp_path, "all", layers[1:2] + layers[-1:] + layers[:-1])
    repository = DirectoryRepository(RepositoryURL.parse(f"dir:{tmp_path}/images"))
    stacks = [
        [each.digest for each in stack]
        for length in (1, 2, 3)
        for stack in itertools.permutations(layers, length)
        if layers[-1] not in stack or layers[1] in stack[: stack.index(layers[-1])]
    ]
    reader = ImageLayers(repository)
    for digests in (*stacks, *sorted(stacks)):
        found = packages_of_layers(repository, "", digests, reader).packages
        databases = [
            {each.path: each for each in layer_packages(repository, digest).databases}
            for digest in digests
        ]
        visible = [
            (item.entry.path, databases[item.layer][item.source])
            for item in merged_layers(repository, digests)
            if place_of(item.entry.path) and item.source in databases[item.layer]
        ]
        assert {(each.path, each.package) for each in found} == {
            (path, package) for path, each in visible for package in each.packages
        }, digests


def test_no_link_leads_out_of_a_tree_that_was_changed(tmp_path: Path) -> None:
    """A layer's tree that another program has changed is read without following links."""
    publish(tmp_path, "base", [BASE])
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "status").write_bytes(dpkg(secret="1"))
    built = DirectoryRepository(RepositoryURL.parse(f"dir:{tmp_path}/images"), writable=False)
    digest = BASE.descriptor.digest
    tree = tmp_path / "images" / layout.layer_tree(digest)
    (tmp_path / "images" / layout.layer_packages(digest)).unlink(missing_ok=True)
    (tree / "var/lib/dpkg/status").unlink()
    (tree / "var/lib/dpkg").rmdir()
    (tree / "var/lib/dpkg").symlink_to(secret)
    found = image_packages(built, "local/base:1")
    assert "deb" not in {each.type for each in found.packages}
    assert [each.path for each in found.skipped] == ["var/lib/dpkg/status"]


def test_find_searches_the_packages_of_all_images(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    both = ask(root, "find", "--package", "liba<1.0-2")
    assert both.code == 1  # databases of local/top:1 are skipped
    assert both.out.splitlines() == ["local/base:1  deb liba 1.0-1"]
    assert "cannot read all packages of local/top:1: 3 of its package databases" in both.err
    assert ask(root, "find", "--package", "liba<1.0-2") == both  # from the cache
    value = json_of(root, "find-packages/1", "find", "--package", "pypi:NumPy>=1.25,<1.26", code=1)
    assert [(each["image"], each["package"]["name"]) for each in value["found"]] == [
        ("local/base:1", "numpy")
    ]
    # From the source package, with a glob; and what no image has.
    assert "libcrypto3" in ask(root, "find", "--package", "apk:open*").out
    missing = ask(root, "find", "--package", "debian")
    assert missing.out == ""
    assert "no published image has the package 'debian'" in missing.err
    # A cache that is damaged is replaced, and one that cannot be written is not needed.
    (cache,) = (tmp_path / "publisher/packages").iterdir()
    whole = cache.read_bytes()
    for damaged in (b"no database" * 1000, whole[:5000], whole[:4096] + b"x" * 9000):
        cache.write_bytes(damaged)
        assert ask(root, "find", "--package", "liba<1.0-2") == both
    # Values that this program does not store there are not used.
    for change in ("type = 'x'", "name = CAST(x'ff' AS TEXT)"):
        cache.write_bytes(whole)
        with closing(sqlite3.connect(cache)) as database:
            database.execute(f"UPDATE package SET {change} WHERE name = 'liba'")
            database.commit()
        assert ask(root, "find", "--package", "liba<1.0-2") == both
        assert not cache.exists()  # a later search makes it anew
    cache.mkdir()
    assert ask(root, "find", "--package", "liba<1.0-2") == both
    for usage in (["find"], ["find", "x", "--package", "x"]):
        assert "either a PATTERN or --package is needed" in ask(root, *usage).err
    wrong = ask(root, "find", "--package", "python:numpy")
    assert (wrong.code, "the types of packages are deb, apk" in wrong.err) == (2, True)


def test_a_damaged_index_is_an_error_and_not_an_image_with_fewer_packages(tmp_path: Path) -> None:
    publish(tmp_path, "base", [BASE, TOP])
    other = layer(file("other", b"other"))
    publish(tmp_path, "other", [other])
    index = tmp_path / "images" / layout.layer_index(TOP.digest)
    data = index.read_bytes()
    foreign = (tmp_path / "images" / layout.layer_index(other.digest)).read_bytes()
    for damaged in (b"", data[: len(data) // 2], foreign):
        index.write_bytes(damaged)
        for words in (
            ("packages", "local/base:1"),
            ("sbom", "local/base:1"),
            ("diff", "--packages", "local/base:1", "local/other:1"),
            ("find", "--package", "liba"),
        ):
            result = ask(tmp_path, *words)
            assert result.code in (1, 3) and f"index of layer {TOP.digest}" in result.err, result
            assert not result.out, result


def test_the_cache_forgets_images_that_are_not_published_any_more(tmp_path: Path) -> None:
    publish(tmp_path, "base", [BASE])
    built = DirectoryRepository(RepositoryURL.parse(f"dir:{tmp_path}/images"), writable=False)
    cache = tmp_path / "cache.sqlite"
    query = PackageQuery.parse("liba")
    problems: list[str] = []

    def found() -> list[tuple[str, str]]:
        each = find_packages(built, query, cache, lambda _, error: problems.append(str(error)))
        return [(one.image, one.installed.package.version) for one in each]

    assert found() == [("local/base:1", "1.0-1")]
    top = layer(file("var/lib/dpkg/status", dpkg(liba="5")))
    publish(tmp_path, "base", [BASE, top])  # the tag has moved
    assert found() == [("local/base:1", "5")]
    with PackageCache(cache) as known:
        assert len(known.images()) == 1
        numbers = [number for number, _, _ in known.packages()]
        assert {image for number in numbers for image, _ in known.installed(number)} == {2}
    # An image that cannot be read is reported each time, and stored when it can be.
    index = tmp_path / "images" / layout.layer_index(top.descriptor.digest)
    index.rename(tmp_path / "index")
    cache.unlink()
    assert found() == []
    assert len(problems) == 1
    assert "it has no index" in problems[0]
    (tmp_path / "index").rename(index)
    assert found() == [("local/base:1", "5")]


def test_the_documented_examples_print_what_the_page_shows(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    upper = layer(
        file("var/lib/dpkg/status", dpkg(libb="1.0-1", tool="3")),
    )
    write_layout(image(BASE), tmp_path / "base", "1")
    write_layout(image(BASE, upper), tmp_path / "next", "1")
    for name in ("base", "next"):
        succeed("ingest-image", f"oci:{tmp_path}/{name}:1", "--repository", tmp_path / "images")
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    examples = [each.partition("\n") for block in blocks for each in block.split("$ publisher ")]
    assert len(examples) > 8
    for command, _, expected in examples:
        words, _, saved = command.partition(" > ")
        if words:
            result = ask(tmp_path, *shlex.split(words))
            assert (result.code, result.err) == (0, ""), command
            if saved:
                assert {"cdx": "specVersion", "spdx": "spdxVersion"}[saved.split(".")[1]] in (
                    result.json
                )
                assert ask(tmp_path, *shlex.split(words)) == result
            else:
                assert result.out == expected
    failing = ask(root, "sbom", "local/top:1")
    assert failing.code == 1
    assert "3 package databases skipped" in failing.err
    assert {each["name"] for each in failing.json["components"]} >= {"liba", "<b>\u202e\x1b[31m"}
