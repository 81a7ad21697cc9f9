"""A flat image between its planning and its sending: its entries in a compressed file.

A flat image of half a million entries is planned while nobody is kept waiting, and sent at the
commit; it is nothing but names that point to layers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import zstandard

from publisher.entry import Entry, EntryType, Generated, Merged
from publisher.tree import layout

Catalogs = Callable[[Iterable[Entry]], frozenset[str]]


def write_plan(
    file: Path,
    plan: Iterable[Merged | Generated],
    layers: Sequence[str],
    catalogs: Catalogs,
) -> None:
    """Write to `file` what the flat image `plan` of `layers` consists of.

    Files become hard links to where their content lies. `catalogs` sees all entries, and says where
    nested catalogs start; that stands at the end.
    """
    trees = [layout.layer_tree(digest) for digest in layers]
    with zstandard.open(file, "wb") as out:

        def each() -> Iterator[Entry]:
            for planned in plan:
                content = planned.content if isinstance(planned, Generated) else b""
                entry = _placed(planned, trees)
                out.write(_line(entry, content))
                yield planned.entry

        for directory in sorted(catalogs(each())):
            out.write(json.dumps({"catalog": directory}).encode() + b"\n")


def read_plan(file: Path) -> Iterator[tuple[Entry, bytes] | str]:
    """(entry, content) of everything in the plan; and the directories where catalogs start."""
    with zstandard.open(file, "rb") as lines:
        rest = b""
        while data := lines.read(1 << 18):
            *complete, rest = (rest + data).split(b"\n")
            for line in complete:
                fields = json.loads(line)
                if isinstance(fields, dict):
                    yield str(fields["catalog"])
                else:
                    yield _entry(fields)


def _placed(planned: Merged | Generated, trees: Sequence[str]) -> Entry:
    entry = planned.entry
    if isinstance(planned, Merged) and entry.type in (EntryType.FILE, EntryType.HARDLINK):
        target = f"{trees[planned.layer]}/{planned.source}"
        return Entry(entry.path, EntryType.HARDLINK, target=target)
    return entry


def _line(entry: Entry, content: bytes) -> bytes:
    fields: list[Any] = [
        entry.path,
        entry.type.value,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        entry.target,
        entry.device,
    ]
    if content:
        fields.append(base64.b64encode(content).decode())
    return json.dumps(fields).encode() + b"\n"


def _entry(fields: list[Any]) -> tuple[Entry, bytes]:
    path, kind, mode, uid, gid, mtime_ns, target, device, *more = fields
    content = base64.b64decode(more[0]) if more else b""
    entry = Entry(
        path,
        EntryType(kind),
        mode,
        uid,
        gid,
        len(content),
        mtime_ns,
        target,
        device=(device[0], device[1]) if device else None,
    )
    return entry, content
