"""Directory trees as values, so that tests can compare them and print the differences."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path

_SMALL = 1 << 14

TYPES = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFSOCK: "s",
}

OPAQUE = "trusted.overlay.opaque" if os.geteuid() == 0 else "user.overlay.opaque"
"""The attribute that marks opaque directories for overlayfs, for the user of the tests."""


def owned(uid: int, gid: int = 0) -> tuple[int, int]:
    """Return the published owner for `uid` and `gid`: without root, those of this process."""
    return (uid, gid) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


@dataclass(frozen=True, slots=True)
class Node:
    """The visible properties of one path. `type` is find's letter; `links` all paths of its inode.

    Sizes are those of files and symlinks only. Overlayfs's own extended attributes are left out.
    """

    type: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    target: str = ""
    sha256: str = ""
    device: tuple[int, int] | None = None
    links: tuple[str, ...] = ()
    xattrs: tuple[tuple[str, bytes], ...] = ()

    def __str__(self) -> str:
        text = f"{self.type} {self.mode:04o} {self.uid}:{self.gid} {self.size} bytes"
        return f"{text} -> {self.target}" if self.type == "l" else text


Tree = Mapping[str, Node]


def describe_tree(root: Path, *, skip_phantoms: bool = False) -> dict[str, Node]:
    """Every path below `root`, relative to it ("" is the root itself), with its metadata.

    With `skip_phantoms`, names that directories list but that do not exist are passed over: so
    overlayfs shows whiteouts that hide nothing, in directories that only one layer has. Works from
    one directory descriptor, so that paths may be as long as a layer may make them.
    """
    nodes: dict[str, Node] = {}
    inodes: dict[tuple[int, int], list[str]] = {}
    for path, status, location in _walk(root, skip_phantoms):
        nodes[path] = _node(status, location)
        if not stat.S_ISDIR(status.st_mode):
            inodes.setdefault((status.st_dev, status.st_ino), []).append(path)
    for paths in inodes.values():
        if len(paths) > 1:
            for path in paths:
                nodes[path] = replace(nodes[path], links=tuple(sorted(paths)))
    return nodes


def tree_identity(root: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, mtime and ctime (ns) of every path below `root`: equal only if nothing changed."""
    return {
        path: (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        for path, status, _ in _walk(root)
    }


def assert_same_tree(
    actual: Path | Tree,
    expected: Path | Tree,
    *,
    ignore: Collection[str] = (),
    ignore_paths: Collection[str] = (),
    directory_times: bool = False,
) -> None:
    """Fail with a list of differences unless both trees are equal.

    `ignore` names fields of Node, `ignore_paths` holds shell patterns of paths. The mtimes of
    directories are compared on request only: they show the last write into a directory.
    """
    unknown = set(ignore) - {field.name for field in fields(Node)}
    assert not unknown, f"a node has no {unknown}"
    left = describe_tree(actual) if isinstance(actual, Path) else actual
    right = describe_tree(expected) if isinstance(expected, Path) else expected
    differences = [
        line
        for path in sorted(left.keys() | right.keys())
        if not any(fnmatchcase(path, pattern) for pattern in ignore_paths)
        for line in _differences(path, left.get(path), right.get(path), ignore, directory_times)
    ]
    if differences:
        shown = "\n".join(differences[:40])
        more = f"\n… and {len(differences) - 40} more" if len(differences) > 40 else ""
        raise AssertionError(f"{len(differences)} differences:\n{shown}{more}")


def _differences(
    path: str, left: Node | None, right: Node | None, ignore: Collection[str], times: bool
) -> Iterator[str]:
    name = repr(path or ".")
    if left is None:
        yield f"{name} is missing: expected {right}"
    elif right is None:
        yield f"{name} is unexpected: {left}"
    else:
        for field in fields(Node):
            if field.name in ignore:
                continue
            if field.name == "mtime_ns" and left.type == right.type == "d" and not times:
                continue
            actual, expected = getattr(left, field.name), getattr(right, field.name)
            if actual != expected:
                if field.name == "mode":
                    actual, expected = f"{actual:04o}", f"{expected:04o}"
                yield f"{name}: {field.name} is {actual!r}, expected {expected!r}"


def _walk(root: Path, skip_phantoms: bool = False) -> Iterator[tuple[str, os.stat_result, str]]:
    """(path, status, where to reach it) of `root` and everything below it, sorted."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield "", os.fstat(top), f"/proc/self/fd/{top}/."
        waiting = [""]
        while waiting:
            parent = waiting.pop()
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            directory = os.open(parent or ".", flags, dir_fd=top)
            try:
                for name in sorted(os.listdir(directory)):
                    path = f"{parent}/{name}" if parent else name
                    try:
                        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    except FileNotFoundError:
                        if skip_phantoms:
                            continue
                        raise
                    yield path, status, f"/proc/self/fd/{directory}/{name}"
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(path)
            finally:
                os.close(directory)
    finally:
        os.close(top)


def _node(status: os.stat_result, location: str) -> Node:
    kind = TYPES[stat.S_IFMT(status.st_mode)]
    return Node(
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if kind in "fl" else 0,
        target=os.readlink(location) if kind == "l" else "",
        sha256=_sha256(location) if kind == "f" else "",
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in "cb" else None,
        xattrs=tuple(
            (name, os.getxattr(location, name, follow_symlinks=False))
            for name in sorted(os.listxattr(location, follow_symlinks=False))
            if not name.startswith(("trusted.overlay.", "user.overlay."))
        ),
    )


def _sha256(location: str) -> str:
    descriptor = os.open(location, os.O_RDONLY)
    try:
        start = os.read(descriptor, _SMALL)  # most files end there
        found = hashlib.sha256(start)
        if len(start) == _SMALL:
            while data := os.read(descriptor, 1 << 20):
                found.update(data)
        return found.hexdigest()
    finally:
        os.close(descriptor)
