"""The sizes of merged images, compared with those of the entries that are merged one by one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.browse.statistics.distinct import Digests, DistinctContents, digest_key
from publisher.browse.statistics.flat_size import FlatSize, flat_size
from publisher.browse.statistics.layer_tree import layer_tree
from publisher.entry import Entry, EntryType, Generated, sort_key
from publisher.layers.catalogs import catalog_sizes
from publisher.layers.index import LayerIndex, read_index, write_index
from publisher.layers.index_lines import encode_entry
from publisher.layers.merge import merge
from publisher.oci.config import ContainerConfig
from publisher.oci.digest import digest_of
from publisher.runtimes.flat_files import insert, runtime_files
from tests.unit.layers.test_index import header

FILE, DIRECTORY, HARDLINK = EntryType.FILE, EntryType.DIRECTORY, EntryType.HARDLINK
FILES_OF_RUNTIMES = runtime_files(ContainerConfig(labels={"a": "b"}))
KINDS = [FILE, FILE, DIRECTORY, HARDLINK, EntryType.SYMLINK, EntryType.WHITEOUT, EntryType.FIFO]
NAMES = ["a", "b", "c", "etc", "run", "var", "tmp", "hosts", ".singularity.d", "env", "ä"]
TARGETS = ["/run", "../c", "/etc/hosts", "a/b", "/", "nowhere", "/var/tmp"]
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
members = st.tuples(
    paths, st.sampled_from(KINDS), st.integers(0, 50), st.sampled_from(TARGETS), st.booleans()
)


def index_of(drawn: Sequence[tuple[str, EntryType, int, str, bool]]) -> LayerIndex:
    """Return the index of a layer with those of the members that can be in it together."""
    found = {"": Entry("", DIRECTORY, opaque=any(kind is DIRECTORY for _, kind, *_ in drawn[9:]))}
    files: list[str] = []
    for path, kind, size, target, flag in drawn:
        above = [path[:at] for at, letter in enumerate(path) if letter == "/"]
        if path in found or any(each in found and found[each].type != DIRECTORY for each in above):
            continue
        found |= {
            each: Entry(each, DIRECTORY, implicit=flag) for each in above if each not in found
        }
        if kind is DIRECTORY:
            found[path] = Entry(path, kind, opaque=flag)
        elif kind is HARDLINK and files:
            first = min(files[-1], path, key=sort_key)
            last = max(files[-1], path, key=sort_key)
            file = found[files.pop()]
            found[first] = replace(file, path=first, links=2)
            found[last] = replace(file, path=last, type=HARDLINK, target=first, links=2)
        elif kind is EntryType.SYMLINK:
            found[path] = Entry(path, kind, target=target)
        elif kind in (FILE, HARDLINK):
            files.append(path)
            found[path] = Entry(path, FILE, size=size, sha256=digest_of(path.encode())[7:])
        else:
            found[path] = Entry(path, kind)
    entries = sorted(found.values(), key=lambda entry: sort_key(entry.path))
    data = io.BytesIO()
    write_index(data, header(len(entries)), map(encode_entry, entries))
    return read_index(data)


def one_by_one(indexes: Sequence[LayerIndex], added: Sequence[Generated], limit: int) -> FlatSize:
    entries = [each.entry for each in insert(merge(indexes), added)]
    size = sum(entry.size for entry in entries if entry.type is FILE)
    return FlatSize(len(entries), size, catalog_sizes(entries, limit))


@settings(max_examples=60, deadline=None)
@given(
    stack=st.lists(st.lists(members, max_size=12), min_size=1, max_size=4),
    is_flat=st.booleans(),
    limit=st.sampled_from([2, 3, 7, 1000]),
)
def test_a_merged_image_has_the_size_of_its_entries(
    stack: list[list[tuple[str, EntryType, int, str, bool]]], is_flat: bool, limit: int
) -> None:
    indexes = [index_of(drawn) for drawn in stack]
    added = FILES_OF_RUNTIMES if is_flat else []
    trees = [layer_tree(index.rows()) for index in indexes]
    assert flat_size(trees, added, limit) == one_by_one(indexes, added, limit)


def test_links_lead_to_entries_that_exist_already() -> None:
    """A mount point is added behind a link, unless the image has it in a directory of one layer."""
    base = index_of(
        [
            ("etc/hosts", EntryType.SYMLINK, 0, "/run/a/b/hosts", False),
            ("run/a/b/hosts", FILE, 7, "", False),
            ("var", EntryType.SYMLINK, 0, "/srv/x", False),
            ("srv/x/tmp", DIRECTORY, 0, "", False),
        ]
    )
    for indexes in ([base], [base, index_of([("run/a/c", FILE, 1, "", False)])]):
        trees = [layer_tree(index.rows()) for index in indexes]
        found = flat_size(trees, FILES_OF_RUNTIMES, 1000)
        assert found == one_by_one(indexes, FILES_OF_RUNTIMES, 1000)


def test_an_index_that_lies_is_counted_without_an_error() -> None:
    """It may have been written by a process that a malicious layer had taken over."""
    lines = [
        Entry("a", DIRECTORY),
        Entry("a/b", FILE, size=3, sha256="0" * 64),
        Entry("", DIRECTORY),
        Entry("a", FILE, size=2, sha256="0" * 64),
        Entry("x/y", DIRECTORY),
        Entry("x/y/z", HARDLINK, target="nowhere", links=3),
    ]
    data = io.BytesIO()
    write_index(data, header(len(lines)), map(encode_entry, lines))
    tree = layer_tree(read_index(data).rows())
    assert flat_size([tree, tree], FILES_OF_RUNTIMES, 10).entries >= 1
    assert flat_size([], FILES_OF_RUNTIMES, 10) == one_by_one([], FILES_OF_RUNTIMES, 10)


@pytest.mark.parametrize("buffer", [1, 1 << 20], ids=["in a file", "in memory"])
def test_distinct_contents_are_those_of_a_set(buffer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.browse.statistics.distinct._BUFFER", buffer)
    groups = [
        {digest_of(f"{number % 70}".encode())[7:]: number % 70 for number in range(at, at + 60)}
        for at in range(0, 120, 20)
    ]
    groups.append({"0" * 64: 5, "f" * 64: 2**63 - 1})
    with DistinctContents() as distinct:
        for group in groups:
            distinct.add(Digests.of({digest_key(each): size for each, size in group.items()}))
        together = {each: size for group in groups for each, size in group.items()}
        assert distinct.count() == (len(together), sum(together.values()))
