"""`publisher stats` and `publisher du`, compared with the files of a real publication."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from publisher.browse.statistics import counted_layers
from publisher.browse.statistics import distinct as distinct_module
from publisher.browse.statistics.collect import collect_statistics
from publisher.browse.statistics.usage import Directory, largest_directories
from publisher.entry import Entry, EntryType
from publisher.errors import PublisherError
from publisher.layers.index import read_index, write_index
from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from publisher.tree.origin import Origin
from tests.command import Result, run_here
from tests.components import require_root
from tests.confined import become_an_ordinary_user, in_a_child
from tests.layer_builder import (
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
from tests.schemas import output_schema, strict

BASE = layer(
    directory("usr"),
    file("usr/a", b"a" * 1000),
    hardlink("usr/b", "usr/a"),
    file("usr/gone", b"g" * 77),
    directory("old"),
    file("old/hidden", b"h" * 30),
)
COMMON = layer(directory("opt"), file("opt/tool", b"t" * 500), symlink("opt/link", "tool"))
ONE = image(BASE, COMMON, layer(whiteout("usr/gone"), file("one/copy", b"a" * 1000)))
TWO = image(BASE, COMMON, layer(opaque("old"), file("old/new", b"n" * 3), file("two", b"2" * 9)))
THREE = image(layer(file("alone", b"x" * 4096)))
NAMES = ["local/one:1", "local/three:1", "local/two:1"]
LIST = """version: 2
images:
  - {image: "oci:SOURCES/one:1", owner: astro}
  - {image: "oci:SOURCES/two:1", owner: bio}
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree, which no test changes."""
    folder = tmp_path_factory.mktemp("statistics")
    for name, built in (("one", ONE), ("two", TWO), ("three", THREE)):
        write_layout(built, folder / name, "1")
    for name in ("first.yaml", "second.yaml"):
        text = LIST.replace("SOURCES", str(folder))
        (folder / name).write_text(text if name == "first.yaml" else text.replace("one", "three"))
        assert ask(folder / "images", "ingest", str(folder / name), "-q").code == 0
    return folder / "images"


@pytest.fixture
def tree(published: Path, tmp_path: Path) -> Path:
    """A copy of the tree."""
    subprocess.run(["cp", "-a", published, tmp_path / "images"], check=True)
    return tmp_path / "images"


def ask(tree: Path, *arguments: str) -> Result:
    env = {"XDG_CACHE_HOME": str(tree.parent / "cache")}
    return run_here(*arguments, "--repository", tree, env=env)


def document(tree: Path, command: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    result = ask(tree, command, *arguments, "--output", "json")
    assert result.code == code, result.err
    strict(output_schema(f"{command}/1")).validate(result.json)
    found: dict[str, Any] = result.json
    return found


def files_in(*directories: Path) -> tuple[int, int]:
    """The names of regular files, and the bytes of distinct ones, as `find` sees them."""
    command = ["find", *map(str, directories), "-type", "f", "-printf", "%i %s\\n"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return len(found), sum(int(line.split()[1]) for line in set(found))


def layer_trees(tree: Path) -> list[Path]:
    return sorted(tree.glob(".layers/*/*/layerfs"))


def by_name(values: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {value["name"]: value for value in values}


def test_the_figures_are_those_of_the_files_and_what_is_freed_is_what_gc_frees(tree: Path) -> None:
    found = document(tree, "stats")
    sums = found["totals"]
    assert (sums["files"], sums["bytes"]) == files_in(*layer_trees(tree))
    entries = subprocess.run(
        ["find", *map(str, layer_trees(tree))], capture_output=True, check=True
    ).stdout.count(b"\n")
    assert (sums["entries"], sums["layers"], sums["names"]) == (entries, 5, 3)
    separate = sum(
        files_in(*(tree / layout.layer_tree(each.digest) for each in built.layers))[1]
        for built in (ONE, TWO, THREE)
    )
    assert sums["bytesWithoutSharing"] == separate
    assert [(e["images"], e["layers"]) for e in found["layersByUsers"]] == [(1, 3), (2, 2)]
    assert [(e["images"], e["published"]) for e in found["growth"]] == [(3, 4)]
    lists, owners = by_name(found["wishLists"]), by_name(found["owners"])
    assert {len(lists), len(owners)} == {2}
    first, second = sorted(lists)
    assert (lists[first]["freedBytes"], lists[second]["freedBytes"]) == (1000, 4096)
    assert owners["astro"]["freedBytes"] == 1000 + 4096 and owners["bio"]["freedBytes"] == 12

    usage = document(tree, "du", *NAMES[:2])
    images = by_name(usage["images"])
    assert images == {
        name: value | {"directories": []}
        for name, value in by_name(found["images"]).items()
        if name != "local/two:1"
    }
    before = files_in(*layer_trees(tree))[1]
    assert ask(tree, "remove", *NAMES[:2]).code == 0
    assert document(tree, "stats")["totals"] == sums  # they are still published
    collected = ask(tree, "gc", "--now", "--output", "json")
    freed = before - files_in(*layer_trees(tree))[1]
    assert usage["together"]["freedBytes"] == freed == collected.json["bytes"]


def test_contents_are_those_of_the_layers_and_of_the_flat_images(published: Path) -> None:
    contents = document(published, "stats", "--contents")["contents"]
    files, size = files_in(*layer_trees(published))
    assert (contents["files"], contents["fileBytes"]) == (files, size)
    digests = subprocess.run(
        [
            "find",
            *map(str, layer_trees(published)),
            "-type",
            "f",
            "-exec",
            "sha256sum",
            "-z",
            "{}",
            "+",
        ],
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")[:-1]
    distinct = {line[:64]: Path(os.fsdecode(line[66:])).stat().st_size for line in digests}
    assert contents["contents"] == len(distinct)
    assert contents["contentBytes"] == sum(distinct.values()) == size - 1000
    flat = sorted(published.glob(".flat/*/*"))
    paths = [[*each.rglob("*"), each] for each in flat]
    assert contents["flatEntries"] == sum(map(len, paths))
    assert contents["flatBytes"] == sum(files_in(each)[1] for each in flat)
    catalogs = contents["catalogsByEntries"]
    assert sum(row["count"] for row in catalogs) == 5 + 3
    largest = contents["largestCatalogs"]
    assert max(map(len, paths)) == largest[0]["entries"] >= largest[-1]["entries"]
    assert {each["path"] for each in largest} == {
        str(each.relative_to(published)) for each in (*flat, *layer_trees(published))
    }


def du_of_files(path: Path) -> int:
    """What `du` counts for the regular files below `path`, each inode once."""
    found = subprocess.run(["find", path, "-type", "f", "-print0"], capture_output=True, check=True)
    counted = subprocess.run(
        ["du", "--bytes", "--total", "--files0-from=-"],
        input=found.stdout,
        capture_output=True,
        check=True,
    )
    return int(counted.stdout.splitlines()[-1].split()[0])


def test_directories_are_those_that_du_counts(published: Path) -> None:
    usage = document(published, "du", "local/t*", "--depth", "1")
    assert [each["name"] for each in usage["images"]] == ["local/three:1", "local/two:1"]
    two = usage["images"][1]
    flat = published / "local/two:1"
    assert {each["path"]: (each["files"], each["bytes"]) for each in two["directories"][1:]} == {
        name: (files_in(flat / name)[0], du_of_files(flat / name)) for name in ("usr", "opt", "old")
    }
    whole = Directory("", 1000 + 77 + 500 + 3 + 9, 6)
    assert two["directories"][0] == {"path": "", "bytes": whole.size, "files": whole.files}
    text = ask(published, "du", "local/two:1", "-d", "0")
    assert text.out.splitlines()[-1].split() == ["/", "6", "1.6", "kB"]
    assert "together" not in text.out
    nothing = ask(published, "du", "local/x*")
    assert (nothing.code, "no image is published as local/x*" in nothing.err) == (1, True)


def test_the_largest_directories_are_found_in_bounded_memory() -> None:
    entries = [Entry("", EntryType.DIRECTORY), Entry("0", EntryType.FILE, size=1)]
    for number in range(50):
        path = f"d{number:02}"
        entries += [
            Entry(path, EntryType.DIRECTORY),
            Entry(f"{path}/e", EntryType.DIRECTORY),
            Entry(f"{path}/e/f", EntryType.FILE, size=number),
            Entry(f"{path}/e/g", EntryType.HARDLINK, size=number, target=f"{path}/e/f"),
        ]
    found = largest_directories(entries, depth=1, most=3)
    assert [(each.path, each.size, each.files) for each in found] == [
        ("", sum(range(50)) + 1, 101),
        ("d49", 49, 2),
        ("d48", 48, 2),
    ]
    assert len(largest_directories(entries, depth=2, most=200)) == 101


def test_tables_are_text_csv_and_json_with_the_same_figures(
    published: Path,
) -> None:
    found = document(published, "stats", "--contents")
    for table, key in (("images", "images"), ("owners", "owners"), ("lists", "wishLists")):
        rows = list(csv.DictReader(io.StringIO(rows_of(published, table))))
        numbers = [
            {key: value if key == "name" else int(value) for key, value in row.items()}
            for row in rows
        ]
        assert numbers == found[key]
    [month] = csv.DictReader(io.StringIO(rows_of(published, "growth")))
    assert {k: str(v) for k, v in found["growth"][0].items()} == month
    sizes = list(csv.DictReader(io.StringIO(rows_of(published, "catalogs"))))
    assert [row["most"] for row in sizes] == ["100", "1000", "10000", "100000", ""]
    text = ask(published, "stats", "--top", "1").out
    assert ["layers", "5"] in [line.split() for line in text.splitlines()]
    assert "local/three:1" in text and "local/one:1" not in text


def test_contents_are_the_same_in_little_memory_and_from_the_cache(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = document(tree, "stats", "--contents")["contents"]
    [cache] = (tree.parent / "cache/publisher/contents").iterdir()
    stored = cache.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("publisher.layers.index.LayerIndex.rows", None)
        patch.setattr("publisher.browse.statistics.image_sizes.merged_layers", None)
        assert document(tree, "stats", "--contents")["contents"] == found

    for damaged in (b"", b"not a database", stored[: len(stored) // 2], stored[:-300] + b"x" * 300):
        cache.write_bytes(damaged)
        assert document(tree, "stats", "--contents")["contents"] == found
    cache.unlink()
    cache.mkdir()
    monkeypatch.setattr(distinct_module, "_BUFFER", 8)  # the temporary file is used
    monkeypatch.setattr(counted_layers, "_IN_MEMORY", 3)
    assert document(tree, "stats", "--contents")["contents"] == found
    monkeypatch.setattr(counted_layers, "_LARGEST_LAYER", 3)
    monkeypatch.setattr(counted_layers, "_AT_ONCE", 2)
    assert document(tree, "stats", "--contents")["contents"] == found

    cache.rmdir()
    removed = "local/two:1"
    assert document(tree, "stats", "--contents")["contents"] == found
    assert ask(tree, "remove", removed).code == 0
    assert ask(tree, "gc", "--now").code == 0
    rest = document(tree, "stats", "--contents")["contents"]
    assert (rest["flatImages"], rest["contents"]) == (2, found["contents"] - 2)
    cache.unlink()
    assert document(tree, "stats", "--contents")["contents"] == rest


def rows_of(tree: Path, table: str) -> str:
    result = ask(tree, "stats", "--output", "csv", "--table", table)
    assert (result.code, result.err) == (0, "")
    return result.out


def test_what_is_damaged_is_named_and_the_rest_is_counted(tree: Path) -> None:
    whole = document(tree, "stats")
    sums = whole["totals"]
    own = TWO.layers[-1].digest
    index = tree / layout.layer_index(own)
    data = index.read_bytes()
    foreign = (tree / layout.layer_index(TWO.layers[0].digest)).read_bytes()
    for damaged in (b"", data[: len(data) // 2], foreign, None):
        if damaged is None:
            index.unlink()
        else:
            index.write_bytes(damaged)
        found = document(tree, "stats", "--contents", code=1)
        assert own in {problem["name"] for problem in found["problems"]}
        assert "local/two:1" in {problem["name"] for problem in found["problems"]}
        assert own in ask(tree, "stats").err
        assert found["contents"]["flatImages"] == 2
    assert (found["totals"]["layers"], found["totals"]["unknownLayers"]) == (5, 1)
    assert found["totals"]["bytes"] == sums["bytes"] - 12
    usage = document(tree, "du", "local/*", "--depth", "0", code=1)
    assert [len(each["directories"]) for each in usage["images"]] == [1, 1, 0]
    assert usage["together"]["unknownLayers"] == 1
    index.write_bytes(data)
    assert document(tree, "stats")["totals"] == sums

    history = tree / layout.STATE / "history.jsonl"
    lines = history.read_bytes()
    history.write_bytes(lines + b"no JSON\n" * 3)
    found = document(tree, "stats", code=1)
    [problem] = found["problems"]
    assert problem["name"] == "history"
    assert f"{history}: damaged lines in it are left out" in problem["problem"]
    assert (found["totals"], found["growth"]) == (sums, whole["growth"])
    site = ask(tree, "site", str(tree.parent / "site"))
    assert (site.code, "damaged lines in it are left out" in site.err) == (1, True)
    checked = ask(tree, "verify")
    assert (checked.code, checked.out.count("damaged lines in it")) == (0, 1), checked
    history.write_bytes(lines)

    manifest = tree / layout.manifest_file("local/three:1")
    manifest.write_bytes(b"{")
    (tree / layout.REMOVE_SCHEDULE).write_bytes(b"[")
    found = document(tree, "stats", code=1)
    assert {problem["name"] for problem in found["problems"]} == {
        "local/three:1",
        layout.REMOVE_SCHEDULE,
    }
    assert found["totals"]["names"] == 2
    text = ask(tree, "stats")
    assert (text.code, "try: publisher verify" in text.err) == (1, True)
    assert "2, with 2 names" in text.out
    usage = document(tree, "du", "local/three:1", code=1)
    assert (usage["images"], usage["together"]["bytes"]) == ([], 0)


def test_what_a_user_may_not_read_is_named_with_what_helps(published: Path) -> None:
    require_root()
    name = "local/one:1"
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        Path(folder).chmod(0o755)
        subprocess.run(["cp", "-a", published, images], check=True)
        url = RepositoryURL("dir", str(images))
        manifest = images / layout.manifest_file(name)

        def read(writer: int) -> None:
            answer: list[str | int]
            become_an_ordinary_user()
            try:
                repository = DirectoryRepository(url)
                repository.read(layout.manifest_file(name))
                found = collect_statistics(repository)
            except PublisherError as error:
                answer = [error.why, error.hint]
            else:
                sums, months = found.totals, len(found.growth)
                answer = [sums.names, months, *(f"{e.name}: {e.error}" for e in found.problems)]
            os.write(writer, json.dumps(answer).encode())

        names, months, problem = json.loads(in_a_child(read))
        assert (names, months) == (3, 1)
        assert problem.startswith("history: cannot read the history of dir:")
        assert "run this command as the user who publishes" in problem
        closed = (manifest, "a+r"), (manifest.parent, "a+rx"), (images / layout.METADATA, "a+rx")
        for place, mode in closed:
            before = place.stat().st_mode
            place.chmod(0)
            answer = json.loads(in_a_child(read))
            assert answer == ["permission denied", f"chmod {mode} {shlex.quote(str(place))}"]
            place.chmod(before)
        images.chmod(0)
        why, hint = json.loads(in_a_child(read))
        assert why == f"{images / layout.METADATA}: permission denied"
        assert hint.startswith("run the command as the user who publishes")


def test_files_of_layers_of_earlier_releases_are_counted_where_few_are_read(tree: Path) -> None:
    names = document(tree, "stats")["totals"]["files"]
    for each in (BASE, COMMON):
        path = tree / layout.layer_index(each.digest)
        index = read_index(io.BytesIO(path.read_bytes()))
        with path.open("wb") as out:
            write_index(out, replace(index.header, files=None), list(index.lines()))
    assert document(tree, "stats")["totals"]["files"] is None
    assert "unknown without --contents" in ask(tree, "stats").out
    assert "  ?  " in ask(tree, "stats").out
    found = document(tree, "stats", "--contents")
    assert (found["totals"]["files"], found["contents"]["files"]) == (None, names)
    assert document(tree, "du", "local/*")["together"]["files"] == names


def test_records_of_users_of_layers_are_not_needed(tree: Path) -> None:
    """They are a cache of the manifests, which another tool may not have written."""
    found = document(tree, "stats")
    for path in tree.glob(".layers/*/*/.metadata/origin.json"):
        path.write_bytes(Origin().to_bytes())
    assert document(tree, "stats") == found
