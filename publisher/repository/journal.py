"""The commit of the directory backend: a list of renames, written down before it is begun.

Once the journal is on disk the transaction *has happened*: whoever writes next carries it out to
the end, however often it is interrupted, since every operation can be repeated. Before that moment
nothing of it is visible. Operations run in order: content, then metadata and links, then removals.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher.repository import RepositoryError
from publisher.repository.disk import (
    make_directories,
    sync_directory,
    sync_filesystem,
    write_new_file,
)
from publisher.repository.history import History, Record

VERSION = 1


@dataclass(frozen=True, slots=True)
class Rename:
    """Move `source` to `target`, both relative to the repository's root.

    A file or symlink at `target` is replaced in the same instant.
    """

    source: str
    target: str


def write(journal: Path, operations: Sequence[Rename], record: Record) -> None:
    """Reach the commit point: the operations are on disk, after everything they refer to.

    `record` is what the history will say of them.
    """
    sync_filesystem(journal.parent)
    draft = journal.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    value = {
        "version": VERSION,
        "record": record.to_value(),
        "operations": [[operation.source, operation.target] for operation in operations],
    }
    write_new_file(draft, json.dumps(value).encode(), mode=0o600)
    sync_filesystem(journal.parent)
    draft.rename(journal)
    sync_directory(journal.parent)


def apply(root: Path, journal: Path) -> bool:
    """Carry out the journal, if there is one, and remove it; False if there was none."""
    try:
        data = journal.read_bytes()
    except FileNotFoundError:
        return False
    operations, record = _parse(data, journal)
    for operation in operations:
        source, target = root / operation.source, root / operation.target
        try:
            source.rename(target)
        except FileNotFoundError:
            # What is not there any more was moved before an interruption. Its place may have been
            # removed since, and must not come back.
            if os.path.lexists(source):
                make_directories(target.parent)
                source.rename(target)
    sync_filesystem(root)
    History(journal.parent).append(record)
    journal.unlink()
    sync_directory(journal.parent)
    return True


def _parse(data: bytes, journal: Path) -> tuple[list[Rename], dict[str, Any]]:
    try:
        value = json.loads(data)
        version = value["version"]
        if version == VERSION:
            operations = [Rename(source, target) for source, target in value["operations"]]
            return operations, value["record"]
    except (ValueError, TypeError, KeyError) as error:
        # Written before it got its name, so no interruption of ours does this.
        raise RepositoryError(
            f"cannot finish the transaction in {journal}",
            why=f"the file is damaged ({type(error).__name__}: {error})",
            hint="check the disk and restore the file; only if that cannot be done, remove it, and "
            "publish again what is incomplete",
        ) from error
    raise RepositoryError(
        f"cannot finish the transaction in {journal}",
        why=f"a release of publisher with journal version {version!r} wrote it",
        hint="run that release once more on this repository",
    )
