"""The rest of a transaction that takes several server calls, written down before the first.

A publisher may die between two calls. What is published then is valid, but neither what was before
nor what should be after; who writes next carries out the rest, if the first call was done.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher.entry import EntryType
from publisher.repository import RepositoryError
from publisher.repository.cvmfs.changes import Call, Changes, Edit, Ingest
from publisher.repository.disk import sync_directory, write_new_file

VERSION = 1


@dataclass(frozen=True, slots=True)
class Pending:
    """`rest` is to be done once the repository has what is `there`, and not what is `gone`."""

    there: tuple[str, ...]
    gone: tuple[str, ...]
    links: Mapping[str, str]
    rest: tuple[Call, ...]

    def has_begun(
        self, kind: Callable[[str], EntryType | None], link_text: Callable[[str], str | None]
    ) -> bool:
        """Whether the first call was done."""
        return (
            all(kind(path) is not None for path in self.there)
            and all(kind(path) is None for path in self.gone)
            and all(link_text(path) == text for path, text in self.links.items())
        )


def plan_rest(calls: Sequence[Call]) -> Pending | None:
    """What has to be written down for `calls`; None where one call does all.

    Content cannot be sent again without the layers it comes from, so calls that have some come
    first; where a tree is replaced, its deletion comes before, and a repair does both again.
    """
    first, *rest = calls
    if not rest or any(isinstance(c, Ingest) and _has_content(c.additions) for c in rest):
        return None
    if isinstance(first, Edit):
        return Pending((), first.removals, first.links, tuple(rest))
    added = first.additions
    there = tuple(tree.path for tree in added.trees)
    return Pending(there, first.deletions, added.links, tuple(rest))


def write(file: Path, pending: Pending) -> None:
    """Write it down, on disk."""
    value = {
        "version": VERSION,
        "there": pending.there,
        "gone": pending.gone,
        "links": dict(pending.links),
        "rest": [_call_value(call) for call in pending.rest],
    }
    draft = file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    write_new_file(draft, json.dumps(value).encode(), mode=0o600)
    draft.rename(file)
    sync_directory(file.parent)


def read(file: Path) -> Pending | None:
    """What was written down; None where nothing was."""
    try:
        value = json.loads(file.read_bytes())
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']}")
        rest = tuple(_call(each) for each in value["rest"])
        return Pending(tuple(value["there"]), tuple(value["gone"]), value["links"], rest)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RepositoryError(
            f"cannot finish the transaction in {file}",
            why=f"the file cannot be used ({error})",
            hint="a newer publisher may have written it; else remove it, and let `publisher "
            "verify --repair` find what is incomplete",
        ) from error


def _has_content(changes: Changes) -> bool:
    return bool(changes.layers or changes.trees)


def _call_value(call: Call) -> dict[str, Any]:
    files = call.files if isinstance(call, Edit) else call.additions.files
    links = call.links if isinstance(call, Edit) else call.additions.links
    return {
        "edit": isinstance(call, Edit),
        "removals": call.removals if isinstance(call, Edit) else call.deletions,
        "files": {path: base64.b64encode(data).decode() for path, data in files.items()},
        "links": dict(links),
    }


def _call(value: dict[str, Any]) -> Call:
    files = {path: base64.b64decode(data) for path, data in value["files"].items()}
    removals = tuple(value["removals"])
    if value["edit"]:
        return Edit(removals, files, value["links"])
    return Ingest(Changes(files=files, links=value["links"]), removals)
