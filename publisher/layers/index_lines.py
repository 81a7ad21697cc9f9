"""The lines of a layer index: the entries, in JSON; see layout/index.md.

Each entry is written in one form only: its fields in one order, without those that have their
default value. Functions that need a part of it therefore read it as text, in a fraction of the time
of decoding. A quote in a string is escaped, so that no string contains the texts they look for. A
*block* is several whole lines, each with its newline.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterator
from json.encoder import encode_basestring_ascii

from publisher.entry import Entry, EntryType, sort_key
from publisher.layers.errors import LayerError
from publisher.lazy import pattern

_FILE, _HARDLINK = '","type":"f"', '","type":"h"'
_ROW = pattern(
    r'^\{"path":"([^"\\\n]*)","type":"([fdl])","mode":"[0-7]{1,4}","uid":[0-9]+,"gid":[0-9]+,'
    r'(?:"size":([0-9]{1,18}),)?"mtime_ns":-?[0-9]+'
    r'(?:,"sha256":"([0-9a-f]{64})"|,"target":"([^"\\\n]*)")?(?:,"implicit":true)?\}$',
    re.MULTILINE,
)
"""A line without any of the rare fields, and with a path and target in ASCII."""
_LINKS = '"links":'
_PATH_START, _PATH_END = '{"path":"', '","type":'
_OPAQUE = '"opaque":true'
_SPECIAL = ('"opaque":', '"implicit":', '"dropped":', '"type":"h"')
_TYPES = {kind.value: kind for kind in EntryType}
_DECODE = vars(json.JSONDecoder())["scan_once"]
_MALFORMED = (
    *(ValueError, KeyError, TypeError, AttributeError, RecursionError),
    StopIteration,  # no JSON value
)
LARGEST = 2**63 - 1
"""The largest size and number in an index: the largest size of a file."""

Row = tuple[str, str, int, str, str, int, bool]
"""Path, type, size, SHA-256 digest, target, number of links, and whether it is opaque."""


def encode_entry(entry: Entry) -> str:
    """Return the line for `entry`, without a newline."""
    return f"{entry_start(entry.path, entry.type)}{encode_details(entry)}}}"


def entry_start(path: str, kind: str) -> str:
    """Return the beginning of a line, to be followed by details and a closing brace."""
    return f'{{"path":{encode_basestring_ascii(path)},"type":"{kind}"'


def encode_details(entry: Entry) -> str:
    """Return an entry's line without path and type; it is empty or begins with a comma."""
    kind = entry.type
    if kind is EntryType.FILE and not (entry.xattrs or entry.dropped) and entry.links == 1:
        return (  # the fast path for most entries
            f',"mode":"{entry.mode:04o}","uid":{entry.uid},"gid":{entry.gid},"size":{entry.size},'
            f'"mtime_ns":{entry.mtime_ns},"sha256":"{entry.sha256}"'
        )
    fields: dict[str, object] = {}
    if kind is not EntryType.WHITEOUT and not entry.is_unresolved:
        fields |= {"mode": f"{entry.mode:04o}", "uid": entry.uid, "gid": entry.gid}
        if kind in (EntryType.FILE, EntryType.HARDLINK):
            fields["size"] = entry.size
        fields["mtime_ns"] = entry.mtime_ns
    if entry.sha256:
        fields["sha256"] = entry.sha256
    if entry.target:
        fields["target"] = entry.target
    if entry.device is not None:
        fields["device"] = list(entry.device)
    if entry.xattrs:
        fields["xattrs"] = {
            name: binascii.b2a_base64(value, newline=False).decode()
            for name, value in sorted(entry.xattrs.items())
        }
    for flag in ("opaque", "implicit"):
        if getattr(entry, flag):
            fields[flag] = True
    if entry.links != 1:
        fields["links"] = entry.links
    if entry.dropped:
        fields["dropped"] = list(entry.dropped)
    text = json.dumps(fields, separators=(",", ":"))
    return f",{text[1:-1]}" if fields else ""


def rows_in(block: str) -> list[Row]:
    """Return what counting needs of each entry in a block."""
    found = _ROW.findall(block)
    if len(found) != block.count("\n"):
        return list(map(_row, block.split("\n")[:-1]))
    return [
        (path, kind, int(size or 0), sha256, target, 1, False)
        for path, kind, size, sha256, target in found
    ]


def _row(line: str) -> Row:
    found = _ROW.fullmatch(line)
    if found is not None:
        path, kind, size, sha256, target = found.groups(default="")
        return path, kind, int(size or 0), sha256, target, 1, False
    entry = decode_entry(line)
    return (
        *(entry.path, str(entry.type), entry.size, entry.sha256),
        *(entry.target, entry.links, entry.opaque),
    )


def names_of_files(block: str) -> int:
    """Return the number of names of files in a block, also those that hard links are."""
    return block.count(_FILE) + block.count(_HARDLINK)


def opaque_in(block: str) -> Iterator[Entry]:
    """Yield the entries of opaque directories in a block, without decoding others."""
    if _OPAQUE in block:
        yield from (decode_entry(line) for line in block.split("\n") if _OPAQUE in line)


def special_in(block: str) -> Iterator[Entry]:
    """Yield the entries in a block that depend on lower layers or hide some, and perhaps others.

    See `LayerIndex.special`.
    """
    starts = {start for sign in _SPECIAL for start in _starts_of_lines(sign, block)}
    for start in sorted(starts):
        yield decode_entry(block[start : block.find("\n", start)])


def _starts_of_lines(text: str, block: str) -> Iterator[int]:
    """Yield where the lines with `text` begin; a line is read once, however often it has that."""
    at = block.find(text)
    while at >= 0:
        yield block.rfind("\n", 0, at) + 1
        at = block.find(text, block.find("\n", at))


def path_key(line: str) -> bytes:
    """Return the `sort_key` of the path in `line` without decoding all of it.

    Raises LayerError for a malformed line.
    """
    end = line.find(_PATH_END, len(_PATH_START))
    if end > 0 and line.startswith(_PATH_START):
        path = line[len(_PATH_START) : end]
        if "\\" not in path:
            return path.encode("utf-8").replace(b"/", b"\0")
    try:
        return sort_key(decode_entry(line).path)
    except UnicodeEncodeError as error:  # a surrogate that is not an escaped byte
        raise LayerError(
            "cannot read a layer index", why=f"a line is malformed: {error}"
        ) from error


def is_file(line: str) -> bool:
    """Return whether `line` is that of a file, without decoding it. May be False in a later format.

    An index that another process wrote may have other fields in it: `decode_entry` decides.
    """
    return _FILE in line


def encoded_path(line: str) -> str:
    """Return the path in `line` as it is encoded; "" for a malformed line."""
    return line[len(_PATH_START) : max(line.find(_PATH_END, len(_PATH_START)), 0)]


def decode_entry(line: str) -> Entry:
    """Return the entry that `line` encodes. Raises LayerError for a malformed line."""
    try:
        fields, end = _DECODE(line, 0)  # json.loads takes twice as long
        if end != len(line):
            raise ValueError("other data follow the object")
        get = fields.get
        path = fields["path"]
        mode = int(get("mode", "0"), 8)
        uid = get("uid", 0)
        gid = get("gid", 0)
        size = get("size", 0)
        mtime_ns = get("mtime_ns", 0)
        target = get("target", "")
        sha256 = get("sha256", "")
        opaque = get("opaque", False)
        implicit = get("implicit", False)
        links = get("links", 1)
        # One expression without function calls; a codec would double the time of a merge.
        if not (
            type(path) is type(target) is type(sha256) is str
            and type(uid) is type(gid) is type(size) is type(mtime_ns) is type(links) is int
            and type(opaque) is type(implicit) is bool
            and uid >= 0 <= gid
            and 0 <= size <= LARGEST
            and links >= 0
            and 0 <= mode <= 0o7777
        ):
            raise ValueError("a field has a wrong type, or is out of range")
        xattrs = get("xattrs")
        device = get("device")
        dropped = get("dropped")
        kind = _TYPES[fields["type"]]
        if "/." in path or "//" in path or "\0" in path or path[:1] in "/." or path[-1:] == "/":
            _check_path(path)
        if kind is EntryType.HARDLINK:
            _check_path(target)
        return Entry(
            path,
            kind,
            mode,
            uid,
            gid,
            size,
            mtime_ns,
            target,
            sha256,
            _device(device) if device is not None else None,
            {k: binascii.a2b_base64(v) for k, v in xattrs.items()} if xattrs is not None else {},
            opaque,
            implicit,
            _texts(dropped) if dropped is not None else (),
            links,
        )
    except _MALFORMED as error:
        why = "not JSON" if isinstance(error, StopIteration) else str(error)
        raise LayerError("cannot read a layer index", why=f"a line is malformed: {why}") from error


def decode_to_link(line: str) -> Entry:
    """Return the entry that `line` encodes, as far as a link to it needs it.

    A file with one name has no other property than its path. That takes a third of the time.
    """
    end = line.find(_FILE, len(_PATH_START))
    path = line[len(_PATH_START) : end]
    if end <= 0 or not line.startswith(_PATH_START) or "\\" in path or _LINKS in line:
        return decode_entry(line)
    if "/." in path or "//" in path or "\0" in path or path[:1] in "/." or path[-1:] == "/":
        return decode_entry(line)
    return Entry(path, EntryType.FILE)


def _check_path(path: str) -> None:
    """Raise ValueError for a path that leads out of the tree, or is not normalized.

    An index may have been written by a process that a malicious layer had taken over.
    """
    if "\0" in path or (path and not {"", ".", ".."}.isdisjoint(path.split("/"))):
        raise ValueError("a path leads out of the tree, or is not normalized")


def _device(value: object) -> tuple[int, int]:
    if type(value) is not list or [type(number) for number in value] != [int, int]:
        raise ValueError("device is not a list of two integers")
    return value[0], value[1]


def _texts(value: object) -> tuple[str, ...]:
    if type(value) is not list or not all(type(text) is str for text in value):
        raise ValueError("dropped is not a list of strings")
    return tuple(value)
