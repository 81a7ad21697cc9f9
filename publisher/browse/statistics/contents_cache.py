"""A cache of what the entries of layers and images show, for later runs of `stats --contents`.

Layers and images do not change, so that each is counted once. The cache is a file of the user, and
can be deleted at any time.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from collections.abc import Collection, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from publisher.browse.cache_file import open_cache
from publisher.browse.statistics.distinct import Digests, from_bytes, to_bytes
from publisher.browse.statistics.flat_size import FlatSize
from publisher.closing import Closing
from publisher.lazy import dataclass

_VERSION = 1
_FASTEST = 1
_SCHEMA = """
CREATE TABLE layer (
  key TEXT PRIMARY KEY, files INTEGER, bytes INTEGER, catalogs TEXT, digests BLOB, sizes BLOB
);
CREATE TABLE image (key TEXT PRIMARY KEY, entries INTEGER, bytes INTEGER, catalogs TEXT);
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LayerContents:
    """What the entries of a layer show.

    Attributes:
        files: The number of names of files.
        size: The bytes of these files, one for each hard-linked file.
        digests: The distinct contents of these files.
        catalogs: The entries of each catalog of CVMFS that is planned for the layer, by directory.
    """

    files: int
    size: int
    digests: Digests
    catalogs: Mapping[str, int]


class ContentsCache(Closing):
    """The cache in `file`; none if that is None, or cannot be used.

    Args:
        file: The SQLite file, which is created; a damaged one, or one of another version, is
            replaced.
    """

    def __init__(self, file: Path | None) -> None:
        self._database = (
            None if file is None else open_cache(file, _SCHEMA, _VERSION, "SELECT 1 FROM image")
        )

    def close(self) -> None:
        """Store what was added, and close the file."""
        if self._database is None:
            return
        try:
            with closing(self._database):
                self._database.commit()
        except sqlite3.Error as error:
            _log.debug("the cache of contents cannot be written: %s", error)
        self._database = None

    def layer(self, key: str) -> LayerContents | None:
        """Return what was counted of a layer; None if it was not."""
        row = self._row("SELECT files, bytes, catalogs, digests, sizes FROM layer", key)
        if row is None:
            return None
        try:
            files, size, catalogs, digests, sizes = row
            found = Digests(from_bytes(digests), from_bytes(zlib.decompress(sizes)))
            if len(found.keys) == len(found.sizes):
                return LayerContents(int(files), int(size), found, _catalogs(catalogs))
        except (ValueError, TypeError, zlib.error) as error:
            _log.debug("the cache of contents is damaged: %s", error)
        return None

    def image(self, key: str) -> FlatSize | None:
        """Return what was counted of an image; None if it was not."""
        row = self._row("SELECT entries, bytes, catalogs FROM image", key)
        if row is None:
            return None
        try:
            return FlatSize(int(row[0]), int(row[1]), _catalogs(row[2]))
        except (ValueError, TypeError) as error:
            _log.debug("the cache of contents is damaged: %s", error)
        return None

    def add_layer(self, key: str, found: LayerContents) -> None:
        """Keep what was counted of a layer."""
        sizes = zlib.compress(to_bytes(found.digests.sizes), _FASTEST)
        catalogs = json.dumps(dict(found.catalogs))
        values = (found.files, found.size, catalogs, to_bytes(found.digests.keys), sizes)
        self._write("INSERT OR REPLACE INTO layer VALUES (?, ?, ?, ?, ?, ?)", (key, *values))

    def add_image(self, key: str, found: FlatSize) -> None:
        """Keep what was counted of an image."""
        values = (found.entries, found.size, json.dumps(dict(found.catalogs)))
        self._write("INSERT OR REPLACE INTO image VALUES (?, ?, ?, ?)", (key, *values))

    def keep_only(self, layers: Collection[str], images: Collection[str]) -> None:
        """Delete everything else."""
        if self._database is None:
            return
        try:
            for table, keys in (("layer", layers), ("image", images)):
                known = [key for (key,) in self._database.execute(f"SELECT key FROM {table}")]
                gone = [(key,) for key in known if key not in keys]
                self._database.executemany(f"DELETE FROM {table} WHERE key = ?", gone)
        except sqlite3.Error as error:
            self._stop_using(error)

    def _row(self, query: str, key: str) -> tuple[Any, ...] | None:
        if self._database is None:
            return None
        try:
            found = self._database.execute(f"{query} WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._stop_using(error)
            return None
        return None if found is None else tuple(found)

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        if self._database is None:
            return
        try:
            self._database.execute(statement, values)
        except sqlite3.Error as error:
            self._stop_using(error)

    def _stop_using(self, error: sqlite3.Error) -> None:
        """Continue without the cache."""
        _log.debug("the cache of contents is not used: %s", error)
        database, self._database = self._database, None
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()


def _catalogs(text: object) -> dict[str, int]:
    value = json.loads(str(text))
    if not isinstance(value, dict):
        raise TypeError("the catalogs are not an object")
    return {path: int(count) for path, count in value.items()}
