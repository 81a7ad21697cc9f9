"""The attributes by which the trees of layers mark opaque directories for overlayfs."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publisher.layers.index import LayerIndex

OPAQUE_XATTRS = ("trusted.overlay.opaque", "user.overlay.opaque")
"""The attributes of opaque directories for overlayfs: for root's mounts, and with `userxattr`."""


def keeps_opaque(directory: Path) -> bool:
    """Return whether this user can mark opaque directories on the file system of `directory`."""
    for name in OPAQUE_XATTRS if os.geteuid() == 0 else OPAQUE_XATTRS[1:]:
        try:
            os.getxattr(directory, name)
        except OSError as error:
            if error.errno == errno.ENODATA:
                return True
            if error.errno not in (errno.ENOTSUP, errno.ENOSYS):
                raise
            continue
        return True
    return False


def marks_for_root() -> bool:
    """Return whether this process can set the marks for root's mounts, and see them.

    That takes CAP_SYS_ADMIN in the user namespace of the machine; see xattr(7).
    """
    descriptor = os.memfd_create("opaque", os.MFD_CLOEXEC)
    try:
        os.setxattr(descriptor, OPAQUE_XATTRS[0], b"y")
    except PermissionError:
        return False
    except OSError:
        return os.geteuid() == 0  # files in memory have no attributes on this machine
    finally:
        os.close(descriptor)
    return True


def is_marked_for_root(directory: str) -> bool:
    """Return whether a directory in a tree has the mark for root's mounts."""
    try:
        return OPAQUE_XATTRS[0] in os.listxattr(directory, follow_symlinks=False)
    except OSError:
        return False


def lacks_marks_for_root(tree: Path, index: LayerIndex) -> bool:
    """Return whether root's mounts of a layer show files that its opaque directories hide.

    This is so if a process without the capability CAP_SYS_ADMIN has unpacked the layer: it marks
    directories for mounts with `userxattr` alone. A tree without any mark has whiteouts instead.
    The caller needs that capability to see the other marks.

    Raises:
        LayerError: The index is damaged.
        OSError: The index or the tree cannot be read.
    """
    for_root, for_users = OPAQUE_XATTRS
    for entry in index.opaque_directories():
        try:
            names = os.listxattr(f"{tree}/{entry.path}", follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOSYS):
                raise
            return False
        if for_root in names or for_users in names:
            return for_root not in names
    return False
