"""The file that describes a transaction while its server calls are executed.

A publisher may be killed between two calls, or before it recorded that a call succeeded. The
published state is then valid, but may be neither the old nor the new one. One of the calls decides:
if it was not executed, the transaction did not take place, and the command is to be repeated; if it
was, the next publisher executes the remaining calls, and appends the transaction to the history.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Protocol

from publisher.codec import Codec, UnknownVersion, omit_default
from publisher.entry import EntryType
from publisher.lazy import dataclass
from publisher.repository import RepositoryError
from publisher.repository.cvmfs.changes import Call, Changes, Edit, Ingest
from publisher.repository.damaged import read_damaged
from publisher.repository.disk import sync_directory, sync_filesystem, write_new_file
from publisher.tree import layout
from publisher.tree.history import Record
from publisher.tree.record import Unreadable

VERSION = 2


class Tree(Protocol):
    """A published tree that can be read."""

    def kind(self, path: str) -> EntryType | None:
        """Return the type of the entry at `path`; None if it is missing."""

    def link_text(self, path: str) -> str | None:
        """Return the text of a symlink; None if it is missing."""

    def read(self, path: str) -> bytes | None:
        """Return the content of a small file; None if it is missing."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A transaction whose calls `rest` remain after its deciding call.

    The deciding call was executed if the repository has at least `revision`, all paths in `present`
    and none in `absent`, symlinks with the texts of `links`, and files with the SHA-256 digests of
    `files`. The staged copies of `layers` are then no longer needed, and `record` belongs in the
    history. Files of earlier releases have neither `revision` nor `record`.
    """

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    rest: tuple[Call, ...] = ()
    revision: int = 0
    record: Record | None = None

    def is_decided(self, tree: Tree, revision: int) -> bool:
        """Return whether the deciding call was executed; `tree` shows the published `revision`."""
        return (
            revision >= self.revision
            and all(tree.kind(path) is not None for path in self.present)
            and all(tree.kind(path) is None for path in self.absent)
            and all(tree.link_text(path) == text for path, text in self.links.items())
            and all(
                _sha256(read_damaged(tree, path)) == digest for path, digest in self.files.items()
            )
        )


@dataclass(frozen=True, slots=True)
class _CallRecord:
    """A call without content, as it is stored: `files` are in base64."""

    edit: bool
    removals: tuple[str, ...]
    files: Mapping[str, str]
    links: Mapping[str, str]
    directories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Record:
    """The file: the fields of `Pending`."""

    there: tuple[str, ...]
    gone: tuple[str, ...]
    links: Mapping[str, str]
    files: Mapping[str, str]
    layers: tuple[str, ...]
    rest: tuple[_CallRecord, ...]
    revision: int = omit_default(0)
    record: Record | None = omit_default(None)


_CODEC = Codec(_Record, version=VERSION)


def marked(calls: Sequence[Call], place: Path, record: Record) -> tuple[tuple[Call, ...], Pending]:
    """Return the calls of a transaction at a gateway, and its record.

    The last call decides, since other publishers may change the records before a rest is executed.
    They may also change what it published before this publisher recovers. It therefore writes the
    ID of the transaction to a file as well, which only the publisher with the state directory
    `place` writes.
    """
    name = hashlib.sha256(os.fsencode(f"{socket.gethostname()}:{place}")).hexdigest()[:32]
    mark = {f"{layout.PUBLISHERS}/{name}": f"{record.id}\n".encode()}
    *before, last = calls
    if isinstance(last, Edit):
        marking = (*before, replace(last, files={**last.files, **mark}))
    else:
        marking = (*calls, Edit(files=mark))
    digests = {path: _sha256(content) for path, content in mark.items()}
    return marking, Pending(files=digests, layers=_sent(calls), record=record)


def plan(calls: Sequence[Call], revision: int = 0, record: Record | None = None) -> Pending:
    """Return the record of a transaction that consists of `calls`, at a server of its own.

    Content cannot be sent again without its staged layers, and has no effect without references to
    it. The last call with content therefore decides, or else the first call. Each call publishes a
    revision; `revision` is the one before.
    """
    with_content = [n for n, call in enumerate(calls) if has_content(call)]
    number = max(with_content, default=0)
    deciding = calls[number]
    if isinstance(deciding, Edit):
        present, absent = deciding.directories, deciding.removals
        links, files = deciding.links, deciding.files
    else:
        added = deciding.additions
        present = (
            *added.directories,
            *(layout.layer_index(layer.digest) for layer in added.layers),
            *(tree.path for tree in added.trees),
            *added.large,
        )
        absent, links, files = deciding.deletions, added.links, added.files
    digests = {path: _sha256(content) for path, content in files.items()}
    rest = tuple(calls[number + 1 :])
    return Pending(
        present, absent, links, digests, _sent(calls), rest, revision + number + 1, record
    )


def _sent(calls: Sequence[Call]) -> tuple[str, ...]:
    return tuple(
        layer.digest
        for call in calls
        if isinstance(call, Ingest)
        for layer in call.additions.layers
    )


def has_content(call: Call) -> bool:
    """Return whether the call sends content that only its publisher has."""
    return isinstance(call, Ingest) and call.additions.has_content


def write(file: Path, pending: Pending) -> None:
    """Write `pending` to `file`, and wait until it is on disk."""
    record = _Record(
        pending.present,
        pending.absent,
        pending.links,
        pending.files,
        pending.layers,
        tuple(map(_record_of, pending.rest)),
        pending.revision,
        pending.record,
    )
    draft = file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    write_new_file(draft, _CODEC.dump(record), mode=0o600)
    sync_filesystem(file.parent)
    draft.rename(file)
    sync_directory(file.parent)


def read(file: Path) -> Pending | None:
    """Return the content of `file`; None if it is missing.

    Raises:
        RepositoryError: The file cannot be parsed.
    """
    try:
        record = _CODEC.parse(file.read_bytes())
        rest = tuple(map(_call_of, record.rest))
    except FileNotFoundError:
        return None
    except ValueError as error:
        newer = isinstance(error, UnknownVersion)
        raise RepositoryError(
            f"cannot finish the transaction in {file}",
            why=f"the file cannot be read: {error}",
            hint="use the release of publisher that wrote it, or a newer one"
            if newer
            else f"remove the file, and run `publisher verify --repair`: rm {file}",
        ) from error
    return Pending(
        record.there,
        record.gone,
        record.links,
        record.files,
        record.layers,
        rest,
        record.revision,
        record.record,
    )


def _published(tree: Tree, path: str) -> str:
    """Return the digest of the published file; "" if no file is at the path."""
    content = read_damaged(tree, path)
    return _sha256(None if isinstance(content, Unreadable) else content)


def _sha256(content: bytes | None) -> str:
    return "" if content is None else hashlib.sha256(content).hexdigest()


def _record_of(call: Call) -> _CallRecord:
    added = call if isinstance(call, Edit) else call.additions
    return _CallRecord(
        isinstance(call, Edit),
        call.removals if isinstance(call, Edit) else call.deletions,
        {path: base64.b64encode(data).decode() for path, data in added.files.items()},
        added.links,
        added.directories,
    )


def _call_of(record: _CallRecord) -> Call:
    """Return the call; raise ValueError if a content is not in base64."""
    files = {path: base64.b64decode(text, validate=True) for path, text in record.files.items()}
    if record.edit:
        return Edit(record.removals, files, record.links, record.directories)
    additions = Changes(files=files, links=record.links, directories=record.directories)
    return Ingest(additions, record.removals)
