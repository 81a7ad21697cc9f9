from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from publisher.entry import Entry, EntryType, Merged, sort_key
from publisher.layers.errors import LayerError
from publisher.layers.fixups import fixups
from publisher.layers.merge import merge
from publisher.repository.directory.linker import apply_fixups, link_tree
from tests.engine import Unpacked, names_below, publish, unpack_layer
from tests.layer_builder import directory, file, hardlink, layer, opaque, whiteout
from tests.stacks import Draft, stacks
from tests.trees import assert_same_tree

FILE, DIRECTORY, WHITEOUT = EntryType.FILE, EntryType.DIRECTORY, EntryType.WHITEOUT


class Watched(list[Entry]):
    """An index that notes which entries were read."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        super().__init__(entries)
        self.read: list[str] = []

    def __iter__(self) -> Iterator[Entry]:
        for entry in super().__iter__():
            self.read.append(entry.path)
            yield entry


def entries(*described: tuple[str, EntryType], **fields: object) -> list[Entry]:
    """Entries of an index, with the root and all parents that are missing."""
    found = {path: Entry(path, kind, sha256=path) for path, kind in described}
    for path in list(found):
        while path:
            path = path.rpartition("/")[0]
            found.setdefault(path, Entry(path, DIRECTORY, implicit=True))
    return sorted(found.values(), key=lambda entry: sort_key(entry.path))


def apply_in_turn(indexes: Sequence[Sequence[Entry]]) -> dict[str, Entry]:
    """The specification, implemented the simple way: one layer after the other, in a dict."""
    image: dict[str, Entry] = {}

    def delete_below(path: str) -> None:
        for known in [p for p in image if p and (not path or p.startswith(f"{path}/"))]:
            del image[known]

    for index in indexes:
        for entry in index:
            if entry.type is WHITEOUT:
                image.pop(entry.path, None)
            if entry.type is WHITEOUT or entry.opaque or entry.type is not DIRECTORY:
                delete_below(entry.path)
        lower = dict(image)
        for entry in index:
            old = image.get(entry.path)
            if entry.type is WHITEOUT:
                continue
            if entry.is_unresolved:
                target = _resolve(lower, entry.target)
                entry = replace(target, path=entry.path)
            is_there = old is not None and old.type is DIRECTORY
            if entry.implicit and is_there:
                continue
            image[entry.path] = replace(entry, opaque=False)
    return image


def _resolve(image: dict[str, Entry], path: str) -> Entry:
    assume(path in image)  # deleted by this very layer: the model is too simple for that
    return image[path]


def comparable(entry: Entry) -> tuple[object, ...]:
    """Return the visible properties of an entry. A hard link is a file like its other names."""
    is_file = entry.type in (FILE, EntryType.HARDLINK)
    return (
        FILE if is_file else entry.type,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size,
        entry.mtime_ns,
        "" if is_file else entry.target,
        entry.sha256,
        dict(entry.xattrs),
    )


def unpack_stack(stack: list[Draft], place: Path) -> list[Unpacked]:
    try:
        return [
            unpack_layer(draft.build(), place / str(number)) for number, draft in enumerate(stack)
        ]
    except LayerError:
        assume(False)
        raise


@settings(max_examples=200, deadline=None)
@given(stack=stacks())
def test_merging_gives_the_same_as_applying_layers_one_by_one(
    stack: list[Draft], tmp_path_factory: pytest.TempPathFactory
) -> None:
    unpacked = unpack_stack(stack, tmp_path_factory.mktemp("merge"))
    try:
        merged = list(merge([each.index for each in unpacked]))
    except LayerError:
        assume(False)
        raise
    expected = apply_in_turn([list(each.index) for each in unpacked])
    assert {m.entry.path: comparable(m.entry) for m in merged} == {
        path: comparable(entry) for path, entry in expected.items()
    }
    check_plan(merged, unpacked)


def check_plan(merged: list[Merged], unpacked: list[Unpacked]) -> None:
    """Sorted, parents first, sources that exist, hard links to earlier entries."""
    paths = [m.entry.path for m in merged]
    assert paths == sorted(paths, key=sort_key)
    assert len(paths) == len(set(paths))
    seen: dict[str, Entry] = {}
    for item in merged:
        entry = item.entry
        if entry.path:
            assert seen[entry.path.rpartition("/")[0]].type is DIRECTORY
        source = unpacked[item.layer].entries[item.source]
        if entry.type is EntryType.HARDLINK:
            assert seen[entry.target].type is FILE
            assert seen[entry.target].sha256 == entry.sha256
        if entry.type is FILE:
            assert source.sha256 == entry.sha256
        assert entry.type is not WHITEOUT
        seen[entry.path] = entry


def test_no_layers_merge_into_no_entries() -> None:
    assert list(merge([])) == []


def test_a_single_layer_is_merged_into_itself_without_whiteouts() -> None:
    only = entries(("a", FILE), ("b", WHITEOUT), ("c/d", FILE))
    assert [m.entry.path for m in merge([only])] == ["", "a", "c", "c/d"]


def test_each_merged_entry_names_its_layer() -> None:
    lower = entries(("a", FILE), ("b", FILE), ("d/x", FILE))
    upper = entries(("b", FILE), ("d/y", FILE))
    placed = {m.entry.path: m.layer for m in merge([lower, upper])}
    assert placed == {"": 1, "a": 0, "b": 1, "d": 1, "d/x": 0, "d/y": 1}


def test_siblings_whose_names_sort_before_the_slash_are_not_children() -> None:
    lower = entries(("a", DIRECTORY), ("a/x", FILE), ("a-b", FILE), ("a!", DIRECTORY))
    upper = entries(("a", WHITEOUT), ("a!/z", FILE))
    assert [m.entry.path for m in merge([lower, upper])] == ["", "a!", "a!/z", "a-b"]


def test_an_index_is_read_while_the_result_is_iterated() -> None:
    big = Watched(entries(*((f"f{n:04}", FILE) for n in range(1000))))
    plan = merge([big])
    big.read.clear()
    next(plan)
    looked_ahead = len(big.read) - 1001 if len(big.read) > 1001 else len(big.read)
    assert looked_ahead < 5


@pytest.mark.parametrize("layers_below", [1, 3])
def test_fixups_are_only_what_the_top_layer_needs(layers_below: int, tmp_path: Path) -> None:
    base = layer(directory("d", mode=0o700), file("d/f", b"1"), file("e/g", b"2"))
    middle = [layer(file(f"m{n}")) for n in range(layers_below - 1)]
    top = layer(file("d/new"), hardlink("h", "d/f"), directory("e", mode=0o711))
    stack = [base, *middle, top]
    unpacked = [unpack_layer(each, tmp_path / str(n)) for n, each in enumerate(stack)]
    found = list(fixups([each.index for each in unpacked]))
    assert [(f.entry.path, f.entry.type, f.layer) for f in found] == [
        ("d", DIRECTORY, None),
        ("h", FILE, 0),
    ]
    assert found[0].entry.mode == 0o700
    assert found[1].source == "d/f"
    assert list(fixups([unpacked[0].index])) == []


@settings(max_examples=150)
@given(stack=stacks(), xattrs=st.booleans())
def test_fixups_read_no_further_than_they_need_to(
    stack: list[Draft], xattrs: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("stack")
    try:
        layers = [unpack_layer(draft.build(), folder / str(n)) for n, draft in enumerate(stack)]
        found = list(fixups([each.index for each in layers], xattrs))
    except LayerError:
        assume(False)
        raise
    # A marker in the last place there is has everything read, and adds nothing.
    last = Entry("\udcff" * 255, DIRECTORY, implicit=True)
    assert found == list(
        fixups([*(each.index for each in layers[:-1]), [*layers[-1].index, last]], xattrs)
    )


@settings(max_examples=60)
@given(other=stacks(), stack=stacks())
def test_flat_images_are_right_whichever_image_the_layer_trees_were_completed_for(
    other: list[Draft], stack: list[Draft], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shared")
    layers = [draft.build() for draft in stack]
    try:
        fresh = publish(folder / "fresh", *layers)
        below = [unpack_layer(draft.build(), folder / f"o{n}") for n, draft in enumerate(other)]
        shared = [unpack_layer(each, folder / f"s{n}") for n, each in enumerate(layers)]
        for each in shared:
            needed = fixups([*(o.index for o in below), each.index])
            apply_fixups(each.tree, needed, [o.tree for o in below])
    except LayerError:
        assume(False)
        raise
    link_tree(folder / "flat", merge([s.index for s in shared]), [s.tree for s in shared])
    assert_same_tree(folder / "flat", fresh.flat, directory_times=True)


def test_flat_images_use_no_fixups_made_for_another_image(
    tmp_path: Path,
) -> None:
    one = unpack_layer(layer(file("f", b"of one"), file("gone")), tmp_path / "one")
    two = unpack_layer(layer(file("f", b"of two"), directory("d", mode=0o700)), tmp_path / "two")
    top = unpack_layer(layer(opaque(""), hardlink("h", "f"), file("d/x")), tmp_path / "top")
    apply_fixups(top.tree, fixups([one.index, top.index]), [one.tree])
    assert (top.tree / "h").read_bytes() == b"of one"
    plan = merge([two.index, top.index])
    link_tree(tmp_path / "flat", plan, [two.tree, top.tree])
    assert sorted(names_below(tmp_path / "flat")) == ["d", "d/x", "h"]
    assert (tmp_path / "flat/h").read_bytes() == b"of two"


def test_lower_indexes_are_not_read_for_a_layer_that_has_all_its_entries() -> None:
    top = [Entry("", DIRECTORY), Entry("d", DIRECTORY), Entry("d/f", FILE), Entry("g", WHITEOUT)]
    below = Watched(entries(*((f"f{n:04}", FILE) for n in range(1000))))
    assert list(fixups([below, top])) == []
    assert below.read == []


def test_only_the_roots_of_lower_indexes_are_read_for_a_layer_that_implies_its_root() -> None:
    top = entries(("f", FILE))
    below = Watched(
        [Entry("", DIRECTORY, 0o711), *entries(*((f"f{n:04}", FILE) for n in range(1000)))[1:]]
    )
    (found,) = fixups([below, top])
    assert (found.entry.path, found.entry.mode) == ("", 0o711)
    looking_for_links = 1000  # which a real index's header answers
    assert len(below.read) < looking_for_links + 10


@pytest.mark.parametrize("lower", ["z", "z/x", "a"])
def test_a_dropped_device_needs_a_whiteout_only_where_it_hides_something(lower: str) -> None:
    top = [*entries(("f", FILE)), Entry("z", WHITEOUT, dropped=("device",))]
    top[0] = Entry("", DIRECTORY)
    needed = [f.entry.path for f in fixups([entries((lower, FILE)), top])]
    assert needed == ([] if lower == "a" else ["z"])


def test_without_xattrs_opaque_directories_are_spelled_out_as_whiteouts(tmp_path: Path) -> None:
    base = layer(file("d/a"), file("d/e/b"), file("d/e/c"), file("d/f/g"), file("kept"))
    top = layer(opaque("d"), file("d/e/b"), file("d/new"), whiteout("d/f"))
    unpacked = [unpack_layer(each, tmp_path / str(n)) for n, each in enumerate([base, top])]
    found = fixups([each.index for each in unpacked], opaque_xattrs=False)
    whiteouts = [f.entry.path for f in found if f.entry.type is WHITEOUT]
    assert whiteouts == ["d/a", "d/e/c", "d/f"]


@settings(max_examples=50)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=4))
def test_a_stack_of_equal_layers_merges_into_one_of_them(names: list[str]) -> None:
    index = entries(*((f"{name}/x", FILE) for name in set(names)))
    assert [m.entry for m in merge([index] * 3)] == [m.entry for m in merge([index])]
