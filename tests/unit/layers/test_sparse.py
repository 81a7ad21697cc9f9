"""Sparse files: their holes take no space, in the archive's tree and in copies of it."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.entry import Content, Entry, EntryType, Hole
from publisher.layers import replay as replaying
from publisher.layers import temporary
from publisher.layers.content import ContentHash, filled, read_content
from publisher.layers.errors import LayerError, LimitExceeded
from publisher.layers.policy import Limits, Policy
from publisher.layers.replay import Add, FileOrder, StagedContents, read_contents_here, replay
from publisher.layers.unpack import unpack as unpack_into
from tests.engine import Unpack, publish
from tests.layer_builder import Layer, Member, file, hardlink, layer

SIZE = 300 * 2**20
STORED = b"stored" * 1000


def sparse(name: str = "f", size: int = SIZE, at: int = 100 * 2**20) -> Member:
    """A file of `size` bytes, of which a few are stored."""
    regions = {"GNU.sparse.map": f"{at},{len(STORED)}", "GNU.sparse.size": str(size)}
    return file(name, STORED, pax=regions)


def space(path: Path) -> int:
    return path.stat().st_blocks * 512


def digest_with_zeros(before: int, after: int) -> str:
    hashed = hashlib.sha256()
    for count in (before, -1, after):
        hashed.update(STORED if count < 0 else bytes(count))
    return hashed.hexdigest()


EXPECTED = digest_with_zeros(100 * 2**20, 200 * 2**20 - len(STORED))


def test_holes_stay_holes_in_the_tree_and_its_copies(tmp_path: Path) -> None:
    published = publish(tmp_path, layer(sparse()), layer(hardlink("copy", "f")))
    for path in (published.trees[0] / "f", published.trees[1] / "copy", published.flat / "f"):
        assert path.stat().st_size == SIZE
        assert space(path) < 2**20
        with path.open("rb") as opened:
            opened.seek(100 * 2**20)
            assert opened.read(len(STORED) + 1) == STORED + b"\0"
    entry = published.layers[0].entries["f"]
    assert (entry.size, entry.sha256) == (SIZE, EXPECTED)
    header = published.layers[0].index.header
    assert (header.content_size, header.holes) == (SIZE, SIZE - len(STORED))


def test_layer_bytes_count_what_is_stored_and_another_limit_what_it_looks_like(
    unpack: Unpack,
) -> None:
    few = Limits(layer_bytes=100_000, layer_apparent_bytes=SIZE)
    assert unpack(sparse(), policy=Policy(limits=few)).entries["f"].size == SIZE
    with pytest.raises(LimitExceeded, match="holes of sparse files"):
        unpack(sparse(), file("g", b"1"), policy=Policy(limits=few))
    with pytest.raises(LimitExceeded, match="more than 5000 bytes"):
        unpack(sparse(), policy=Policy(limits=Limits(layer_bytes=5000)))


def stage(source: Layer, folder: Path) -> StagedContents:
    staged = StagedContents(*(folder / name for name in ("blob", "index", "order", "scratch")))
    order = FileOrder(staged.order)
    with staged.index.open("wb") as index:
        unpack_into(source.chunks(), source.descriptor, source.diff_id, order, index, Policy())
    order.close()
    staged.blob.write_bytes(source.blob)
    return staged


def replayed(staged: StagedContents, add: Add = lambda *_: None) -> None:
    with staged.index.open("rb") as index, read_contents_here(staged) as contents:
        replay(index, (), contents, add, lambda _: None)


def test_a_replayed_layer_still_has_its_holes(tmp_path: Path) -> None:
    source = layer(file("a", b"1"), sparse(), file("f2", b"2"))
    pieces: dict[str, list[int]] = {}

    def add(entry: Entry, content: Content) -> None:
        if entry.type is EntryType.FILE:
            holes = [piece.size for piece in content if isinstance(piece, Hole)]
            pieces[entry.path] = holes

    replayed(stage(source, tmp_path), add)
    assert pieces == {"a": [], "f": [100 * 2**20, 200 * 2**20 - len(STORED)], "f2": []}


def test_a_full_directory_of_temporary_files_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = layer(*(file(f"{n:0200}") for n in range(3000)))
    staged = stage(source, tmp_path)
    monkeypatch.setattr(replaying, "_BYTES_IN_MEMORY", 1000)
    settings = temporary._SETTINGS
    monkeypatch.setattr(temporary, "_SETTINGS", settings + "PRAGMA max_page_count = 20;")
    with pytest.raises(LayerError, match=r"cannot send layer .*full .*SQLITE_TMPDIR"):
        replayed(staged)


def test_a_damaged_list_of_what_was_staged_is_an_error(tmp_path: Path) -> None:
    source = layer(file("a"))
    staged = stage(source, tmp_path)
    staged.order.write_bytes(b"not a database" * 1000)
    with pytest.raises(LayerError, match="damaged"):
        replayed(staged)


def test_a_list_of_what_was_staged_that_computes_something_is_an_error(tmp_path: Path) -> None:
    source = layer(file("a"))
    staged = stage(source, tmp_path)
    staged.order.unlink()
    with closing(sqlite3.connect(staged.order)) as database:
        database.execute("CREATE VIEW file AS SELECT CAST('a' AS BLOB) AS key, 1 AS number")
        database.commit()
    with pytest.raises(LayerError, match="damaged: it has other tables"):
        replayed(staged)


contents = st.lists(
    st.one_of(st.binary(max_size=9), st.integers(1, 3 * 2**20).map(Hole)), max_size=5
)


@given(pieces=contents)
def test_the_digest_of_holes_is_that_of_zeros(pieces: list[bytes | Hole]) -> None:
    hashed = ContentHash()
    for piece in pieces:
        hashed.update(piece)
    assert hashed.hexdigest() == hashlib.sha256(b"".join(filled(pieces))).hexdigest()


@given(pieces=contents)
def test_a_file_is_read_with_its_holes(
    pieces: list[bytes | Hole], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("file") / "f"
    whole = b"".join(filled(pieces))
    with path.open("wb") as out:
        for piece in pieces:
            if isinstance(piece, Hole):
                out.seek(piece.size, os.SEEK_CUR)
            else:
                out.write(piece)
        out.truncate(len(whole))
    with path.open("rb") as opened:
        assert b"".join(filled(read_content(opened.fileno()))) == whole
