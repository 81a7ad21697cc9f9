"""Create single entries in open directories; raise FileExistsError if the name exists."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Mapping

from publisher.entry import Content, Entry, EntryType, Hole
from publisher.layers.content import read_content
from publisher.layers.opaque import OPAQUE_XATTRS
from publisher.repository import DeviceRefused
from publisher.repository.disk import file_system_type, list_xattrs

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LATEST_NS = 2**55 * 10**9
"""Later times (ns) are replaced by this one; the range of every file system is smaller."""

NO_LINK = (errno.EMLINK, errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
"""The errors of link(2) at the maximum of links, and on file systems without hard links."""

_MOST_KINDS = 20
NO_XATTR = (
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EPERM,
    errno.EACCES,
    errno.ENOSPC,
    errno.E2BIG,
    errno.ERANGE,
)

_COPIED = {
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFCHR: EntryType.CHARACTER_DEVICE,
    stat.S_IFBLK: EntryType.BLOCK_DEVICE,
}


class NodeMaker:
    """Makes files, links and devices with the metadata of entries.

    As root it sets their owners; otherwise everything belongs to the user. `refused` counts
    metadata that the file system or the kernel did not store, by its kind.
    """

    def __init__(self) -> None:
        self._is_root = os.geteuid() == 0
        self._opaque_names = OPAQUE_XATTRS if self._is_root else OPAQUE_XATTRS[1:]
        self._types: dict[int, str] = {}
        self.refused: Counter[str] = Counter()

    def file(self, parent: int, name: str, entry: Entry, content: Content) -> None:
        """Create a file with this content."""
        descriptor = os.open(name, _NEW_FILE, entry.mode & 0o777, dir_fd=parent)
        try:
            ends_in_hole = False
            for piece in content:
                ends_in_hole = isinstance(piece, Hole)
                if isinstance(piece, Hole):
                    os.lseek(descriptor, piece.size, os.SEEK_CUR)
                    continue
                written = os.write(descriptor, piece)
                while written < len(piece):
                    piece = memoryview(piece)[written:]
                    written = os.write(descriptor, piece)
            if ends_in_hole:
                os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))
            self.describe(descriptor, entry)
            set_time(descriptor, entry.mtime_ns)
        finally:
            os.close(descriptor)

    def other(self, parent: int, name: str, entry: Entry) -> None:
        """Create a symlink, FIFO, device node or whiteout.

        Raises DeviceRefused if the kernel does not create the node. Without it, the entry of lower
        layers at its path would be visible.
        """
        kind = entry.type
        if kind is EntryType.SYMLINK:
            os.symlink(entry.target, name, dir_fd=parent)
        elif kind is EntryType.WHITEOUT:
            self._make_whiteout(parent, name)
            return
        else:
            node = {
                EntryType.FIFO: stat.S_IFIFO,
                EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
                EntryType.BLOCK_DEVICE: stat.S_IFBLK,
            }[kind]
            device = os.makedev(*entry.device) if entry.device else 0
            try:
                os.mknod(name, node | 0o600, device, dir_fd=parent)
            except PermissionError as error:
                if kind is EntryType.FIFO or error.errno != errno.EPERM:
                    raise
                raise DeviceRefused(
                    f"cannot make the device node {entry.path!r}",
                    why="the kernel allows only root to make it",
                    hint="publish as root, or without devices: `publisher init --devices drop`",
                ) from error
        if self._is_root:
            try:
                os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                self._refuse_owner(error)
        if kind is not EntryType.SYMLINK:
            # O_PATH does not open the device itself; and chmod cannot refuse to follow links.
            node_itself = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                os.chmod(f"/proc/self/fd/{node_itself}", entry.mode)
            except FileNotFoundError:
                # In a process whose root directory is that of the layer, /proc is missing, and no
                # link leads out of the layer.
                os.chmod(name, entry.mode, dir_fd=parent)
            finally:
                os.close(node_itself)
        time = storable_time(entry.mtime_ns)
        os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)

    def _make_whiteout(self, parent: int, name: str) -> None:
        if self._hides_whiteouts(parent):
            self.refused["whiteout"] += 1
            return
        try:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                raise
            # On an overlayfs, such as a container's own file system, whiteouts cannot be made;
            # kernels before 5.8 allow only root to make them.
            self.refused["whiteout"] += 1
            return
        if self._is_root:  # it would belong to the group of a directory with set-group-ID
            os.chown(name, 0, 0, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(0, 0), dir_fd=parent, follow_symlinks=False)

    def _hides_whiteouts(self, parent: int) -> bool:
        """Return whether `parent` is on a fuse-overlayfs.

        It would make a whiteout, hide it, fail with ENOENT, and never remove the directory again.
        """
        device = os.fstat(parent).st_dev
        if device not in self._types:
            self._types[device] = file_system_type(device)
        return self._types[device] == "fuse.fuse-overlayfs"

    def describe(self, descriptor: int, entry: Entry) -> None:
        """Give an open file or directory the owner, mode and extended attributes of `entry`."""
        # Most entries already have the right metadata, and fstat is cheaper than setting it.
        status = os.fstat(descriptor)
        mode = status.st_mode & 0o7777
        if self._is_root and (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
            try:
                os.fchown(descriptor, entry.uid, entry.gid)
            except OSError as error:
                self._refuse_owner(error)
            mode = -1  # chown may clear bits
        if mode != entry.mode:
            os.fchmod(descriptor, entry.mode)
        if entry.xattrs:
            self._set_xattrs(descriptor, entry.xattrs)

    def redescribe_directory(self, descriptor: int, entry: Entry) -> None:
        """Set the metadata of an existing directory, which may become opaque."""
        for name in list_xattrs(descriptor):
            kept = name in entry.xattrs or name in self._opaque_names
            if name.startswith("user.") and not kept:
                os.removexattr(descriptor, name)
        self.describe(descriptor, entry)
        if entry.opaque:
            self.make_opaque(descriptor)

    def make_opaque(self, descriptor: int) -> None:
        """Set overlayfs's attributes of opaque directories: for root's mounts, and for a user's.

        The kernel reads one of them, by the mount option `userxattr`.
        """
        is_marked = False
        for name in self._opaque_names:
            try:
                os.setxattr(descriptor, name, b"y")
            except OSError as error:
                if error.errno not in NO_XATTR:
                    raise
            else:
                is_marked = True
        if not is_marked:
            self.refused["opaque"] += 1

    def link(self, parent: int, name: str, source: int, source_name: str) -> bool:
        """Make a hard link; False if there are too many, or the file system has no hard links."""
        try:
            os.link(source_name, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            self.refused[f"hard link ({errno.errorcode[error.errno]})"] += 1
            return False
        return True

    def copy(self, parent: int, name: str, source: int, source_name: str) -> None:
        """Copy a file, symlink or FIFO of the directory `source`, with all its metadata."""
        status = os.stat(source_name, dir_fd=source, follow_symlinks=False)
        kind = _COPIED.get(stat.S_IFMT(status.st_mode))
        if kind is None:  # the layer's tree was changed after it was published
            raise OSError(errno.EISDIR, "cannot be copied: it is a directory or a socket", name)
        entry = Entry(
            name,
            kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            device=(os.major(status.st_rdev), os.minor(status.st_rdev)),
            target=os.readlink(source_name, dir_fd=source) if kind is EntryType.SYMLINK else "",
        )
        if kind is not EntryType.FILE:
            self.other(parent, name, entry)
            return
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(source_name, flags, dir_fd=source), "rb", buffering=0) as file:
            self.file(parent, name, entry, read_content(file.fileno()))
            xattrs = {key: os.getxattr(file.fileno(), key) for key in list_xattrs(file.fileno())}
        if xattrs:
            with os.fdopen(os.open(name, flags, dir_fd=parent), "rb") as made:
                self._set_xattrs(made.fileno(), xattrs)

    def _set_xattrs(self, descriptor: int, xattrs: Mapping[str, bytes]) -> None:
        for key, value in xattrs.items():
            try:
                os.setxattr(descriptor, key, value)
            except OSError as error:
                if error.errno not in NO_XATTR:
                    raise
                kind = f"xattr:{key}"
                if kind not in self.refused and len(self.refused) >= _MOST_KINDS:
                    kind = "xattr:(others)"  # an archive may have any number of names
                self.refused[kind] += 1

    def _refuse_owner(self, error: OSError) -> None:
        """Count an owner that does not exist in this user namespace; raise other errors."""
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise error
        self.refused["owner"] += 1


def set_time(descriptor: int, mtime_ns: int) -> None:
    """Set the times of an open file or directory, as far as the kernel can store them."""
    time = storable_time(mtime_ns)
    os.utime(descriptor, ns=(time, time))


def storable_time(mtime_ns: int) -> int:
    """Return `mtime_ns`, limited to a range that every kernel accepts (and limits to its own)."""
    if -_LATEST_NS <= mtime_ns <= _LATEST_NS:
        return mtime_ns
    return _LATEST_NS if mtime_ns > 0 else -_LATEST_NS
