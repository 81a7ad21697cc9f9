"""Writing a layer tree; nothing in an image can make it write outside the tree."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from publisher.closing import Closing
from publisher.entry import Content, Entry, EntryType
from publisher.layers.errors import TEMPORARY_SPACE, NoTemporarySpace
from publisher.repository.descriptors import DIRECTORY, Directories, remove_at
from publisher.repository.directory.hard_links import HardLinks
from publisher.repository.directory.nodes import NodeMaker, storable_time
from publisher.repository.disk import name_path

_TIMES_IN_MEMORY = 2**20


class TreeWriter(Closing):
    """Writes entries below the directory `root`, which is made if it is missing; a `TreeSink`.

    Whiteouts are overlayfs's own: a character device 0:0, and an extended attribute on opaque
    directories. Needs no privileges; without them all files belong to the user, and a device node
    is refused (DeviceRefused). Memory and open descriptors do not grow with the tree. After an
    OSError the tree has to be discarded. Close it, or use it as a context manager.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, exist_ok=True)
        self._directories = Directories(root)
        self._maker = NodeMaker()
        self._hard_links = HardLinks(self._maker)
        self._times = cast(IO[bytes], tempfile.SpooledTemporaryFile(_TIMES_IN_MEMORY))  # noqa: SIM115

    @property
    def refused(self) -> dict[str, int]:
        """How often the file system or the kernel did not store something, by its kind."""
        return dict(self._maker.refused)

    def add(self, entry: Entry, content: Content = ()) -> None:
        """Make `entry`, and replace what is at its path."""
        try:
            self._add(entry, content)
        except OSError as error:
            name_path(error, entry.path)
            raise

    def _add(self, entry: Entry, content: Content) -> None:
        if entry.type is EntryType.DIRECTORY:
            self._add_directory(entry)
            return
        above, _, name = entry.path.rpartition("/")
        parent = self._directories.open(above)
        try:
            self._make(parent, name, entry, content)
        except FileExistsError:
            # Created exclusively, so nothing was written, and no content was read.
            self._directories.forget(entry.path)
            remove_at(parent, name)
            self._make(parent, name, entry, content)

    def finish(self) -> None:
        """Set the times of directories, which every entry made in them has changed."""
        for path, mtime_ns in self._recorded_times():
            try:
                descriptor = self._directories.open(path)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it was replaced later
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))

    def close(self) -> None:
        """Close everything. May be called again."""
        self._directories.close()
        self._hard_links.close()
        with suppress(OSError):  # of what could not be written, which is not needed any more
            self._times.close()

    def _make(self, parent: int, name: str, entry: Entry, content: Content) -> None:
        if entry.type is EntryType.FILE:
            self._maker.file(parent, name, entry, content)
        elif entry.type is EntryType.HARDLINK:
            above, _, target = entry.target.rpartition("/")
            source = self._directories.open(above)
            self._hard_links.add(parent, name, source, target)
        else:
            self._maker.other(parent, name, entry)

    def _add_directory(self, entry: Entry) -> None:
        path = entry.path
        if not path:
            self._maker.redescribe_directory(self._directories.root, entry)
        else:
            above, _, name = path.rpartition("/")
            parent = self._directories.open(above)
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                self._replace_by_directory(parent, name, entry)
            else:
                descriptor = os.open(name, DIRECTORY, dir_fd=parent)
                self._directories.keep(path, descriptor)
                self._maker.describe(descriptor, entry)
                if entry.opaque:
                    self._maker.make_opaque(descriptor)
        self._record_time(b"%d %b\0" % (storable_time(entry.mtime_ns), os.fsencode(path)))

    def _record_time(self, record: bytes) -> None:
        try:
            self._times.write(record)
        except OSError as error:
            raise _no_space_for_times(error) from error

    def _replace_by_directory(self, parent: int, name: str, entry: Entry) -> None:
        try:
            descriptor = self._directories.open(entry.path)
        except NotADirectoryError:
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o700, dir_fd=parent)
            descriptor = self._directories.open(entry.path)
        self._maker.redescribe_directory(descriptor, entry)

    def _recorded_times(self) -> Iterator[tuple[str, int]]:
        try:
            self._times.seek(0)  # writes what is held
        except OSError as error:
            raise _no_space_for_times(error) from error
        rest = b""
        while data := self._times.read(65536):
            *records, rest = (rest + data).split(b"\0")
            for record in records:
                mtime_ns, _, path = record.partition(b" ")
                yield os.fsdecode(path), int(mtime_ns)


def _no_space_for_times(error: OSError) -> NoTemporarySpace:
    """Return the error for a temporary file, which is on another disk than the tree."""
    return NoTemporarySpace(
        "cannot unpack a layer",
        why=f"the times of its directories cannot be stored: {error.strerror}",
        hint=TEMPORARY_SPACE,
    )
