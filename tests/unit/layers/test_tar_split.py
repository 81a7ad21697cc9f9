"""An unpacked tree and its tar-split data give the archive back, byte for byte."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tempfile
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publisher.layers import tar_split
from publisher.layers.errors import LayerError
from publisher.layers.policy import Policy
from publisher.layers.tar_split import LOOK_BACK, TarSplit
from publisher.layers.unpack import unpack
from publisher.repository.directory.tree_writer import TreeWriter
from tests.layer_builder import (
    BLOCK,
    Layer,
    Member,
    character_device,
    directory,
    file,
    hardlink,
    layer,
    layer_of_tar,
    pax_header,
    symlink,
    tar,
    whiteout,
)
from tests.stacks import Draft, drafts
from tests.tar_split import assemble


def split(source: Layer, tree: Path, chunk: int = 65536, policy: Policy | None = None) -> bytes:
    """Unpack the layer into `tree`; return its tar-split data."""
    found = io.BytesIO()
    with TreeWriter(tree) as sink:
        unpack(
            source.chunks(chunk),
            source.descriptor,
            source.diff_id,
            sink,
            io.BytesIO(),
            policy or Policy(writable="drop"),
            tar_split=found,
        )
    return found.getvalue()


def lines(data: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in gzip.decompress(data).splitlines()]


LONG = "directory/" * 30 + "name" * 30
STORED = b"stored" * 100
SPARSE = {
    "0.1": file(
        "s", STORED, pax={"GNU.sparse.map": "4096,600", "GNU.sparse.size": "9999"}, mode=0o600
    ),
    "1.0": file(
        "s",
        b"1\n4096\n600\n".ljust(512, b"\0") + STORED,
        pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9999"},
    ),
}
BIG = bytes(range(256)) * 4096

ARCHIVES: dict[str, tuple[Member | bytes, ...]] = {
    "nothing": (),
    "files": (file("a", b"a"), file("empty"), directory("d"), file("d/b", b"b" * 512)),
    "long names": (file(LONG, b"1"), file(f"{LONG}2", b"2", format="gnu"), symlink("l", LONG)),
    "names that are not UTF-8": (
        file(b"\xff\xfe", b"1"),
        directory(b"d\xe4"),
        file(b"d\xe4/f", b"2"),
    ),
    "names beyond ASCII": (file('ä\u2028\U0001f600"\\', b"1"),),
    "odd spellings": (file("./a", b"1"), file("/b", b"2"), file("c/./d//e", b"3")),
    "through symlinks": (symlink("link", "there"), directory("there"), file("link/f", b"1")),
    "sparse, in the header": (SPARSE["0.1"], file("after", b"1")),
    "sparse, in the content": (SPARSE["1.0"], file("after", b"1")),
    "hard links": (
        file("a", b"1"),
        hardlink("b", "a"),
        hardlink("early", "late"),
        file("late", b"2"),
    ),
    "whiteouts": (
        whiteout("gone"),
        file(".wh.full", b"with content"),
        file("d/.wh..wh..opq", b"x"),
    ),
    "names that are dropped": (file(".cvmfscatalog", b"content"), file("a", b"1")),
    "devices": (character_device("null"), file("f", b"1")),
    "attributes": (file("a", b"1", xattrs={"user.a": b"1", "trusted.x": b"\0"}, mode=0o6666),),
    "global headers": (pax_header({"comment": "c" * 5000}, b"g"), file("a", b"1")),
    "large files": (file("big", BIG), file("b", BIG[: LOOK_BACK + 1]), file("c", BIG[:LOOK_BACK])),
}


@pytest.mark.parametrize("chunk", [700, 65536])
@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_are_assembled_exactly(tmp_path: Path, case: str, chunk: int) -> None:
    source = layer(*ARCHIVES[case], compression="none")
    data = split(source, tmp_path / "tree", chunk)
    assert assemble(data, tmp_path / "tree") == source.tar


@pytest.mark.parametrize(
    "end",
    [b"", bytes(BLOCK), bytes(20 * BLOCK), bytes(2 * BLOCK) + b"garbage" * 100_000],
    ids=["no end", "one block", "padding", "garbage"],
)
def test_the_end_of_an_archive_is_kept_as_it_is(tmp_path: Path, end: bytes) -> None:
    source = layer(file("a", b"1"), end=end)
    assert assemble(split(source, tmp_path / "tree"), tmp_path / "tree") == source.tar


def test_contents_of_files_are_not_in_the_data(tmp_path: Path) -> None:
    data = split(layer(file("a", b"content" * 1000), file("b", b"b")), tmp_path / "tree")
    files = [(entry["name"], entry["size"]) for entry in lines(data) if entry["type"] == 1]
    assert files == [("a", 7000), ("b", 1)]
    assert b"content" not in b"".join(assembled_segments(data))


def assembled_segments(data: bytes) -> Iterator[bytes]:
    for entry in lines(data):
        if entry["type"] == 2:
            yield base64.b64decode(str(entry["payload"]))


@pytest.mark.parametrize(
    "members",
    [
        (file("a", b"1"), file("a", b"2")),
        (file("a", b"1"), file("./a", b"1")),
        (directory("d"), file("d/f", b"1"), symlink("d", "elsewhere")),
        (file("a", b"1"), hardlink("b", "a"), file("a", b"2")),
        (file("a", b"1"), character_device("a")),
        (file("a", b"1"), directory("a")),
    ],
)
def test_without_the_contents_in_the_tree_there_is_no_data(
    tmp_path: Path, members: tuple[Member, ...]
) -> None:
    assert split(layer(*members), tmp_path / "tree") == b""


def test_data_beyond_the_bound_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_split, "MOST_TEXT_BYTES", 1000)
    assert split(layer(file("a", b"1")), tmp_path / "a") == b""


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(drafts(), st.sampled_from([1, 511, 4096, 65536]), st.binary(max_size=2000))
def test_any_archive_is_assembled_exactly_or_has_no_data(
    draft: Draft, chunk: int, garbage: bytes
) -> None:
    source = layer_of_tar(
        tar(*draft.members) + garbage, compression=draft.compression, parts=draft.parts
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            data = split(source, Path(folder, "one"), chunk)
        except LayerError:
            return  # members that contradict each other
        assert split(source, Path(folder, "two")) == data, "however the blob arrives"
        paths = [str(member.name).removeprefix("./").strip("/") for member in draft.members]
        has_all = len(set(paths)) == len(paths) and not any(
            other.startswith(f"{path}/") for path in paths for other in paths
        )
        assert data or not has_all, "it may be missing only if a member replaces another one"
        if data:
            assert assemble(data, Path(folder, "one")) == source.tar


def test_memory_does_not_grow_with_what_is_not_in_the_tree() -> None:
    piece = bytes(256 * 1024)

    def garbage() -> Iterable[bytes]:
        yield from (piece for _ in range(200))

    tracemalloc.start()
    try:
        with tempfile.TemporaryFile() as file:
            written = TarSplit(file)
            for _ in written.blocks(garbage()):
                pass
            written.finish(exact=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
