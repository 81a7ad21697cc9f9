"""The file that describes a transaction while its server calls are executed.

A publisher may die between two calls, or before it recorded that a call succeeded. What is
published then is valid, but may be neither the old nor the new state. One of the calls decides: if
it was not executed, the transaction did not take place (the command does everything again); if it
was, the next publisher executes the remaining calls.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from publisher.entry import EntryType
from publisher.repository import RepositoryError
from publisher.repository.cvmfs.changes import Call, Changes, Edit, Ingest
from publisher.repository.disk import sync_directory, sync_filesystem, write_new_file
from publisher.tree import layout

VERSION = 2


class Tree(Protocol):
    """A published tree that can be read."""

    def kind(self, path: str) -> EntryType | None:
        """Return the type of what is at `path`; None if nothing is."""

    def link_text(self, path: str) -> str | None:
        """Return a symlink's text; None if there is no such symlink."""

    def read(self, path: str) -> bytes | None:
        """Return a small file's bytes; None if there is no such file."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A transaction whose calls `rest` remain once its deciding call is executed.

    That is the case if the repository has all paths in `present` and none in `absent`, symlinks
    with the texts of `links`, and files with the SHA-256 digests of `files`. The staged copies of
    `layers` are not needed any more then.
    """

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    rest: tuple[Call, ...] = ()

    def is_decided(self, tree: Tree) -> bool:
        """Return whether the deciding call was executed."""
        return (
            all(tree.kind(path) is not None for path in self.present)
            and all(tree.kind(path) is None for path in self.absent)
            and all(tree.link_text(path) == text for path, text in self.links.items())
            and all(_sha256(tree.read(path)) == digest for path, digest in self.files.items())
        )


def plan(calls: Sequence[Call], gateway: bool = False) -> Pending:
    """Return what has to be recorded before `calls` are executed.

    Content cannot be sent again without its staged layers, and has no effect while nothing refers
    to it: so the last call with content decides, or else the first call. At a gateway the last call
    decides: other publishers may change the records before the rest would be executed.
    """
    with_content = [n for n, call in enumerate(calls) if has_content(call)]
    number = len(calls) - 1 if gateway else max(with_content, default=0)
    deciding = calls[number]
    sent = [
        layer.digest
        for call in calls
        if isinstance(call, Ingest)
        for layer in call.additions.layers
    ]
    if isinstance(deciding, Edit):
        present, absent = deciding.directories, deciding.removals
        links, files = deciding.links, deciding.files
    else:
        added = deciding.additions
        present = (
            *added.directories,
            *(layout.layer_index(layer.digest) for layer in added.layers),
            *(tree.path for tree in added.trees),
        )
        absent, links, files = deciding.deletions, added.links, added.files
    digests = {path: _sha256(content) for path, content in files.items()}
    return Pending(present, absent, links, digests, tuple(sent), tuple(calls[number + 1 :]))


def has_content(call: Call) -> bool:
    """Return whether the call sends layers or trees."""
    return isinstance(call, Ingest) and bool(call.additions.layers or call.additions.trees)


def write(file: Path, pending: Pending) -> None:
    """Write `pending` to `file`, and wait until it is on disk."""
    value = {
        "version": VERSION,
        "there": pending.present,
        "gone": pending.absent,
        "links": dict(pending.links),
        "files": dict(pending.files),
        "layers": pending.layers,
        "rest": [_call_value(call) for call in pending.rest],
    }
    draft = file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    write_new_file(draft, json.dumps(value).encode(), mode=0o600)
    sync_filesystem(file.parent)
    draft.rename(file)
    sync_directory(file.parent)


def read(file: Path) -> Pending | None:
    """Return what `file` holds; None if there is no such file.

    Raises:
        RepositoryError: The file cannot be parsed.
    """
    try:
        value = json.loads(file.read_bytes())
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']}")
        return Pending(
            tuple(value["there"]),
            tuple(value["gone"]),
            value["links"],
            value["files"],
            tuple(value["layers"]),
            tuple(_call(each) for each in value["rest"]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RepositoryError(
            f"cannot finish the transaction in {file}",
            why=f"the file cannot be parsed ({error})",
            hint="a newer publisher may have written it; else remove it, and run `publisher "
            "verify --repair`",
        ) from error


def _sha256(content: bytes | None) -> str:
    return "" if content is None else hashlib.sha256(content).hexdigest()


def _call_value(call: Call) -> dict[str, Any]:
    files = call.files if isinstance(call, Edit) else call.additions.files
    links = call.links if isinstance(call, Edit) else call.additions.links
    return {
        "edit": isinstance(call, Edit),
        "removals": call.removals if isinstance(call, Edit) else call.deletions,
        "files": {path: base64.b64encode(data).decode() for path, data in files.items()},
        "links": dict(links),
        "directories": call.directories if isinstance(call, Edit) else call.additions.directories,
    }


def _call(value: dict[str, Any]) -> Call:
    files = {path: base64.b64decode(data) for path, data in value["files"].items()}
    removals, directories = tuple(value["removals"]), tuple(value["directories"])
    if value["edit"]:
        return Edit(removals, files, value["links"], directories)
    return Ingest(Changes(files=files, links=value["links"], directories=directories), removals)
