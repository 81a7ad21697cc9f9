"""The directories of snapshots: `fs` with the files, and `work` for overlayfs.

`fs` of a snapshot that shows a layer of a published tree is a symlink to that layer. The kernel
follows it when it mounts, and its path is short: overlayfs accepts few characters, and an image has
many layers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from publisher.snapshotter.model import Kind, Snapshot

_NEW = "new"


class Directories:
    """The directories below `root`, each named by the number of its snapshot."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self, number: int) -> str:
        """Return the path of a snapshot's files."""
        return f"{self._root}/{number}/fs"

    def work(self, number: int) -> str:
        """Return the path of overlayfs' working directory for a snapshot."""
        return f"{self._root}/{number}/work"

    def make(self, number: int, kind: Kind, layer: str, owner: tuple[int, int] | None) -> None:
        """Make the directory of a new snapshot.

        Args:
            number: The number of the snapshot, which nothing else has. What a transaction that
                failed left of it is removed.
            kind: The kind of the snapshot.
            layer: The layer of a tree that it shows; "" for one with files of its own.
            owner: User and group of the root of its files; None for those of this process.
        """
        try:
            os.mkdir(f"{self._root}/{number}", 0o700)
        except FileExistsError:
            self.remove(number)
            os.mkdir(f"{self._root}/{number}", 0o700)
        files = self.files(number)
        if layer:
            os.symlink(layer, files)
            return
        os.mkdir(files)
        os.chmod(files, 0o755)  # whatever the umask is
        if owner is not None:
            os.chown(files, *owner)
        if kind is Kind.ACTIVE:
            os.mkdir(self.work(number), 0o711)

    def show(self, number: int, layer: str) -> None:
        """Let a snapshot's files be those of another place of its layer."""
        link = self._root / str(number) / _NEW
        link.unlink(missing_ok=True)
        link.symlink_to(layer)
        link.rename(self.files(number))

    def remove(self, number: int) -> None:
        """Remove the directory of a snapshot that does not exist any more."""
        _remove(self._root / str(number))

    def unknown(self, numbers: Collection[int]) -> list[Path]:
        """Return what is neither of these snapshots nor needed otherwise."""
        known = {str(number) for number in numbers}
        return [path for path in sorted(self._root.iterdir()) if path.name not in known]

    def restore(self, snapshot: Snapshot) -> bool:
        """Make what a power failure lost of a snapshot's directory; return whether it was lost."""
        files = Path(self.files(snapshot.id))
        if os.path.lexists(files):
            return False
        files.parent.mkdir(0o700, exist_ok=True)
        if snapshot.layer:
            files.symlink_to(snapshot.layer)
        else:
            files.mkdir(0o755)
        if snapshot.kind is Kind.ACTIVE:
            Path(self.work(snapshot.id)).mkdir(0o711, exist_ok=True)
        return True

    def usage(self, number: int) -> tuple[int, int]:
        """Return the bytes on disk, and the number of inodes, of a snapshot's own files."""
        blocks: dict[tuple[int, int], int] = {}
        for status in _walk(Path(self.files(number))):
            blocks[(status.st_dev, status.st_ino)] = status.st_blocks
        return 512 * sum(blocks.values()), len(blocks)


def remove_trees(paths: Collection[Path]) -> None:
    """Remove files and directories; what is missing is ignored."""
    for path in paths:
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        with suppress(FileNotFoundError):  # removed by another thread as well
            shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _walk(top: Path) -> Iterator[os.stat_result]:
    """Yield the status of everything in a tree whose files may vanish meanwhile."""
    waiting = [str(top)]
    yield top.stat()
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    yield status
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except FileNotFoundError:
            continue
