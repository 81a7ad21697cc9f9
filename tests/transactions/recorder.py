"""Records what a command does to a tree, so that a model can repeat a part of it."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")
_read, _scandir = os.read, os.scandir
_open, _close = os.open, os.close


class Recorder:
    """Notes each operation on the names below `root`, by the inodes of their directories.

    The first line holds the whole tree as it is at first; every later one an operation, with what
    it was found to have made or changed.
    """

    def __init__(self, root: str, log: str) -> None:
        self._root = root
        self._lock = threading.RLock()
        self._known: dict[int, tuple[int, int, int]] = {}
        self._log = _open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._note({"root": os.stat(root).st_ino, "inodes": self._changed(names=True)})

    def around(self, name: str, place: str, source: str, call: Callable[[], _T]) -> _T:
        """Execute `call`, and record it."""
        if not place.startswith(f"{self._root}/") and place != self._root:
            return call()
        with self._lock:
            before = _inode(place)
            moved = self._parent(source) if source else {}
            result = call()
            self._note_operation(name, place, source, before, moved)
            return result

    def _note_operation(
        self, name: str, place: str, source: str, before: int, moved: dict[str, Any]
    ) -> None:
        parent = self._parent(place)
        match name:
            case "rename" | "replace":
                here = {"to": parent["parent"], "as": parent["name"]}
                self._note({"op": "move", **moved, **here})
            case "renameat2":
                here = {"to": parent["parent"], "as": parent["name"]}
                self._note({"op": "swap", **moved, **here})
            case "unlink" | "remove" | "rmdir":
                self._note({"op": "drop", **parent})
            case "mkdir" | "symlink" | "link" | "mknod" | "mkfifo" | "open" if not before:
                changed = self._changed() | self._look(place)
                self._note({"op": "add", **parent, "inode": _inode(place), "inodes": changed})
            case "fsync":
                self._note({"op": "fsync", "inode": _inode(place), "inodes": self._changed()})
            case "syncfs":
                self._note({"op": "syncfs", "inodes": self._changed()})

    def _parent(self, place: str) -> dict[str, Any]:
        above, _, name = place.rpartition("/")
        return {"parent": _inode(above), "name": name}

    def _note(self, value: dict[str, Any]) -> None:
        os.writev(self._log, [json.dumps(value).encode() + b"\n"])

    def _changed(self, names: bool = False) -> dict[str, Any]:
        """What has changed since it was recorded last, by inode."""
        found: dict[str, Any] = {}
        waiting = [self._root]
        while waiting:
            path = waiting.pop()
            if os.path.isdir(path) and not os.path.islink(path):
                with _scandir(path) as entries:
                    waiting += [entry.path for entry in entries]
            found |= self._look(path, names)
        return found

    def _look(self, path: str, names: bool = False) -> dict[str, Any]:
        status = os.lstat(path)
        seen = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if self._known.get(status.st_ino) == seen:
            return {}
        self._known[status.st_ino] = seen
        is_directory = stat.S_ISDIR(status.st_mode)
        value: dict[str, Any] = {
            "mode": status.st_mode,
            "uid": status.st_uid,
            "gid": status.st_gid,
            "mtime_ns": status.st_mtime_ns,
            "target": os.readlink(path) if stat.S_ISLNK(status.st_mode) else "",
            "device": status.st_rdev,
            "content": _content(path).hex() if stat.S_ISREG(status.st_mode) else "",
        }
        if names and is_directory:
            with _scandir(path) as entries:
                value["names"] = {entry.name: entry.inode() for entry in entries}
        elif names:
            value["names"] = {}
        return {str(status.st_ino): value}


def _inode(path: str) -> int:
    try:
        return os.lstat(path).st_ino
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _content(path: str) -> bytes:
    descriptor = _open(path, os.O_RDONLY)
    try:
        pieces = []
        while piece := _read(descriptor, 1 << 20):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        _close(descriptor)
