from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.entry import Entry, EntryType, sort_key
from publisher.layers.catalogs import catalog_sizes, plan_catalogs

names = st.sampled_from(["a", "b", "c", "d.", "e-"])


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    """Entries of a tree, as an index has them."""
    files = draw(st.lists(st.lists(names, min_size=1, max_size=6).map(tuple), max_size=60))
    directories = {file[:n] for file in files for n in range(len(file))} | {()}
    entries = {"/".join(d): EntryType.DIRECTORY for d in directories}
    entries |= {"/".join(f): EntryType.FILE for f in files if f not in directories}
    return [Entry(path, entries[path]) for path in sorted(entries, key=sort_key)]


def counted_sizes(entries: list[Entry], chosen: frozenset[str]) -> Counter[str]:
    """How many entries each catalog has; counted the other way round: from each entry upwards."""
    sizes: Counter[str] = Counter()
    for entry in entries:
        at = entry.path
        if at in chosen:
            sizes[at] += 1  # the root of its own catalog, and a mount point in the one above
        while at:
            at = at.rpartition("/")[0]
            if at in chosen or not at:
                break
        sizes[at] += 1
    return sizes


@given(trees(), st.integers(2, 40))
def test_no_catalog_exceeds_the_limit_unless_one_directory_does_by_itself(
    entries: list[Entry], limit: int
) -> None:
    chosen = plan_catalogs(entries, limit)
    children = Counter(entry.path.rpartition("/")[0] for entry in entries if entry.path)
    sizes = counted_sizes(entries, chosen)
    assert catalog_sizes(entries, limit) == sizes
    for catalog, size in sizes.items():
        crowded = any(
            count + 1 > limit and (path == catalog or not catalog or path.startswith(f"{catalog}/"))
            for path, count in children.items()
        )
        assert size <= limit or crowded


@given(trees(), st.integers(2, 40))
def test_catalogs_start_in_directories_below_the_root(entries: list[Entry], limit: int) -> None:
    directories = {entry.path for entry in entries if entry.type is EntryType.DIRECTORY}
    assert plan_catalogs(entries, limit) <= directories - {""}


@given(trees())
def test_a_tree_within_the_limit_needs_no_nested_catalog(entries: list[Entry]) -> None:
    assert plan_catalogs(entries, max(2, len(entries))) == frozenset()


def test_the_largest_subtrees_are_cut_off_first() -> None:
    paths = ["", "big", *(f"big/{n:02}" for n in range(20)), "small", "small/x", "top"]
    entries = [
        Entry(p, EntryType.DIRECTORY if p in ("", "big", "small") else EntryType.FILE)
        for p in paths
    ]
    assert plan_catalogs(entries, 21) == {"big"}


def test_many_tiny_directories_do_not_become_many_catalogs() -> None:
    entries = [Entry("", EntryType.DIRECTORY)]
    for number in range(200):
        entries += [
            Entry(f"{number:03}", EntryType.DIRECTORY),
            Entry(f"{number:03}/x", EntryType.FILE),
        ]
    assert plan_catalogs(entries, 100) == frozenset()


def test_a_limit_that_no_catalog_could_keep_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        plan_catalogs([], 1)
