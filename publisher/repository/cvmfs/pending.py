"""A transaction on its way, written down before its first server call.

A publisher may die between two calls, or before it has noted what it did. What is published then is
valid, but perhaps neither what was before nor what should be after. One of the calls decides: until
it is done nothing has happened (the command does it all again); after it, whoever writes next
carries out the rest.
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
    """What is published, to be asked."""

    def kind(self, path: str) -> EntryType | None:
        """What is at `path`; None where nothing is."""

    def link_text(self, path: str) -> str | None:
        """A symlink's text; None where there is none."""

    def read(self, path: str) -> bytes | None:
        """A small file's bytes; None where there is none."""


@dataclass(frozen=True, slots=True)
class Pending:
    """`rest` is to be done once the repository has what the deciding call makes of it.

    That is: something at all paths in `there`, nothing at those in `gone`, `links` with these texts
    and `files` with contents of these SHA-256. `layers` are sent from where they are staged, and
    need not be kept there any more.
    """

    there: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    rest: tuple[Call, ...] = ()

    def is_decided(self, tree: Tree) -> bool:
        """Whether the deciding call was done."""
        return (
            all(tree.kind(path) is not None for path in self.there)
            and all(tree.kind(path) is None for path in self.gone)
            and all(tree.link_text(path) == text for path, text in self.links.items())
            and all(_sha256(tree.read(path)) == digest for path, digest in self.files.items())
        )


def plan(calls: Sequence[Call], gateway: bool = False) -> Pending:
    """What has to be written down for `calls`.

    Content cannot be sent again without the layers it comes from, and is of no consequence as long
    as nothing leads to it: so it is the last call with content that decides, or else the first of
    all. Through a gateway it is the last: by the time that somebody carries out a rest others may
    have changed what that rest says.
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
        there, gone = deciding.directories, deciding.removals
        links, files = deciding.links, deciding.files
    else:
        added = deciding.additions
        there = (
            *added.directories,
            *(layout.layer_index(layer.digest) for layer in added.layers),
            *(tree.path for tree in added.trees),
        )
        gone, links, files = deciding.deletions, added.links, added.files
    digests = {path: _sha256(content) for path, content in files.items()}
    return Pending(there, gone, links, digests, tuple(sent), tuple(calls[number + 1 :]))


def has_content(call: Call) -> bool:
    """Whether the call sends layers or trees."""
    return isinstance(call, Ingest) and bool(call.additions.layers or call.additions.trees)


def write(file: Path, pending: Pending) -> None:
    """Write it down, on disk."""
    value = {
        "version": VERSION,
        "there": pending.there,
        "gone": pending.gone,
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
    """What was written down; None where nothing was."""
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
            why=f"the file cannot be used ({error})",
            hint="a newer publisher may have written it; else remove it, and let `publisher "
            "verify --repair` find what is incomplete",
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
