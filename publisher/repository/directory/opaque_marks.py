"""Mark opaque directories for root's mounts, which a worker process cannot do."""

from __future__ import annotations

import os
from pathlib import Path

from publisher.layers.index import LayerIndex
from publisher.layers.opaque import OPAQUE_XATTRS
from publisher.repository.descriptors import Directories
from publisher.repository.directory.nodes import NO_XATTR


def mark_for_root(tree: Path, index: LayerIndex) -> None:
    """Set overlayfs's attribute for root's mounts on the opaque directories of an unpacked layer.

    The worker process that unpacked it lacks the capability CAP_SYS_ADMIN for it, and may be
    compromised: no link is followed.

    Raises:
        LayerError: The index is damaged.
        OSError: A directory in the index is not one of the tree.
    """
    with Directories(tree) as directories:
        for entry in index.opaque_directories():
            descriptor = directories.open(entry.path)
            try:
                os.setxattr(descriptor, OPAQUE_XATTRS[0], b"y")
            except OSError as error:
                if error.errno not in NO_XATTR:
                    raise
