"""Refuse, before the commit point, causes of failures after it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from publisher.repository import PathTaken
from publisher.repository.directory.journal import Rename
from publisher.repository.disk import can_be_moved


class Obstacles:
    """Checks the renames of one transaction, whose private directory is `directory`."""

    def __init__(self, root: Path, directory: Path) -> None:
        self._root = root
        self._directory = directory
        self._occupied: Path | None = None
        self._reachable: set[Path] = set()
        self._usable: set[str] = set()

    def check(self, rename: Rename) -> None:
        """Raise PathTaken if `rename` could not be executed."""
        target = self._root / rename.target
        is_tree = (self._root / rename.source).is_dir()
        is_directory = target.is_dir() and not target.is_symlink()
        if is_directory and rename.inode:
            self._check_movable(target)
        elif is_directory and not is_tree:
            raise PathTaken(
                f"cannot publish {rename.target}",
                path=rename.target,
                why="it is a directory that the publisher did not make",
                hint=f"move {target} away",
            )
        if os.path.lexists(self._root / rename.source):
            self._check_parent(rename.source)
            self._check_parent(rename.target)
            if is_tree:
                self._check_movable(self._root / rename.source)

    def _check_movable(self, tree: Path) -> None:
        """Refuse a directory that an overlay cannot move, since a lower layer has it."""
        if self._occupied is None:
            self._occupied = self._directory / "occupied"
            (self._occupied / "below").mkdir(parents=True)
        if not can_be_moved(tree, self._occupied):
            raise PathTaken(
                f"cannot move {tree}",
                path=str(tree.relative_to(self._root)),
                why="it is in a lower layer of an overlay file system",
                hint="mount the overlay with redirect_dir=on, or copy the repository (cp -a) to a "
                "file system of its own",
            )

    def _check_parent(self, path: str) -> None:
        """Refuse a path whose directory cannot be made, written to or renamed into."""
        parent = os.path.dirname(path)
        if parent in self._usable:
            return
        above = self._nearest(path)
        is_link = above != self._root and above.is_symlink()
        if is_link or not above.is_dir():
            why = f"{above.relative_to(self._root)} is not a directory"
        elif not os.access(above, os.W_OK | os.X_OK):
            why = f"{above} is not writable"
        elif not self._can_rename_into(above):
            why = f"{above} is on another file system than the staging space, or a mount point"
        else:
            self._usable.add(parent)
            return
        raise PathTaken(
            f"cannot publish {path}", path=path, why=why, hint=f"move {above} away, or correct it"
        )

    def _nearest(self, path: str) -> Path:
        """Return the first symlink above `path`, else the lowest existing directory above it."""
        place = self._root / path
        parents = [parent for parent in place.parents if parent.is_relative_to(self._root)]
        links = [parent for parent in parents if parent != self._root and parent.is_symlink()]
        return links[0] if links else next(p for p in parents if os.path.lexists(p))

    def _can_rename_into(self, directory: Path) -> bool:
        """Return whether the kernel renames from the staging space into `directory`.

        A bind mount has the device number of the rest and still refuses, so a rename is
        tried. The kernel compares the mounts before it looks for the source, which is missing.
        """
        if directory in self._reachable:
            return True
        try:
            (self._directory / "missing").rename(directory / os.urandom(16).hex())
        except FileNotFoundError:
            self._reachable.add(directory)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        return directory in self._reachable
