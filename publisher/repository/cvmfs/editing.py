"""Changing the mounted tree by hand, in a transaction of the server that is open."""

from __future__ import annotations

from pathlib import Path

from publisher.repository.cvmfs.catalogs import MARKER, starts_catalog
from publisher.repository.cvmfs.changes import Edit
from publisher.repository.disk import (
    make_directories,
    remove_empty_parents,
    remove_tree,
    write_new_file,
)


def apply(edit: Edit, mount: Path) -> None:
    """Do in the tree at `mount` what `edit` says."""
    for path in edit.directories:
        _make_parents(mount, f"{path}/-")
    for path, content in sorted(edit.files.items()):
        _make_parents(mount, path)
        draft = (mount / path).with_name(".publisher-draft")
        draft.unlink(missing_ok=True)
        write_new_file(draft, content)
        draft.rename(mount / path)
    for path, text in sorted(edit.links.items()):
        _make_parents(mount, path)
        (mount / path).unlink(missing_ok=True)
        (mount / path).symlink_to(text)
    for path in edit.removals:
        remove_tree(mount / path)
        remove_empty_parents(mount / path, mount)


def _make_parents(mount: Path, path: str) -> None:
    """Make the directories above `path`, with the catalogs that start there."""
    for above in reversed(Path(path).parents[:-1]):
        if not (mount / above).is_dir():
            make_directories(mount / above)
            if starts_catalog(above.as_posix()):
                write_new_file(mount / above / MARKER, b"")
