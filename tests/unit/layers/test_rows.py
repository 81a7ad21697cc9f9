"""The rows of a ledger are the same in memory, in a database, and if they are moved at any time."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from hypothesis import given, settings

from publisher.entry import Content, Entry
from publisher.layers import ledger, rows
from publisher.layers.errors import LayerError
from publisher.layers.policy import Policy
from publisher.layers.rows import RowsInMemory
from publisher.layers.unpack import unpack
from tests.layer_builder import (
    Layer,
    Member,
    directory,
    file,
    hardlink,
    layer,
    opaque,
    symlink,
    whiteout,
)
from tests.stacks import Draft, drafts


class _Sink:
    def __init__(self) -> None:
        self.added: list[Entry] = []

    def add(self, entry: Entry, content: Content = ()) -> None:
        self.added.append(entry)

    def finish(self) -> None: ...


def unpacked(built: Layer) -> object:
    """The index and what the tree is made of, or the error."""
    sink, index = _Sink(), io.BytesIO()
    try:
        unpack(built.chunks(), built.descriptor, built.diff_id, sink, index, Policy())
    except LayerError as error:
        return str(error)
    return index.getvalue(), sink.added


def unpacked_with(built: Layer, in_memory: int) -> object:
    """The same, where so many rows are in memory at most."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "_MOST_IN_MEMORY", in_memory)
        return unpacked(built)


@given(drafts())
@settings(max_examples=60)
def test_layers_are_the_same_wherever_their_rows_are(draft: Draft) -> None:
    built = draft.build()
    usual = unpacked(built)
    for in_memory in (0, 2, 4, 7):
        assert unpacked_with(built, in_memory) == usual


ORDINARY = [
    directory("d"),
    file("d/f", b"1"),
    hardlink("d/g", "d/f"),
    hardlink("h", "d/g"),
    file("é", b"2"),
    symlink("s", "d"),
    file("s/below", b"3"),
    whiteout("d/gone"),
    whiteout("h"),
    opaque("d/o"),
    file("d/o/new", b"4"),
    whiteout("d/o"),
    file("implied/f", b"8"),
    whiteout("implied"),
    opaque("implied"),
    file("d/f", b"replaced"),
]
MOVED = [
    hardlink("early", "late"),
    hardlink("nowhere", "of/a/lower/layer"),
    file("late", b"5"),
    directory("replaced"),
    file("replaced/f", b"6"),
    file("replaced", b"7"),
]


@pytest.mark.parametrize("members", [ORDINARY, ORDINARY + MOVED], ids=["in memory", "moved"])
def test_rows_are_moved_at_any_time(members: list[Member], moves: list[int]) -> None:
    built = layer(*members)
    usual = unpacked(built)
    assert not isinstance(usual, str), usual
    assert bool(moves) == (members != ORDINARY)
    for in_memory in range(24):
        assert unpacked_with(built, in_memory) == usual


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of rows that are moved."""
    found: list[int] = []
    original = RowsInMemory.in_database

    def counted(self: RowsInMemory) -> rows.RowsInDatabase:
        found.append(self.count().total())
        return original(self)

    monkeypatch.setattr(RowsInMemory, "in_database", counted)
    yield found


def test_an_ordinary_layer_needs_no_database_and_memory_is_bounded(
    moves: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = [directory("d"), file("d/f"), hardlink("g", "d/f"), whiteout("x"), opaque("o")]
    unpacked(layer(*ordinary, *ordinary))  # a file replaces a file
    assert moves == []
    unpacked_with(layer(*(file(f"f{n}") for n in range(100))), 10)
    assert moves == [10]
    monkeypatch.setattr(ledger, "_MOST_BYTES_IN_MEMORY", 2000)
    unpacked(layer(*(file(f"f{n}") for n in range(100))))
    assert 5 < moves[1] < 20
    unpacked(layer(file("f", xattrs={"user.a": bytes(3000)})))
    assert moves[2:] == [1]


def test_nothing_searches_all_rows_in_memory_once_for_each_entry(moves: list[int]) -> None:
    """Each directory that a file replaces, and each link to a lower layer, would be a search."""
    unpacked(layer(directory("d"), file("d/f"), file("d"), directory("d"), file("d")))
    unpacked(layer(file("f"), hardlink("a", "below"), hardlink("b", "below")))
    assert len(moves) == 2
