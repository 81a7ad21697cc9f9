"""Write the stream of one `cvmfs_server ingest`.

A flat image is planned before its transaction is exclusive, and sent at the commit. Until then its
entries, which have no content, are kept in a compressed file, the plan.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import zip_longest
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from publisher.entry import Content, Entry, EntryType, Fixup, Generated, Merged
from publisher.errors import DigestMismatch
from publisher.layers.catalogs import DEFAULT_LIMIT, plan_catalogs
from publisher.layers.errors import LayerError, NoTemporarySpace
from publisher.layers.index import read_index
from publisher.layers.kept_contents import kept_contents
from publisher.layers.replay import PassOn, ReadContents, StagedContents, replay
from publisher.layers.temporary import temporary_databases
from publisher.repository import LayerChanged
from publisher.repository.cvmfs.changes import Ingest, NewLayer, NewTree
from publisher.repository.cvmfs.configuration import Owner
from publisher.repository.cvmfs.mirror import Mirror
from publisher.repository.cvmfs.spool import StagedLayer
from publisher.repository.cvmfs.stream import Kind, TarStream, Write
from publisher.tree import layout

_PIECE = 1 << 20
_TYPES = {each.value: each for each in EntryType}
_LINK = Entry("", EntryType.HARDLINK)
_LINK_FIELDS = 2
"""The fields of a hard link in a plan: its path and its target."""

_LINES = 1000
"""How many lines of a plan are compressed at once."""


def send(
    call: Ingest, write: Write, kind: Kind, owner: Owner, mirror: Mirror, read: ReadContents
) -> None:
    """Write the additions of `call`, content before references to it.

    Args:
        call: The call whose standard input is written.
        write: Called with the stream's bytes.
        kind: Returns the type of the published entry at a path.
        owner: The owner of directories and records of the publisher.
        mirror: The mirror in which the layers of `call` are staged.
        read: Reads the contents of a staged layer, in whichever process.

    Raises:
        LayerChanged: A staged layer is damaged; it was discarded.
        NoTemporarySpace: The disk has no space for the list of sent paths.
        Exception: Whatever `write` and `read` raise.
    """
    added = call.additions
    what = "cannot write the stream for the server"
    with temporary_databases(what), TarStream(write, kind, owner, call.base) as stream:
        for path in added.directories:
            stream.make_parents(f"{path}/.")
        with closing(_read_again(added.layers, mirror, read)) as readings:
            for layer, contents in readings:
                _send_layer(layer, contents, stream, owner, mirror)
        for tree in added.trees:
            _send_tree(tree, stream)
        for path, place in sorted(added.large.items()):
            with place.open("rb") as file:
                _send_file(file, path, stream, owner)
        for path, content in sorted(added.files.items()):
            entry = Entry(path, EntryType.FILE, 0o644, owner.uid, owner.gid, len(content))
            stream.add_record(entry, content)
        for path, text in sorted(added.links.items()):
            entry = Entry(path, EntryType.SYMLINK, 0o777, owner.uid, owner.gid, target=text)
            stream.add(entry)
        stream.end()


def _read_again(
    layers: Sequence[NewLayer], mirror: Mirror, read: ReadContents
) -> Generator[tuple[NewLayer, PassOn]]:
    """Yield each layer with what passes on its contents.

    The next layer is begun to be read before that, since starting a process takes its time.
    """

    def begin(stack: ExitStack, layer: NewLayer) -> PassOn:
        with _damage_explained(layer.digest, mirror):
            return stack.enter_context(_read_by(read, mirror.staged(layer.digest), mirror))

    with ExitStack() as ahead:
        begun = begin(ahead, layers[0]) if layers else None
        for layer, following in zip_longest(layers, layers[1:]):
            assert begun is not None
            with ahead.pop_all():
                contents = begun
                begun = begin(ahead, following) if following is not None else None
                yield layer, contents


def _send_layer(
    layer: NewLayer, contents: PassOn, stream: TarStream, owner: Owner, mirror: Mirror
) -> None:
    staged = mirror.staged(layer.digest)
    tree = layout.layer_tree(layer.digest)
    index_path = layout.layer_index(layer.digest)
    below = [layout.layer_tree(digest) for digest in layer.below]

    def add(entry: Entry, content: Content) -> None:
        path = f"{tree}/{entry.path}" if entry.path else tree
        target = entry.target
        if entry.type is EntryType.HARDLINK:
            target = f"{tree}/{target}"
        stream.add(entry, content, path, target)

    def borrow(fixup: Fixup) -> None:
        assert fixup.layer is not None
        path = f"{tree}/{fixup.entry.path}"
        if fixup.entry.type is EntryType.FILE:
            stream.add(_LINK, (), path, f"{below[fixup.layer]}/{fixup.source}")
        else:
            stream.add(fixup.entry, (), path)

    with staged.index.open("rb") as index:
        with _damage_explained(layer.digest, mirror):
            replay(index, layer.fixups, contents, add, borrow)
        entries = read_index(index)
        if entries.header.entries > DEFAULT_LIMIT:
            for directory in sorted(plan_catalogs(entries)):
                stream.start_catalog(f"{tree}/{directory}")
        _send_file(index, index_path, stream, owner)
    for file, path in (
        (staged.tar_split, layout.layer_tar_split(layer.digest)),
        (staged.packages, layout.layer_packages(layer.digest)),
    ):
        if file.exists():
            with file.open("rb") as data:
                _send_file(data, path, stream, owner)


@contextmanager
def _damage_explained(digest: str, mirror: Mirror) -> Iterator[None]:
    """Discard a staged layer that is damaged, and raise LayerChanged."""
    try:
        yield
    except NoTemporarySpace:
        raise
    except (LayerError, DigestMismatch) as error:
        # The blob was verified when it arrived, so the disk has damaged it: fetch it again.
        mirror.discard(digest)
        raise LayerChanged(digest, why=f"its staged copy is damaged: {error}") from error


@contextmanager
def _read_by(read: ReadContents, staged: StagedLayer, mirror: Mirror) -> Iterator[PassOn]:
    kept = mirror.kept.mapped(staged.name)
    if kept is not None:
        yield kept_contents(kept, f"layer sha256:{staged.name}")
        return
    staging = mirror.tree.staging
    scratch = staging.new_path()
    try:
        with read(StagedContents(staged.blob, staged.index, staged.order, scratch)) as pass_on:
            yield pass_on
    finally:
        if scratch.exists():
            staging.discard(scratch)


def _send_file(file: BinaryIO, path: str, stream: TarStream, owner: Owner) -> None:
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    entry = Entry(path, EntryType.FILE, 0o644, owner.uid, owner.gid, size)
    stream.add(entry, iter(lambda: file.read(_PIECE), b""))


def _send_tree(tree: NewTree, stream: TarStream) -> None:
    for item in read_plan(tree.plan):
        if isinstance(item, str):
            stream.start_catalog(f"{tree.path}/{item}")
        else:
            entry, content, path, target = item
            path = f"{tree.path}/{path}" if path else tree.path
            stream.add(entry, (content,) if content else (), path, target)


def write_plan(file: Path, plan: Iterable[Merged | Generated], layers: Sequence[str]) -> None:
    """Write the entries of the flat image `plan` to `file`.

    `layers` are the digests that `plan` refers to by number. Files become hard links to
    files of the layer trees. The directories in which nested catalogs begin come last.
    """
    trees = [layout.layer_tree(digest) for digest in layers]
    held: list[bytes] = []
    with zstandard.open(file, "wb") as out:

        def each() -> Iterator[Entry]:
            for planned in plan:
                held.append(_line(planned, trees))
                if len(held) == _LINES:
                    out.write(b"".join(held))
                    held.clear()
                yield planned.entry

        catalogs = sorted(plan_catalogs(each()))
        held += [json.dumps({"catalog": directory}).encode() + b"\n" for directory in catalogs]
        out.write(b"".join(held))


def read_plan(file: Path) -> Iterator[tuple[Entry, bytes, str, str] | str]:
    """Yield all entries of the plan, then the directories of catalogs.

    Each entry comes with its content, and with its path and target, which are not in it.
    """
    with zstandard.open(file, "rb") as lines:
        rest = b""
        decode = json.JSONDecoder().decode
        while data := lines.read(1 << 18):
            *complete, rest = (rest + data).split(b"\n")
            for line in complete:
                fields = decode(line.decode("ascii"))
                if isinstance(fields, dict):
                    yield str(fields["catalog"])
                elif len(fields) == _LINK_FIELDS:
                    yield _LINK, b"", fields[0], fields[1]
                else:
                    yield _entry(fields)


def _line(planned: Merged | Generated, trees: Sequence[str]) -> bytes:
    entry = planned.entry
    if isinstance(planned, Merged) and entry.type in (EntryType.FILE, EntryType.HARDLINK):
        target = encode_basestring_ascii(f"{trees[planned.layer]}/{planned.source}")
        return f"[{encode_basestring_ascii(entry.path)},{target}]\n".encode("ascii")
    fields: list[Any] = [
        entry.path,
        entry.target,
        entry.type,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        entry.device,
    ]
    if isinstance(planned, Generated) and planned.content:
        fields.append(base64.b64encode(planned.content).decode())
    return json.dumps(fields).encode() + b"\n"


def _entry(fields: list[Any]) -> tuple[Entry, bytes, str, str]:
    path, target, kind, mode, uid, gid, mtime_ns, device, *more = fields
    content = base64.b64decode(more[0]) if more else b""
    entry = Entry(
        "",
        _TYPES[kind],
        mode,
        uid,
        gid,
        len(content),
        mtime_ns,
        device=(device[0], device[1]) if device else None,
    )
    return entry, content, path, target
