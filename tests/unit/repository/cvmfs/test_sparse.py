"""Holes of sparse files are not written to the stream of the server."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publisher.entry import Content, Entry, EntryType, Hole
from publisher.ingest.run import ingest
from publisher.repository.cvmfs import sparse
from publisher.repository.cvmfs.configuration import Owner
from publisher.repository.cvmfs.stream import TarStream, UnfitForStream
from publisher.sources.open import Sources
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.cvmfs import Machine
from tests.layer_builder import file, image, layer, write_layout

NAME = "images.test.org"
MIB = 2**20


def send(*files: tuple[str, list[bytes | Hole]]) -> bytes:
    """The stream of files, each given by its name and the pieces of its content."""
    written: list[bytes] = []
    with TarStream(written.append, lambda path: None, Owner()) as stream:
        for name, pieces in files:
            stream.add(Entry(name, EntryType.FILE, size=size_of(pieces)), iter(pieces))
        stream.end()
    return b"".join(written)


def size_of(pieces: list[bytes | Hole]) -> int:
    return sum(p.size if isinstance(p, Hole) else len(p) for p in pieces)


def written_out(pieces: list[bytes | Hole]) -> bytes:
    return b"".join(bytes(p.size) if isinstance(p, Hole) else p for p in pieces)


def assert_is_read_back(data: bytes, name: str, content: bytes) -> None:
    """By Python and by GNU tar; both know sparse members, as libarchive does."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        read = archive.extractfile(name)
        assert read is not None and read.read() == content
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["tar", "-x", "-C", folder, name], input=data, check=True)
        assert (Path(folder) / name).read_bytes() == content


@pytest.mark.parametrize(
    "pieces",
    [
        [Hole(50 * MIB)],
        [b"head", Hole(50 * MIB)],
        [Hole(50 * MIB), b"tail"],
        [b"a", b"b", Hole(5 * MIB), b"c", Hole(5 * MIB + 1), b"d" * 700],
        [piece for n in range(60) for piece in (Hole(100_000), b"%d" % n)],
    ],
    ids=["only a hole", "hole at the end", "hole at the start", "two holes", "60 regions"],
)
def test_a_file_with_holes_is_a_small_member_with_the_same_content(
    pieces: list[bytes | Hole],
) -> None:
    data = send(("f", pieces), ("next", [b"next"]))
    assert len(data) < 100_000
    assert_is_read_back(data, "f", written_out(pieces))
    assert_is_read_back(data, "next", b"next")


pieces_of_files = st.lists(
    st.one_of(
        st.integers(1, 700_000).map(Hole),
        st.binary(min_size=1, max_size=3000),
        st.integers(1, 3 * MIB).map(lambda size: b"x" * size),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(pieces_of_files)
def test_any_pattern_of_holes_is_read_back(pieces: list[bytes | Hole]) -> None:
    data = send(("f", pieces), ("next", [b"next"]))
    assert_is_read_back(data, "f", written_out(pieces))
    assert_is_read_back(data, "next", b"next")


def test_a_file_whose_stored_content_does_not_fit_in_memory_is_sent_with_its_holes_filled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sparse, "MOST_STORED", 2 * MIB)
    pieces: list[bytes | Hole] = [Hole(MIB), *[b"x" * MIB] * 4, Hole(MIB), b"end"]
    data = send(("f", pieces))
    assert size_of(pieces) < len(data)
    assert_is_read_back(data, "f", written_out(pieces))


def test_a_file_without_holes_is_not_held_in_memory() -> None:
    taken = 0

    def content() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(64):
            taken += 1
            yield bytes(MIB)

    found, _ = sparse.find_regions(content(), 64 * MIB)
    assert found is None and taken <= 2


@pytest.mark.parametrize("content", [[Hole(2 * MIB)], [Hole(MIB), b"x" * (3 * MIB)]])
def test_a_sparse_file_of_another_size_than_its_header_is_refused(content: Content) -> None:
    with TarStream(lambda data: None, lambda path: None, Owner()) as stream:
        with pytest.raises(UnfitForStream, match=f"{3 * MIB} bytes"):
            stream.add(Entry("f", EntryType.FILE, size=3 * MIB), content)


def test_an_image_with_a_hole_of_two_gigabytes_is_published_by_a_small_stream(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 2 * 10**9
    regions = {"GNU.sparse.map": f"{size - 5},5", "GNU.sparse.size": str(size)}
    write_layout(image(layer(file("f", b"tail!", pax=regions))), tmp_path / "layout", "1")
    repository = machine.open(machine.make(NAME))
    with tempfile.TemporaryDirectory(dir=tmp_path) as record, Sources() as sources:
        monkeypatch.setenv("CVMFS_STANDIN_RECORD", record)
        wish = wish_for(f"oci:{tmp_path}/layout:1", name="tool")
        report = ingest([Request(wish)], repository, sources)
        assert not report.failed, report.outcomes[0].error
        [stream] = Path(record).iterdir()
        assert stream.stat().st_size < 2_000_000
    published = machine.published(NAME) / "local/tool:1/f"
    status = published.stat()
    assert status.st_size == size and status.st_blocks * 512 < MIB
    with published.open("rb") as content:
        content.seek(size - 10)
        assert content.read() == bytes(5) + b"tail!"
    assert not verify(repository, deep=True).findings
    repository.close()
    assert os.path.lexists(published)
