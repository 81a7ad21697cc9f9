"""Read the package databases of a layer while it is unpacked, from the stream of its entries.

So the tree is not read again, and no path in it is followed; a backend that stores no tree at this
moment needs none.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, cast

from publisher.entry import Content, Entry, EntryType, Hole, TreeSink, sort_key
from publisher.layers.content import filled
from publisher.layers.unpack import LayerSummary
from publisher.packages.model import (
    MOST_CHARACTERS,
    MOST_DATABASES,
    MOST_PACKAGES,
    Database,
    LayerPackages,
)
from publisher.packages.places import Place, is_likely, place_of
from publisher.packages.reading import combine, not_a_file, read_database

_IN_MEMORY = 2**20


class PackageSink:
    """Passes all entries on to `sink`, and reads the package databases among them.

    A failure to keep or read a database never ends the unpacking.
    """

    def __init__(self, sink: TreeSink) -> None:
        self._sink = sink
        self._found: dict[str, Database | None] = {}
        # The names below each directory above a database, so that each is removed once.
        self._below: dict[str, set[str]] = {}
        self._packages = 0
        self._characters = 0
        self._complete = True

    def add(self, entry: Entry, content: Content = ()) -> None:
        """Pass on `entry`; read its content as well if it is a package database."""
        if self._found:
            self._forget(entry)
        place = place_of(entry.path, also_cached=True) if is_likely(entry.path) else None
        if place is None or not self._complete:
            self._sink.add(entry, content)
        elif entry.type is EntryType.FILE:
            self._add_file(entry, content, place)
        else:
            self._sink.add(entry, content)
            self._add_other(entry, place)

    def finish(self) -> None:
        """Complete the tree."""
        self._sink.finish()

    def packages(self, summary: LayerSummary) -> LayerPackages | None:
        """Return the databases of the unpacked layer.

        Args:
            summary: What `unpack` returned.

        Returns:
            The same as reading the layer's tree returns. None if that is not certain: databases may
            be links to files of lower layers, have other names, or exceed a limit; or the layer has
            no database.
        """
        found = [each for path, each in self._found.items() if each and place_of(path)]
        if not self._complete or summary.unresolved or not found:
            return None
        combined = combine(sorted(found, key=lambda database: sort_key(database.path)))
        return combined if not combined.skipped else None

    def _add_file(self, entry: Entry, content: Content, place: Place) -> None:
        copy = _Copy(place, entry.size)
        if isinstance(content, tuple):
            self._sink.add(entry, content)
            for _ in copy.watch(content):
                pass
        else:
            watched = copy.watch(content)
            self._sink.add(entry, watched)
            for _ in watched:  # the part that the sink did not read
                pass
        if copy.file is None:
            self._complete = False
            return
        with copy.file:
            self._keep(entry.path, read_database(entry.path, place, entry.size, copy.file))

    def _add_other(self, entry: Entry, place: Place) -> None:
        if entry.type is EntryType.WHITEOUT:
            return
        if entry.type is not EntryType.HARDLINK:
            self._keep(entry.path, not_a_file(entry.path, place, entry.type))
        elif entry.target in self._found and _has_format(entry.target, place):
            linked = self._found[entry.target]
            self._keep(entry.path, linked and replace(linked, path=entry.path))
        else:
            self._complete = False

    def _keep(self, path: str, database: Database | None) -> None:
        self._found[path] = database
        if database is not None:
            self._packages += len(database.packages)
            self._characters += database.characters()
        if (
            len(self._found) > MOST_DATABASES
            or self._packages > MOST_PACKAGES
            or self._characters > MOST_CHARACTERS
        ):
            self._complete = False
            self._found.clear()
            self._below.clear()
            return
        while above := path.rpartition("/")[0]:
            known = self._below.setdefault(above, set())
            is_known = bool(known)
            known.add(path)
            if is_known:
                return
            path = above

    def _forget(self, entry: Entry) -> None:
        """Remove what `entry` replaces."""
        self._found.pop(entry.path, None)
        if entry.type is not EntryType.DIRECTORY:
            below = list(self._below.pop(entry.path, ()))
            while below:
                path = below.pop()
                self._found.pop(path, None)
                below += self._below.pop(path, ())


def _has_format(path: str, place: Place) -> bool:
    """Return whether the database at `path` was read as one at `place` is."""
    other = place_of(path, also_cached=True)
    return other is not None and other.format is place.format


class _Copy:
    """A copy of the content of one database, as much of it as is read.

    `file` is None if it cannot be stored.
    """

    def __init__(self, place: Place, size: int) -> None:
        self.file: BinaryIO | None = _new_file(min(size, place.limit))
        self._left = place.limit if place.head or size <= place.limit else 0

    def watch(self, content: Content) -> Iterator[bytes | memoryview | Hole]:
        """Yield `content` unchanged; afterwards the copy is complete."""
        for piece in content:
            if self._left and self.file is not None:
                self._write(piece)
            yield piece
        if self.file is not None:
            self.file.seek(0)

    def _write(self, piece: bytes | memoryview | Hole) -> None:
        assert self.file is not None
        if isinstance(piece, Hole):
            piece = Hole(min(piece.size, self._left))
        try:
            for part in filled([piece]):
                self._left -= self.file.write(part[: self._left])
        except OSError:
            self.file.close()
            self.file = None


def _new_file(size: int) -> BinaryIO | None:
    if size <= _IN_MEMORY:
        return io.BytesIO()
    try:
        return cast(BinaryIO, tempfile.TemporaryFile())
    except OSError:
        return None
