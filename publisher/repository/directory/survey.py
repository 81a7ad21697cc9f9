"""Walk a tree on disk, which `verify` compares with the records."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from publisher.entry import Entry, EntryType
from publisher.layers.opaque import OPAQUE_XATTRS
from publisher.lazy import dataclass
from publisher.repository.descriptors import Directories
from publisher.repository.disk import list_xattrs

_TYPES = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFCHR: EntryType.CHARACTER_DEVICE,
    stat.S_IFBLK: EntryType.BLOCK_DEVICE,
}


@dataclass(frozen=True, slots=True)
class FoundOnDisk:
    """One entry of a tree on disk; see `publisher.repository.Found`."""

    entry: Entry
    identity: tuple[int, int]
    parent: int
    name: str

    def sha256(self) -> str:
        """Return the bare hex digest of the file's content."""
        import hashlib  # long to load, and seldom needed

        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(self.name, flags, dir_fd=self.parent), "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def walk_tree(root: Path) -> Iterator[FoundOnDisk]:
    """Yield all entries of the tree `root`, its root first, in index order; follow no link.

    Whiteouts and opaque directories are read as overlayfs reads them. Sockets are left out.
    """
    with Directories(root) as directories:
        waiting = [""]
        while waiting:
            path = waiting.pop()
            above, _, name = path.rpartition("/")
            parent = directories.open(above)
            found = _look(path, name or ".", parent)
            if found is None:
                continue
            yield found
            if found.entry.type is EntryType.DIRECTORY:
                names = sorted(os.listdir(directories.open(path)), key=os.fsencode, reverse=True)
                waiting += [f"{path}/{below}" if path else below for below in names]


def type_of(status: os.stat_result) -> EntryType | None:
    """Return the type of a file with this status; None for a socket. Device 0:0 is a whiteout."""
    kind = _TYPES.get(stat.S_IFMT(status.st_mode))
    if kind is EntryType.CHARACTER_DEVICE and status.st_rdev == 0:
        return EntryType.WHITEOUT
    return kind


def _look(path: str, name: str, parent: int) -> FoundOnDisk | None:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    kind = type_of(status)
    if kind is None:
        return None
    device = None
    if kind in (EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE):
        device = os.major(status.st_rdev), os.minor(status.st_rdev)
    xattrs = _xattrs(name, parent) if kind in (EntryType.FILE, EntryType.DIRECTORY) else {}
    entry = Entry(
        path,
        kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind is EntryType.FILE else 0,
        mtime_ns=status.st_mtime_ns,
        target=os.readlink(name, dir_fd=parent) if kind is EntryType.SYMLINK else "",
        device=device,
        xattrs={key: value for key, value in xattrs.items() if key not in OPAQUE_XATTRS},
        opaque=any(xattrs.get(key) == b"y" for key in OPAQUE_XATTRS),
        links=status.st_nlink,
    )
    return FoundOnDisk(entry, (status.st_dev, status.st_ino), parent, name)


def _xattrs(name: str, parent: int) -> dict[str, bytes]:
    # There is no listxattr relative to a descriptor. This path is short, and follows no link.
    place = f"/proc/self/fd/{parent}/{name}"
    return {
        key: os.getxattr(place, key, follow_symlinks=False)
        for key in list_xattrs(place, follow_symlinks=False)
        if key.startswith("user.") or key in OPAQUE_XATTRS or key == "security.capability"
    }
