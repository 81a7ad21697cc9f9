from __future__ import annotations

import io
import json
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from publisher.entry import Entry, EntryType, sort_key
from publisher.layers import index as index_module
from publisher.layers.errors import LayerError
from publisher.layers.index import IndexHeader, LayerIndex, read_header, read_index, write_index
from publisher.layers.index_lines import (
    decode_entry,
    decode_to_link,
    encode_entry,
    path_key,
    special_in,
)
from tests.engine import Unpack, unpack_layer
from tests.layer_builder import (
    character_device,
    directory,
    fifo,
    file,
    hardlink,
    layer,
    opaque,
    symlink,
    whiteout,
)
from tests.stacks import Draft, drafts

SCHEMAS = Path(__file__).parents[3] / "layout" / "schemas"
DIGEST = "sha256:" + "0" * 64

characters = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])
undecodable = st.sampled_from([chr(0xDC00 + byte) for byte in range(0xF5, 0x100)])
names = st.text(st.one_of(characters, undecodable), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
counts = st.integers(0, 2**63)


def schema(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / name).read_bytes()))


def header(entries: int) -> IndexHeader:
    return IndexHeader(DIGEST, DIGEST, 1, 2, entries, 3)


def written(*entries: Entry) -> io.BytesIO:
    file = io.BytesIO()
    write_index(file, header(len(entries)), map(encode_entry, entries))
    return file


def plain(index: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(index)


@st.composite
def any_entry(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from(EntryType))
    path = draw(paths)
    dropped = tuple(draw(st.lists(st.text(min_size=1), max_size=2)))
    if kind is EntryType.WHITEOUT:
        return Entry(path, kind, mode=0, dropped=dropped)
    is_file = kind in (EntryType.FILE, EntryType.HARDLINK)
    is_link = kind in (EntryType.SYMLINK, EntryType.HARDLINK)
    is_device = kind in (EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE)
    return Entry(
        path,
        kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(counts),
        gid=draw(counts),
        size=draw(st.integers(0, 2**63 - 1)) if is_file else 0,
        mtime_ns=draw(st.integers()),
        target=draw(paths) if is_link else "",
        sha256=draw(st.text("0123456789abcdef", min_size=64, max_size=64)) if is_file else "",
        device=(draw(counts), draw(counts)) if is_device else None,
        xattrs=draw(st.dictionaries(st.text(min_size=1), st.binary(), max_size=2)),
        opaque=kind is EntryType.DIRECTORY and draw(st.booleans()),
        implicit=kind is EntryType.DIRECTORY and draw(st.booleans()),
        dropped=dropped,
        links=draw(st.integers(1, 5)),
    )


@given(any_entry())
def test_entries_are_read_back(entry: Entry) -> None:
    line = encode_entry(entry)
    assert "\n" not in line
    assert line.isascii()
    assert decode_entry(line) == entry


def check_what_a_link_needs(entry: Entry) -> None:
    line = encode_entry(entry)
    read, full = decode_to_link(line), decode_entry(line)
    if full.type is EntryType.FILE and full.links == 1:
        read = replace(full, path=read.path, type=read.type, links=read.links)
    assert read == full


@given(any_entry())
def test_what_a_link_needs_of_an_entry_is_read_back(entry: Entry) -> None:
    check_what_a_link_needs(entry)
    for path in ("", "a", "a/b", ".a", "a/.b", "\u00e9", 'a"b', '","type":"f"'):
        for kind in (EntryType.FILE, EntryType.SYMLINK, EntryType.DIRECTORY):
            for links in (1, 2):
                check_what_a_link_needs(Entry(path, kind, links=links))


@given(st.lists(any_entry(), max_size=30))
def test_an_index_can_be_read_more_than_once_and_at_two_places_at_once(
    entries: list[Entry],
) -> None:
    index = read_index(written(*entries))
    assert index.header == header(len(entries))
    one, two = iter(index), iter(index)
    pairs = [(next(one), next(two)) for _ in entries]
    assert pairs == [(entry, entry) for entry in entries]
    assert list(index) == entries


def test_a_header_that_is_waited_for_does_not_delay_the_headers_of_other_indexes() -> None:
    is_opened, may_be_read = threading.Event(), threading.Event()

    def opened() -> AbstractContextManager[BinaryIO]:
        return nullcontext(io.BytesIO(written().getvalue()))

    def opened_late() -> AbstractContextManager[BinaryIO]:
        is_opened.set()
        assert may_be_read.wait(60)
        return opened()

    late, other = LayerIndex(opened_late), LayerIndex(opened)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(lambda: late.header)
        assert is_opened.wait(60)
        try:
            assert threads.submit(lambda: other.header).result(20) == header(0)
        finally:
            may_be_read.set()
        assert first.result(20) == header(0)


@given(st.lists(any_entry(), max_size=40, unique_by=lambda entry: entry.path), st.data())
def test_paths_are_found_wherever_they_are_in_the_index(
    entries: list[Entry], data: st.DataObject
) -> None:
    entries.sort(key=lambda entry: sort_key(entry.path))
    index = read_index(written(*entries))
    wanted = set(data.draw(st.lists(st.sampled_from([e.path for e in entries] or ["x"]))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "_READ_BYTES", data.draw(st.integers(1, 500)))
        found = index.find({*wanted, "missing", "\udcff"})
        assert list(index) == entries
        assert list(index.opaque_directories()) == [entry for entry in entries if entry.opaque]
        special = list(index.special())
        assert [entry for entry in special if _is_special(entry)] == [
            entry for entry in entries if _is_special(entry)
        ]
        assert all(_is_special(each) or each.type is EntryType.HARDLINK for each in special)
    assert found == [e for e in entries if e.path in {*wanted, "missing", "\udcff"}]


def test_finding_paths_refuses_an_index_that_is_not_whole_or_of_another_layer() -> None:
    entries = [Entry(name, EntryType.FIFO) for name in ("a", "b", "c")]
    for names in (["a"], [], ["a", "b", "c", "d"]):
        file = io.BytesIO()
        lines = [encode_entry(Entry(name, EntryType.FIFO)) for name in names]
        write_index(file, header(len(entries)), lines)
        with pytest.raises(LayerError, match=f"it has {len(names)} of 3 entries"):
            read_index(file).find({"c", "x"})
    with pytest.raises(LayerError, match="not a layer index"):
        LayerIndex(lambda: nullcontext(io.BytesIO())).find({"a"})

    other = "sha256:" + "1" * 64
    index = LayerIndex(lambda: nullcontext(io.BytesIO(written(*entries).getvalue())), other)
    for read in (lambda: index.find({"a"}), lambda: list(index), lambda: index.header):
        with pytest.raises(LayerError, match=f"index of layer {other}: it is the index of layer"):
            read()


def test_a_line_is_looked_at_once_however_often_it_has_the_same_key() -> None:
    """A worker process that was taken over may write such a line, of 16 MiB."""
    line = '{"path":"d","type":"d",' + '"opaque":true,' * 10_000 + '"uid":1}\n'
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "c_call"

    sys.setprofile(count)
    try:
        found = list(special_in(line + line))
    finally:
        sys.setprofile(None)
    assert found == [decode_entry(line.removesuffix("\n"))] * 2
    assert calls < 200


def _is_special(entry: Entry) -> bool:
    """Whether the fixups of an image can depend on the entry."""
    return bool(entry.opaque or entry.implicit or entry.dropped or entry.is_unresolved)


def test_finding_one_path_among_many_decodes_only_its_entry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = read_index(written(*(Entry(f"d/{n:06}", EntryType.FIFO) for n in range(20_000))))
    decoded: list[str] = []

    def counting(line: str) -> Entry:
        decoded.append(line)
        return decode_entry(line)

    monkeypatch.setattr(index_module, "decode_entry", counting)
    assert [entry.path for entry in index.find({"d/012345", "d/none"})] == ["d/012345"]
    assert len(decoded) == 1


@given(st.lists(st.binary(min_size=1, max_size=3).filter(lambda b: b"\0" not in b), max_size=5))
def test_sorting_is_by_the_bytes_of_the_components(raw: list[bytes]) -> None:
    texts = [r.decode("utf-8", "surrogateescape") for r in raw]
    by_components = sorted(texts, key=lambda t: t.encode("utf-8", "surrogateescape").split(b"/"))
    assert sorted(texts, key=sort_key) == by_components


@settings(max_examples=100, deadline=None)
@given(draft=drafts())
def test_every_index_follows_its_contract(
    draft: Draft, tmp_path_factory: pytest.TempPathFactory
) -> None:
    try:
        unpacked = unpack_layer(draft.build(), tmp_path_factory.mktemp("index") / "t")
    except LayerError:
        return
    check_contract(unpacked.index_file)


def check_contract(index_file: io.BytesIO) -> None:
    lines = _lines(index_file)
    schema("index-header.schema.json").validate(lines[0])
    validator = schema("index-entry.schema.json")
    for line in lines[1:]:
        validator.validate(line)
    entries = [decode_entry(json.dumps(line)) for line in lines[1:]]
    keys = [sort_key(entry.path) for entry in entries]
    assert keys == sorted(set(keys))
    assert len(entries) == lines[0]["entries"]
    directories = {entry.path for entry in entries if entry.type is EntryType.DIRECTORY}
    assert entries[0].path == ""
    assert all(entry.path.rpartition("/")[0] in directories for entry in entries)
    files = {entry.path: entry for entry in entries if entry.type is EntryType.FILE}
    for entry in entries:
        if entry.type is EntryType.HARDLINK and not entry.is_unresolved:
            assert sort_key(entry.target) < sort_key(entry.path)
            assert files[entry.target].sha256 == entry.sha256
            assert files[entry.target].links == entry.links


def _lines(file: io.BytesIO) -> list[dict[str, object]]:
    data = zstandard.ZstdDecompressor().decompressobj().decompress(file.getvalue())
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def test_an_index_with_everything_in_it_follows_its_contract(unpack: Unpack) -> None:
    unpacked = unpack(
        directory("./", mtime_ns=5),
        file("f", b"1", mode=0o6755, xattrs={"user.a": b"1", "trusted.b": b"2"}),
        hardlink("h", "f"),
        hardlink("lower", "elsewhere"),
        symlink("s", "/x"),
        fifo("p"),
        character_device("c"),
        whiteout("w"),
        opaque("o"),
        file("o/implied/x"),
        file(b"\xff\xfe"),
        file("line\nbreak"),
    )
    check_contract(unpacked.index_file)


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_an_index_that_was_cut_off_is_an_error(cut: int) -> None:
    file = written(*(Entry(f"f{n:05}", EntryType.FIFO) for n in range(3000)))
    short = io.BytesIO(file.getvalue()[:-cut])
    with pytest.raises(LayerError, match="index"):
        list(read_index(short))


def test_writing_long_lines_takes_no_more_memory_than_short_ones() -> None:
    attributes = ("{}" * 250_000 for _ in range(100))  # a megabyte each
    tracemalloc.start()
    try:
        write_index(io.BytesIO(), header(100), attributes)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_an_index_with_fewer_lines_than_its_header_states_is_an_error() -> None:
    file = io.BytesIO()
    write_index(file, header(2), [encode_entry(Entry("a", EntryType.FIFO))])
    with pytest.raises(LayerError, match="1 of 2"):
        list(read_index(file))


def test_an_index_with_more_lines_than_its_header_states_is_not_read_to_its_end() -> None:
    file = io.BytesIO()
    lines = [encode_entry(Entry(f"{number:0900}", EntryType.FIFO)) for number in range(2000)]
    write_index(file, header(1000), lines)
    read = 0
    with pytest.raises(LayerError, match="of 1000 entries"):
        for _ in read_index(file):
            read += 1
    assert read < 1200


def header_with(change: dict[str, object]) -> bytes:
    fields = json.loads(plain(written().getvalue()))
    return json.dumps(fields | change).encode() + b"\n"


WRONG_HEADERS: list[dict[str, object]] = [
    dict.fromkeys(IndexHeader.__dataclass_fields__, "x"),
    {"version": True},
    {"digest": "x"},
    {"diff_id": 1},
    {"size": "1"},
    {"entries": -1},
    {"holes": None},
    {"content_size": 2**63},
    {"dropped": {"setuid": 10**400}},
    {"dropped": {"setuid": "x"}},
    {"policy": []},
]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not zstd",
        zstandard.compress(b"not json\n"),
        zstandard.compress(b"[]\n"),
        zstandard.compress(b'{"format":"something"}\n'),
        zstandard.compress(b'{"format":"publisher-layer-index","version":1}\n'),
        zstandard.compress(b"[" * 10_000 + b"\n"),
        *(zstandard.compress(header_with(change)) for change in WRONG_HEADERS),
    ],
)
def test_a_file_that_is_not_an_index_is_refused(content: bytes) -> None:
    with pytest.raises(LayerError, match="layer index"):
        read_header(io.BytesIO(content))


@pytest.mark.parametrize("path", ["..", "../a", "a/../b", "a/..", "/a", "a/", "a//b", "./a", "a\0"])
def test_an_entry_outside_of_the_tree_is_refused(path: str) -> None:
    with pytest.raises(LayerError, match="leads out of the tree"):
        decode_entry(encode_entry(Entry(path, EntryType.FILE)))
    with pytest.raises(LayerError):
        decode_to_link(f'{{"path":"{path}","type":"f"}}')
    with pytest.raises(LayerError, match="leads out of the tree"):
        decode_entry(encode_entry(Entry("h", EntryType.HARDLINK, target=path)))
    assert decode_entry(encode_entry(Entry("s", EntryType.SYMLINK, target=path))).target == path
    for fine in ("", "..a", "a/...", ".a/b."):
        assert decode_entry(encode_entry(Entry(fine, EntryType.FILE))).path == fine


def test_paths_may_be_written_in_utf_8_across_blocks() -> None:
    paths = [f"{number:06}é" for number in range(20_000)]
    text = "".join(f'{{"path":"{path}","type":"p","mode":"0600"}}\n' for path in paths)
    head = written().getvalue()
    lines = plain(head).replace(b'"entries":0', b'"entries":20000') + text.encode()
    index = read_index(io.BytesIO(zstandard.compress(lines)))
    assert [entry.path for entry in index] == paths


@pytest.mark.parametrize("end", [b"\xff", b"\xc3"])
def test_an_index_that_is_not_utf_8_is_damaged(end: bytes) -> None:
    lines = plain(written(Entry("a", EntryType.FIFO)).getvalue())
    with pytest.raises(LayerError, match="damaged"):
        list(read_index(io.BytesIO(zstandard.compress(lines + end))))


def test_an_index_of_a_later_version_is_refused() -> None:
    line = b'{"format":"publisher-layer-index","version":2}\n'
    with pytest.raises(LayerError, match="version 2"):
        read_header(io.BytesIO(zstandard.compress(line)))


def test_unknown_fields_are_ignored() -> None:
    assert decode_entry('{"path":"a","type":"p","mode":"0600","later":1}').mode == 0o600


NESTED = "[" * 100_000


def line_with(fields: str) -> str:
    return f'{{"path":"a","type":"f",{fields}}}'


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{}",
        "[]",
        "5",
        '{"path":"a","type":"?"}',
        '{"path":"a","type":["f"]}',
        '{"path":1',
        '{"path":"a","type":"p"} {}',
        '{"path":5,"type":"f"}',
        NESTED,
        line_with(f'"later":{NESTED}'),
        line_with('"mode":5'),
        line_with('"mode":"-1"'),
        line_with('"mode":"10000"'),
        line_with('"uid":"x"'),
        line_with('"uid":true'),
        line_with('"gid":-1'),
        line_with('"size":"9"'),
        line_with('"size":-9'),
        line_with('"size":9223372036854775808'),
        line_with('"mtime_ns":1.5'),
        line_with('"target":[]'),
        line_with('"sha256":7'),
        line_with('"links":"1"'),
        line_with('"device":[1]'),
        line_with('"device":[1,"2"]'),
        line_with('"device":"12"'),
        line_with('"device":0'),
        line_with('"xattrs":[]'),
        line_with('"xattrs":{"user.a":1}'),
        line_with('"opaque":1'),
        line_with('"implicit":"x"'),
        line_with('"dropped":"abc"'),
        line_with('"dropped":[1]'),
    ],
)
def test_a_malformed_line_is_an_error(line: str) -> None:
    with pytest.raises(LayerError, match="malformed"):
        decode_entry(line)


@pytest.mark.parametrize("path", [r"\ud800", r"\udd00"])
def test_a_path_of_other_surrogates_than_those_of_bytes_is_an_error(path: str) -> None:
    line = f'{{"path":"{path}","type":"p"}}'
    with pytest.raises(LayerError, match="malformed"):
        path_key(line)


def test_the_header_describes_the_layer_and_counts_what_was_dropped(tmp_path: Path) -> None:
    source = layer(file("f", b"12345", mode=0o4755), hardlink("x", "nowhere"))
    index = unpack_layer(source, tmp_path / "t").index
    assert index.header == IndexHeader(
        digest=source.digest,
        diff_id=source.diff_id,
        size=len(source.blob),
        archive_size=len(source.tar),
        entries=3,
        content_size=5,
        unresolved=1,
        dropped={"setuid": 1},
        policy={
            "setuid": "drop",
            "owner": None,
            "devices": "drop",
            "xattrs": "keep",
            "readable": False,
        },
        files=2,
    )


def test_files_that_the_archive_replaces_are_not_in_the_size_of_the_layer(tmp_path: Path) -> None:
    source = layer(
        file("replaced", b"1" * 100),
        file("kept", b"2" * 20),
        hardlink("other-name", "kept"),
        file("kept", b"3"),
        file("replaced", b"44"),
        file("d/f", b"5" * 50),
        symlink("d", "elsewhere"),
    )
    index = unpack_layer(source, tmp_path / "t").index
    assert (index.header.content_size, index.header.files) == (20 + 1 + 2, 3)


def test_rows_are_read_without_decoding_entries_whatever_the_names_are() -> None:
    text = '","type":"f","mode":"0644","uid":0,"gid":0,"size":9,"mtime_ns":0,"sha256":"' + "0" * 64
    one, two = "1" * 64, "2" * 64
    entries = [
        Entry("", EntryType.DIRECTORY),
        Entry("a" + text, EntryType.DIRECTORY),
        Entry("b", EntryType.FILE, size=3, mtime_ns=-1, sha256=one, links=2),
        Entry("c", EntryType.HARDLINK, size=3, sha256=one, target="b", links=2),
        Entry("d", EntryType.SYMLINK, target=text),
        Entry("e", EntryType.FILE, size=4, sha256=two, xattrs={"user." + text: b"x"}),
        Entry("f", EntryType.HARDLINK, target="lower" + text, links=0),
        Entry("g\u00e4\udcff", EntryType.DIRECTORY, opaque=True),
        Entry("h", EntryType.FILE, size=5, sha256=two),
        Entry("i", EntryType.SYMLINK, target="plain"),
        Entry("j", EntryType.DIRECTORY, implicit=True),
        Entry("k", EntryType.WHITEOUT),
    ]
    rows = [(e.path, str(e.type), e.size, e.sha256, e.target, e.links, e.opaque) for e in entries]
    index = read_index(written(*entries))
    assert list(index.rows()) == rows and index.files() == 5
    plainer = [number for number in range(len(entries)) if number not in (1, 2, 3, 4, 5, 6, 7)]
    index = read_index(written(*(entries[number] for number in plainer[:-1])))
    assert list(index.rows()) == [rows[number] for number in plainer[:-1]]
    lines = list(map(encode_entry, entries))
    lines[2] = lines[2].replace('"size":3', '"new":"field","size":3')
    later = io.BytesIO()
    write_index(later, header(len(lines)), lines)
    assert list(read_index(later).rows()) == rows and read_index(later).files() == 5
    truncated = io.BytesIO()
    write_index(truncated, header(len(lines)), lines[:-1])
    with pytest.raises(LayerError, match="it has 11 of 12 entries"):
        list(read_index(truncated).rows())
    lines[-3] = lines[-3].replace('"target"', '"size"')
    malformed = io.BytesIO()
    write_index(malformed, header(len(lines)), lines)
    with pytest.raises(LayerError, match="a line is malformed"):
        list(read_index(malformed).rows())


def test_the_header_of_an_earlier_release_has_no_number_of_files() -> None:
    earlier = written(Entry("", EntryType.DIRECTORY))
    assert "files" not in json.loads(plain(earlier.getvalue()).splitlines()[0])
    earlier.seek(0)
    assert read_header(earlier).files is None
