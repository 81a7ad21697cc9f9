"""Images of many layers: what reading their indexes together costs, and what it gives."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from publisher.entry import Entry, EntryType, Fixup, sort_key
from publisher.layers import side_by_side
from publisher.layers.errors import LayerError, NoTemporarySpace
from publisher.layers.fixups import fixups, image_fixups
from publisher.layers.index import IndexHeader, LayerIndex, write_index
from publisher.layers.index_lines import encode_entry
from publisher.layers.merge import merge
from publisher.layers.side_by_side import FAN_IN, by_path
from tests.file_systems import full_temporary_files

T = EntryType
DIGEST = "sha256:" + "0" * 64


@dataclass
class Files:
    """The index files of an image, which count how often, and how many at once, they are opened."""

    contents: list[bytes]
    opened: Counter[int] = field(default_factory=Counter)
    open_now: int = 0
    most_open: int = 0

    def indexes(self) -> list[LayerIndex]:
        return [LayerIndex(lambda n=n: self._open(n)) for n in range(len(self.contents))]  # type: ignore[misc]

    @contextmanager
    def _open(self, number: int) -> Iterator[BinaryIO]:
        self.opened[number] += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            yield io.BytesIO(self.contents[number])
        finally:
            self.open_now -= 1


def written(entries: Sequence[Entry]) -> bytes:
    file = io.BytesIO()
    unresolved = sum(entry.is_unresolved for entry in entries)
    header = IndexHeader(DIGEST, DIGEST, 0, 0, len(entries), 0, unresolved)
    write_index(file, header, map(encode_entry, entries))
    return file.getvalue()


def closed(*found: Entry) -> list[Entry]:
    """These entries and the directories above them, sorted."""
    entries = {entry.path: entry for entry in found}
    for path in list(entries):
        while path:
            path = path.rpartition("/")[0]
            entries.setdefault(path, Entry(path, T.DIRECTORY, implicit=True))
    return sorted(entries.values(), key=lambda entry: sort_key(entry.path))


def image_of(count: int) -> Files:
    """A layer with a directory, and `count` layers of two files in it, which imply it."""
    names = (
        (Entry(f"d/{n:04}", T.FILE, sha256="0"), Entry(f"d/s{n % 7}", T.FILE, sha256=str(n)))
        for n in range(count)
    )
    base = [Entry("", T.DIRECTORY), Entry("d", T.DIRECTORY, 0o700)]
    return Files([written(base), *(written(closed(*pair)) for pair in names)])


@pytest.mark.parametrize("count", [FAN_IN - 1, FAN_IN, 3 * FAN_IN, FAN_IN**2])
def test_no_more_indexes_are_open_at_once_than_the_fan_in(count: int) -> None:
    files = image_of(count)
    paths = [merged.entry.path for merged in merge(files.indexes())]
    assert len(paths) == 2 + count + 7
    assert paths == sorted(paths, key=sort_key)
    assert files.most_open <= FAN_IN
    assert files.open_now == 0


def test_each_index_is_read_a_fixed_number_of_times_for_all_new_layers_of_an_image() -> None:
    reads = []
    for count in (5, 100):
        files = image_of(count)
        found = list(image_fixups(files.indexes(), range(count)))
        assert len(found) == 2 * (count - 1)  # the root and d, which all but the first imply
        reads.append(max(files.opened.values()))
    assert reads[0] == reads[1] <= 3


def test_an_abandoned_merge_leaves_no_index_open() -> None:
    files = image_of(2 * FAN_IN)
    plan = merge(files.indexes())
    next(plan)
    del plan
    assert files.open_now == 0


@st.composite
def drawn_index(draw: st.DrawFn) -> list[Entry]:
    """A sorted index of anything that lower layers can matter to."""
    entries = [draw(drawn_entry()) for _ in range(draw(st.integers(0, 6)))]
    files = {e.path for e in entries if e.type is not T.DIRECTORY}
    entries = [e for e in entries if not any(e.path.startswith(f"{path}/") for path in files)]
    return closed(Entry("", T.DIRECTORY, draw(modes), opaque=draw(rarely)), *entries)


modes = st.sampled_from([0o700, 0o755])
rarely = st.sampled_from([False, False, False, True])
paths = st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map("/".join)


@st.composite
def drawn_entry(draw: st.DrawFn) -> Entry:
    path, kind = draw(paths), draw(st.sampled_from([T.FILE, T.DIRECTORY, T.DIRECTORY, T.WHITEOUT]))
    if kind is T.DIRECTORY:
        return Entry(path, kind, draw(modes), opaque=draw(rarely), implicit=draw(rarely))
    if kind is T.WHITEOUT:
        return Entry(path, kind, 0, dropped=("device",) if draw(st.booleans()) else ())
    if draw(rarely):
        return Entry(path, T.HARDLINK, 0, links=0, target=draw(paths))
    return Entry(path, kind, draw(modes), sha256=str(draw(st.integers(0, 9))))


@settings(max_examples=300, deadline=None)
@given(st.lists(drawn_index(), min_size=1, max_size=7), st.booleans(), st.integers(2, 4))
def test_fixups_of_all_layers_in_one_pass_are_those_of_each_layer_alone(
    stack: list[list[Entry]], xattrs: bool, fan_in: int
) -> None:
    try:
        expected = [
            list(fixups([*stack[:number], stack[number]], xattrs)) for number in range(len(stack))
        ]
    except LayerError:
        assume(False)
        raise
    together: list[list[Fixup]] = [[] for _ in stack]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side, "FAN_IN", fan_in)
        for number, fixup in image_fixups(stack, range(len(stack)), xattrs):
            together[number].append(fixup)
    assert together == expected


@given(st.lists(drawn_index(), max_size=9), st.integers(2, 4))
def test_runs_in_a_temporary_file_change_nothing(stack: list[list[Entry]], fan_in: int) -> None:
    files = Files([written(index) for index in stack])
    expected = list(by_path(stack))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side, "FAN_IN", fan_in)
        assert list(by_path(stack)) == expected
        assert list(by_path(files.indexes())) == expected


def test_a_full_disk_of_temporary_files_is_named_as_such(tmp_path: Path) -> None:
    entries = [
        [Entry(f"{number}-{os.urandom(40).hex()}", T.FIFO) for _ in range(200)]
        for number in range(FAN_IN + 1)
    ]
    indexes = [sorted(each, key=lambda entry: sort_key(entry.path)) for each in entries]
    with full_temporary_files(tmp_path / "full"):
        with pytest.raises(NoTemporarySpace, match=r"temporary file.*No space left.*TMPDIR"):
            list(by_path(indexes))
