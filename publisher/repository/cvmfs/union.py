"""Change files in the union mount, in an open transaction of the server.

The union mount is an overlayfs over the published tree. Directories of the published tree cannot be
renamed in it (EXDEV). Its directories list whiteouts of the published tree that cannot be looked up
(ENOENT); they disappear once their directory is removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from publisher.repository.cvmfs.changes import Edit
from publisher.repository.cvmfs.stream import CATALOG_MARKER, starts_catalog
from publisher.repository.disk import make_directories, remove_empty_parents, write_new_file

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def apply_edit(edit: Edit, top: Path) -> None:
    """Apply `edit` to the tree at `top`."""
    for path in edit.directories:
        _make_parents(top, f"{path}/-")
    for path, content in sorted(edit.files.items()):
        _make_parents(top, path)
        with _keeping_times((top / path).parent):
            draft = (top / path).with_name(".publisher-draft")
            draft.unlink(missing_ok=True)
            write_new_file(draft, content)
            draft.rename(top / path)
    for path, text in sorted(edit.links.items()):
        _make_parents(top, path)
        (top / path).unlink(missing_ok=True)
        (top / path).symlink_to(text)
    for path in edit.removals:
        with _keeping_times((top / path).parent):
            remove(top / path)
        remove_empty_parents(top / path, top)


@contextmanager
def _keeping_times(directory: Path) -> Iterator[None]:
    """Restore the times of the directory afterwards; `cvmfs_server ingest` keeps them as well."""
    try:
        before = directory.stat()
    except (FileNotFoundError, NotADirectoryError):
        yield
        return
    yield
    os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(path: Path) -> None:
    """Delete the entry at `path` in a union mount, and all entries below it, at any depth.

    Unlike `publisher.repository.disk.remove_tree` it renames nothing.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    directory = os.open(path, _DIRECTORY)
    try:
        names: list[str] = []
        waiting = [_empty(directory)]
        while waiting:
            if waiting[-1]:
                name = waiting[-1].pop()
                directory = _change(directory, name)
                names.append(name)
                waiting.append(_empty(directory))
                continue
            waiting.pop()
            if names:
                directory = _change(directory, "..")
                os.rmdir(names.pop(), dir_fd=directory)
    finally:
        os.close(directory)
    path.rmdir()


def _change(directory: int, name: str) -> int:
    """Return a descriptor of `name` in `directory`, and close that of `directory`."""
    changed = os.open(name, _DIRECTORY, dir_fd=directory)
    os.close(directory)
    return changed


def _empty(directory: int) -> list[str]:
    """Unlink all entries of the directory except directories; return their names."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            with suppress(FileNotFoundError):  # a whiteout of the published tree
                os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in found if is_directory]


def _make_parents(top: Path, path: str) -> None:
    """Create the directories above `path`, with the markers of their catalogs."""
    for above in reversed(Path(path).parents[:-1]):
        if not (top / above).is_dir():
            make_directories(top / above)
            if starts_catalog(above.as_posix()):
                write_new_file(top / above / CATALOG_MARKER, b"")
