"""A cache of the packages of images, for searches over all images of a repository.

An image never changes, so its packages stay valid as long as its manifest does: they are stored by
the digest of the manifest. The cache is a file of the user, and can be deleted at any time.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from publisher.browse.cache_file import open_cache, open_tables
from publisher.closing import Closing
from publisher.packages.model import InstalledPackage, Package, PackageType

_VERSION = 1
_SCHEMA = """
CREATE TABLE image (id INTEGER PRIMARY KEY, manifest TEXT UNIQUE, skipped INTEGER);
CREATE TABLE package (
  id INTEGER PRIMARY KEY, type TEXT, name TEXT, version TEXT, architecture TEXT, source TEXT,
  build TEXT, channel TEXT, UNIQUE (type, name, version, architecture, source, build, channel)
);
CREATE TABLE path (id INTEGER PRIMARY KEY, path BLOB UNIQUE);
CREATE TABLE installed (
  package INTEGER, image INTEGER, path INTEGER, PRIMARY KEY (package, image, path)
) WITHOUT ROWID;
CREATE INDEX installed_image ON installed (image);
"""
_FIELDS = "type, name, version, architecture, source, build, channel"

_log = logging.getLogger(__name__)


class PackageCache(Closing):
    """The cache in `file`; in memory if that is None, or cannot be used.

    Args:
        file: The SQLite file, which is created; a damaged one, or one of another version, is
            replaced.
    """

    def __init__(self, file: Path | None) -> None:
        tables = (_SCHEMA, _VERSION, "SELECT 1 FROM image, path LIMIT 1")
        found = open_cache(file, *tables) if file is not None else None
        self._database = found or open_tables(":memory:", *tables)
        self._packages = self._stored_packages()

    def close(self) -> None:
        """Store what was added, and close the file."""
        try:
            with closing(self._database):
                self._database.commit()
        except sqlite3.Error as error:
            _log.debug("the cache of packages cannot be written: %s", error)

    def images(self) -> dict[str, tuple[int, int]]:
        """Return, by the digest of its manifest, each image's number and how much was skipped."""
        rows = self._database.execute("SELECT manifest, id, skipped FROM image")
        return {manifest: (number, skipped) for manifest, number, skipped in rows}

    def add(self, manifest: str, packages: Sequence[InstalledPackage], skipped: int) -> int:
        """Store the packages of an image, and how many databases were skipped; its number."""
        execute = self._database.execute
        image = execute(
            "INSERT INTO image (manifest, skipped) VALUES (?, ?) RETURNING id", (manifest, skipped)
        ).fetchone()[0]
        paths = {path: self._path(path) for path in {each.path for each in packages}}
        rows = [(self._package(each), image, paths[each.path]) for each in packages]
        self._database.executemany("INSERT OR IGNORE INTO installed VALUES (?, ?, ?)", rows)
        return int(image)

    def keep_only(self, manifests: Collection[str]) -> None:
        """Delete the images that are not published any more."""
        gone = [row for manifest, row in self.images().items() if manifest not in manifests]
        for image, _ in gone:
            self._database.execute("DELETE FROM installed WHERE image = ?", (image,))
            self._database.execute("DELETE FROM image WHERE id = ?", (image,))

    def packages(self) -> Iterator[tuple[int, PackageType, Package]]:
        """Yield all different packages with their numbers."""
        for (kind, package), number in self._packages.items():
            yield number, PackageType(kind), package

    def installed(self, number: int) -> Iterator[tuple[int, str]]:
        """Yield the number of each image with the package `number`, and its database."""
        rows = self._database.execute(
            "SELECT image, path.path FROM installed JOIN path ON path.id = installed.path"
            " WHERE package = ?",
            (number,),
        )
        for image, path in rows:
            yield image, os.fsdecode(path)

    def _stored_packages(self) -> dict[tuple[str, Package], int]:
        rows = self._database.execute(f"SELECT id, {_FIELDS} FROM package")
        return {
            (kind, Package(name, version, architecture, source, build, channel)): number
            for number, kind, name, version, architecture, source, build, channel in rows
        }

    def _package(self, each: InstalledPackage) -> int:
        key = (str(each.type), each.package)
        if key not in self._packages:
            package = each.package
            cursor = self._database.execute(
                f"INSERT INTO package ({_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(key[0], package.name, package.version, package.architecture),
                    *(package.source, package.build, package.channel),
                ),
            )
            self._packages[key] = cursor.lastrowid or 0
        return self._packages[key]

    def _path(self, path: str) -> int:
        encoded = os.fsencode(path)  # names of files need not be UTF-8
        found = self._database.execute("SELECT id FROM path WHERE path = ?", (encoded,)).fetchone()
        if found is None:
            cursor = self._database.execute("INSERT INTO path (path) VALUES (?)", (encoded,))
            return cursor.lastrowid or 0
        return int(found[0])
