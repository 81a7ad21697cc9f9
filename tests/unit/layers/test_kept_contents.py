"""What is kept of a layer in memory is what its blob contains."""

from __future__ import annotations

import mmap
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.entry import Content, Entry, EntryType
from publisher.errors import DigestMismatch
from publisher.layers import kept_contents as keeping
from publisher.layers.content import filled
from publisher.layers.errors import LayerError
from publisher.layers.kept_contents import ContentsWriter, is_complete, kept_contents
from publisher.layers.policy import Policy
from publisher.layers.replay import FileOrder, PassOn, StagedContents, read_contents_here, replay
from publisher.layers.unpack import unpack
from tests.layer_builder import Layer, Member, directory, file, hardlink, layer, symlink, whiteout

SIZE = 1_000_000
EVERYTHING = layer(
    file("d/f", b"replaced by a file"),
    file("d/f", b"content"),
    file("gone", b"replaced by a directory"),
    directory("gone"),
    file("link", b"replaced by a link"),
    symlink("link", "d/f"),
    file("large", os.urandom(300_000)),
    hardlink("a", "large"),
    file("large", b"what a is not"),
    hardlink("d/same", "d/f"),
    hardlink("early", "late"),
    file("late", b"after its link"),
    hardlink("below", "in/a/lower/layer"),
    file("empty"),
    file("caf\udce9", b"no UTF-8"),
    whiteout("white"),
)


class Staged:
    """A layer that was unpacked as for CVMFS, once; also to memory of `size` bytes."""

    def __init__(self, source: Layer, folder: Path, size: int = SIZE) -> None:
        self.files = StagedContents(*(folder / name for name in ("blob", "index", "order", "-")))
        self.files.blob.write_bytes(source.blob)
        self.descriptor = os.memfd_create("layer")
        os.ftruncate(self.descriptor, size)
        with (
            closing(_Both(self.files.order, self.descriptor)) as sink,
            self.files.index.open("wb") as index,
        ):
            unpack(
                source.chunks(),
                source.descriptor,
                source.diff_id,
                sink,
                index,
                Policy(),
                kept=sink.kept,
            )

    def sent(self, pass_on: PassOn) -> list[tuple[Entry, bytes]]:
        """What is sent, in the order of the index; raises LayerError for other contents."""
        found: list[tuple[Entry, bytes]] = []

        def add(entry: Entry, content: Content) -> None:
            found.append((entry, b"".join(filled(content))))

        with self.files.index.open("rb") as index:
            replay(index, (), pass_on, add, lambda _: None)
        return sorted(found, key=lambda each: each[0].path)

    def from_blob(self) -> list[tuple[Entry, bytes]]:
        """What is sent if the blob is read again: the oracle."""
        with read_contents_here(self.files) as pass_on:
            return self.sent(pass_on)

    def kept(self) -> PassOn | None:
        """The reader of the memory; None if the layer was not kept."""
        if not is_complete(self.descriptor):
            return None
        memory = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)
        return kept_contents(memory, "layer x")


class _Both:
    """Records the order of contents, and keeps them."""

    def __init__(self, order: Path, memory: int) -> None:
        self._order = FileOrder(order)
        self.kept = ContentsWriter(memory)

    def add(self, entry: Entry, content: Content = ()) -> None:
        self._order.add(entry, content)
        self.kept.add(entry, content)

    def finish(self) -> None:
        self._order.finish()

    def close(self) -> None:
        self._order.close()
        self.kept.close()


@contextmanager
def staged(source: Layer, folder: Path, size: int = SIZE) -> Iterator[Staged]:
    made = Staged(source, folder, size)
    try:
        yield made
    finally:
        os.close(made.descriptor)


@pytest.mark.parametrize(("written", "held", "piece"), [(1, 1000, 1), (10**6, 2, 1 << 20)])
def test_what_is_kept_is_sent_as_what_is_in_the_blob(
    written: int, held: int, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_WRITTEN_BYTES", written)
    monkeypatch.setattr(keeping, "_MOST_HELD", held)
    monkeypatch.setattr(keeping, "_PIECE", piece)
    with staged(EVERYTHING, tmp_path) as made:
        kept = made.kept()
        assert kept is not None
        expected = made.from_blob()
        assert made.sent(kept) == expected
        sent = {entry.path: content for entry, content in expected}
        assert len(sent["a"]) == 300_000 and sent["large"] == b"what a is not"


names = st.sampled_from(["a", "b", "d/a", "d/b", "e"])
members = st.one_of(
    st.builds(file, names, st.binary(max_size=9)),
    st.builds(directory, names),
    st.builds(symlink, names, names),
    st.builds(hardlink, names, names),
    st.builds(whiteout, names),
)


@given(archive=st.lists(members, max_size=8))
def test_any_archive_is_kept_as_its_blob_is_read(
    archive: list[Member], tmp_path_factory: pytest.TempPathFactory
) -> None:
    try:
        made = Staged(layer(*archive), tmp_path_factory.mktemp("layer"))
    except LayerError:
        return  # refused when it arrives
    try:
        kept = made.kept()
        assert kept is not None
        assert made.sent(kept) == made.from_blob()
    finally:
        os.close(made.descriptor)


def test_a_layer_that_does_not_fit_is_not_kept(tmp_path: Path) -> None:
    source = layer(file("a", b"123"), file("b", b"45"), hardlink("c", "b"))
    least = next(size for size in range(16, 200) if _is_kept(source, tmp_path, size))
    # Two files of five bytes; the head, and the table of two files, have 16 bytes for each.
    assert least == 16 + 5 + 2 * 16
    assert _is_kept(source, tmp_path, least + 1)


def _is_kept(source: Layer, folder: Path, size: int) -> bool:
    place = folder / str(size)
    place.mkdir()
    with staged(source, place, size) as made:
        kept = made.kept()
        assert kept is None or made.sent(kept) == made.from_blob()
        return kept is not None


def test_sparse_files_and_more_files_than_are_held_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holes = {"GNU.sparse.map": "5000,4", "GNU.sparse.size": "10000"}
    assert not _is_kept(layer(file("a", b"a"), file("s", b"data", pax=holes)), tmp_path, SIZE)
    monkeypatch.setattr(keeping, "_MOST_FILES", 3)
    assert _is_kept(layer(*(file(f"{n}") for n in range(3))), tmp_path, SIZE + 1)
    assert not _is_kept(layer(*(file(f"{n}") for n in range(4))), tmp_path, SIZE + 2)


@pytest.mark.parametrize(
    ("head", "table"),
    [
        ((2**63, 16), (16, 3)),
        ((100, 8), (16, 3)),
        ((100, 16), (2**63, 3)),
        ((100, 16), (16, 2**64 - 1)),
        ((100, 16), (17, 3)),
        ((100, 0), (16, 3)),
        ((100, 32), (16, 3)),
    ],
    ids=["place", "half", "beyond", "long", "other", "few", "many"],
)
def test_memory_that_a_process_forged_is_an_error(
    head: tuple[int, int], table: tuple[int, int], tmp_path: Path
) -> None:
    with staged(layer(file("a", b"abc")), tmp_path) as made:
        os.pwrite(made.descriptor, struct.pack("<QQ", *table), 100)
        os.pwrite(made.descriptor, struct.pack("<QQ", *head), 0)
        kept = made.kept()
        assert kept is not None
        with pytest.raises(LayerError, match=r"damaged|do not agree"):
            made.sent(kept)


def test_changed_contents_are_an_error(tmp_path: Path) -> None:
    with staged(layer(file("a", b"abc")), tmp_path) as made:
        os.pwrite(made.descriptor, b"x", 17)
        kept = made.kept()
        assert kept is not None
        with pytest.raises(LayerError, match="do not agree"):
            made.sent(kept)


def test_nothing_is_kept_of_a_layer_that_was_not_unpacked_to_its_end(tmp_path: Path) -> None:
    source = layer(file("a", b"abc"))
    with staged(source, tmp_path) as made:
        os.pwrite(made.descriptor, bytes(16), 0)
        with (
            closing(_Both(tmp_path / "other", made.descriptor)) as sink,
            (tmp_path / "index").open("wb") as index,
            pytest.raises(DigestMismatch),
        ):
            chunks = [source.blob[:-20]]
            unpack(chunks, source.descriptor, source.diff_id, sink, index, Policy(), kept=sink.kept)
        assert made.kept() is None


@pytest.mark.parametrize("limit", [16, 100_000], ids=["nothing", "a part"])
def test_what_could_not_be_written_is_not_kept(limit: int) -> None:
    memory = os.memfd_create("layer")
    os.ftruncate(memory, SIZE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with ContentsWriter(memory) as writer:
            writer.add(Entry("a", EntryType.FILE, size=300_000), (bytes(300_000),))
            assert list(writer.in_order(["header"])) == ["header"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not is_complete(memory)
    os.close(memory)


def test_layers_with_many_small_files_are_kept(tmp_path: Path) -> None:
    assert _is_kept(layer(*(file(f"{number}", b"x") for number in range(1100))), tmp_path, SIZE)


def test_memory_that_is_smaller_than_its_head_is_not_complete() -> None:
    memory = os.memfd_create("layer")
    os.write(memory, b"\xff" * 15)
    assert not is_complete(memory)
    os.close(memory)


def test_only_files_are_noted(tmp_path: Path) -> None:
    with staged(layer(directory("d"), symlink("s", "d")), tmp_path) as made:
        kept = made.kept()
        assert kept is not None
        types = {entry.type for entry, _ in made.sent(kept)}
        assert types == {EntryType.DIRECTORY, EntryType.SYMLINK}
