"""The stream that the server gets: its order, its checks, its bytes."""

from __future__ import annotations

import io
import itertools
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.entry import Entry, EntryType
from publisher.repository.cvmfs import stream
from publisher.repository.cvmfs.configuration import Owner
from publisher.repository.cvmfs.stream import TarStream, UnfitForStream
from publisher.repository.cvmfs.tar_header import END, encode, padding


def nothing(path: str) -> EntryType | None:
    return None


def directory(path: str) -> Entry:
    return Entry(path, EntryType.DIRECTORY, 0o755)


def file(path: str, size: int = 0) -> Entry:
    return Entry(path, EntryType.FILE, size=size)


def link(path: str, target: str) -> Entry:
    return Entry(path, EntryType.HARDLINK, target=target)


class Sent:
    """A stream, and what it wrote."""

    def __init__(self, kind: Callable[[str], EntryType | None] = nothing, base: str = "") -> None:
        self.written: list[bytes] = []
        self.stream = TarStream(self.written.append, kind, Owner(10, 20), base)

    @property
    def data(self) -> bytes:
        return b"".join(self.written)

    def members(self) -> list[tarfile.TarInfo]:
        self.stream.end()
        with tarfile.open(fileobj=io.BytesIO(self.data)) as archive:
            return archive.getmembers()


def test_missing_parents_are_sent_first_with_the_repositorys_owner() -> None:
    sent = Sent(lambda path: EntryType.DIRECTORY if path == "a" else None)
    sent.stream.add(file("a/b/c/f"))
    found = [(m.name, m.isdir(), m.uid, m.gid, m.mode) for m in sent.members()]
    assert found == [
        ("a/b", True, 10, 20, 0o755),
        ("a/b/c", True, 10, 20, 0o755),
        ("a/b/c/f", False, 0, 0, 0o644),
    ]


def test_catalogs_start_at_tops_shards_layers_and_images_and_not_in_a_layers_tree() -> None:
    sent = Sent()
    sent.stream.add(file(".layers/ab/abcd/layerfs/bin/sh"))
    sent.stream.add(file(".flat/cd/cdef/bin/sh"))
    sent.stream.add(file(".metadata/host/name:1/manifest.json"))
    sent.stream.add(Entry("host/name:1", EntryType.SYMLINK, target="../.flat/cd/cdef"))
    markers = {m.name for m in sent.members() if m.name.endswith("/.cvmfscatalog")}
    assert markers == {
        f"{place}/.cvmfscatalog"
        for place in (
            *(".layers", ".layers/ab", ".layers/ab/abcd"),
            *(".flat", ".flat/cd", ".flat/cd/cdef", ".metadata"),
        )
    }


def test_below_a_base_paths_are_relative_to_it() -> None:
    sent = Sent(
        lambda path: EntryType.DIRECTORY if path in (".layers", ".layers/ab") else None,
        ".layers/ab",
    )
    sent.stream.add(file(".layers/ab/abcd/f"))
    sent.stream.add(link(".layers/ab/abcd/l", ".layers/ab/abcd/f"))
    assert [(m.name, m.linkname) for m in sent.members()] == [
        ("abcd", ""),
        ("abcd/.cvmfscatalog", ""),
        ("abcd/f", ""),
        ("abcd/l", "abcd/f"),
    ]
    with pytest.raises(UnfitForStream, match="it is not below"):
        sent.stream.add(file("elsewhere"))


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([file("f"), file("f")], "already sent"),
        ([directory("d"), directory("d")], "already sent"),
        ([file("d/f"), directory("d")], "already sent"),
        ([file("f"), file("f/g")], "is not a directory"),
        ([directory("d"), link("l", "d")], "hard link to the directory"),
        ([link("l", "nowhere")], "does not exist"),
        ([file("a/../b")], "not normalized"),
        ([file("/a")], "not normalized"),
        ([file("a//b")], "not normalized"),
        ([file("a/./b")], "not normalized"),
        ([file("a/.wh.b")], "marker"),
        ([directory("a/.wh.b")], "marker"),
        ([file("a/.cvmfscatalog")], "interprets"),
        ([file(".cvmfsdirtab")], "interprets"),
        ([Entry("l", EntryType.SYMLINK)], "without a target"),
        ([file("there")], "an entry at that path already"),
        ([directory("known")], "an entry at that path already"),
        ([file("known/below")], "is not a directory"),
        ([file("f\0g")], "zero byte"),
    ],
)
def test_entries_that_would_abort_the_server_are_refused(entries: list[Entry], why: str) -> None:
    there = {"there": EntryType.DIRECTORY, "known": EntryType.FILE}
    sent = Sent(there.get)
    with pytest.raises(UnfitForStream, match=why):
        for entry in entries:
            sent.stream.add(entry)


@pytest.mark.parametrize("content", [b"12", b"1234"])
def test_content_of_another_size_than_in_its_header_is_refused(content: bytes) -> None:
    with pytest.raises(UnfitForStream, match="3 bytes"):
        Sent().stream.add(file("f", 3), [content])


@pytest.mark.parametrize("limit", [("_IN_MEMORY", 3), ("_BYTES_IN_MEMORY", 12)])
def test_all_sent_paths_are_known_also_those_that_are_not_in_memory(
    monkeypatch: pytest.MonkeyPatch, limit: tuple[str, int]
) -> None:
    monkeypatch.setattr(stream, *limit)
    sent = Sent()
    for number in range(10):
        sent.stream.add(file(f"d{number % 2}/f{number}"))
    sent.stream.add(link("d0/again", "d1/f1"))
    for repeated in ("d0/f0", "d1/f9", "d0/again"):
        with pytest.raises(UnfitForStream, match="already sent"):
            sent.stream.add(file(repeated))
    with pytest.raises(UnfitForStream, match="a hard link to the directory"):
        sent.stream.add(link("d0/directory", "d1"))
    with pytest.raises(UnfitForStream, match="does not exist"):
        sent.stream.add(link("d0/missing", "d1/f0"))


def test_the_sent_paths_in_memory_are_limited_in_bytes_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "_BYTES_IN_MEMORY", 20_000)
    long, found = "/".join(["d" * 200] * 19), 0
    sent = Sent()
    for number in range(100):
        sent.stream.add(file(f"{long}/{number}"))
        found = max(found, sum(map(len, sent.stream._latest)))
    assert 10_000 < found <= 20_000
    with pytest.raises(UnfitForStream, match="already sent"):
        sent.stream.add(file(f"{long}/0"))


def test_links_may_refer_to_sent_and_to_published_files() -> None:
    sent = Sent(lambda path: EntryType.FILE if path == "there" else None)
    sent.stream.add(file("f"))
    sent.stream.add(link("a", "f"))
    sent.stream.add(link("b", "there"))
    sent.stream.add(link("c", "a"))
    assert [m.linkname for m in sent.members()] == ["", "f", "there", "a"]


def test_a_stream_without_entries_is_one_write_of_the_end() -> None:
    sent = Sent()
    sent.stream.end()
    assert sent.written == [END]


def test_no_write_before_the_last_ends_between_two_members() -> None:
    sent = Sent()
    for number in range(400):
        size = 1 if number % 2 else 3000
        sent.stream.add(file(f"f{number}", size), [bytes(size)])
    # The server begins with the first entry, while the others are made.
    assert len(sent.written[0]) == 511
    boundaries = {member.offset for member in sent.members()}
    ends = list(itertools.accumulate(map(len, sent.written)))
    assert len(ends) > 3 and all(end % 512 == 511 for end in ends[:-1])
    assert not boundaries & set(ends[:-1])
    # A pipe takes a long write page by page.
    starts = [0, *ends[:-1]]
    pages = {
        s + n for s, e in zip(starts, ends, strict=True) for n in range(4096, e - s, 4096) if s
    }
    assert not boundaries & pages
    assert ends[-1] % 512 == 0
    # GNU tar sees what is missing, too.
    incomplete = b"".join(sent.written[:-1])
    listed = subprocess.run(["tar", "-t"], input=incomplete, capture_output=True)
    assert listed.returncode != 0


names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=90
).filter(
    lambda n: (
        n not in (".", "..") and not n.startswith((".wh.", ".cvmfs")) and len(n.encode()) < 256
    )
)
paths = st.lists(names, min_size=1, max_size=6).map("/".join)
numbers = st.integers(0, 2**32 - 2)
times = st.integers(-(2**40), 2**40)


@given(paths, numbers, numbers, times, st.integers(0, 0o7777), st.binary(max_size=2000))
def test_python_reads_back_every_header(
    path: str, uid: int, gid: int, seconds: int, mode: int, content: bytes
) -> None:
    mtime = seconds * 10**9 + 123_456_789
    entry = Entry(path, EntryType.FILE, mode, uid, gid, len(content), mtime)
    data = encode(entry) + content + padding(len(content)) + END
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        [member] = archive.getmembers()
        read = archive.extractfile(member)
        assert read is not None and read.read() == content
    assert (member.name, member.uid, member.gid, member.mtime, member.mode) == (
        path,
        uid,
        gid,
        seconds,
        mode,
    )


@given(paths, paths)
def test_gnu_tar_reads_back_every_name_and_target(path: str, target: str) -> None:
    raw = path.encode() + b"\xff"
    name = raw.decode("utf-8", "surrogateescape")
    entry = Entry(name, EntryType.SYMLINK, target=target)
    listed = subprocess.run(
        ["tar", "-tv", "--quoting-style=literal", "--show-transformed-names"],
        input=encode(entry) + END,
        capture_output=True,
        check=True,
    )
    assert raw + b" -> " + target.encode() in listed.stdout


def test_devices_and_whiteouts_keep_their_numbers(tmp_path: Path) -> None:
    entries = [
        Entry("w", EntryType.WHITEOUT, 0),
        Entry("c", EntryType.CHARACTER_DEVICE, 0o600, device=(1, 3)),
        Entry("b", EntryType.BLOCK_DEVICE, 0o600, device=(8, 200_000)),
        Entry("p", EntryType.FIFO, 0o600),
    ]
    data = b"".join(map(encode, entries)) + END
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
    assert [(m.type, m.devmajor, m.devminor) for m in members] == [
        (tarfile.CHRTYPE, 0, 0),
        (tarfile.CHRTYPE, 1, 3),
        (tarfile.BLKTYPE, 8, 200_000),
        (tarfile.FIFOTYPE, 0, 0),
    ]
