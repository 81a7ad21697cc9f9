"""Read one package database, within limits; whatever is wrong with it becomes a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import BinaryIO

from publisher.entry import EntryType
from publisher.packages.metadata import (
    read_conda,
    read_npm,
    read_os_release,
    read_python,
    read_r,
)
from publisher.packages.model import (
    LONGEST_TEXT,
    MOST_CHARACTERS,
    MOST_DATABASES,
    MOST_PACKAGES,
    Database,
    LayerPackages,
    Package,
    UnreadableDatabase,
)
from publisher.packages.places import Format, Place
from publisher.packages.rpm_files import read_ndb, read_sqlite
from publisher.packages.stanzas import read_apk, read_dpkg

_READERS: Mapping[Format, Callable[[BinaryIO], Iterator[Package]]] = {
    Format.DPKG: read_dpkg,
    Format.APK: read_apk,
    Format.RPM_SQLITE: read_sqlite,
    Format.RPM_NDB: read_ndb,
    Format.PYTHON: read_python,
    Format.CONDA: read_conda,
    Format.R: read_r,
    Format.NPM: read_npm,
    Format.OS: read_os_release,
}
_NOT_READ = {
    Format.RPM_BERKELEY: "Berkeley DB, the format of rpm before 4.16, is not read",
    Format.RPM_WAL: "the write-ahead log of rpm's database is not read: packages may be missing",
}


def read_database(path: str, place: Place, size: int, file: BinaryIO) -> Database | None:
    """Return the packages in a database, and why it, or a part of it, is skipped.

    Args:
        path: Its path in the layer.
        place: What `place_of` returns for the path.
        size: The size of the file in bytes.
        file: Its content, up to `place.limit` bytes. It has to be seekable.

    Returns:
        The database; None if the file describes no package, and nothing of it is skipped.
    """
    if place.format in _NOT_READ:
        return Database(path, place.type, (), _NOT_READ[place.format]) if size else None
    if size > place.limit and not place.head:
        return Database(path, place.type, (), f"it has more than {place.limit} bytes")
    try:
        found = list(islice(_READERS[place.format](file), MOST_PACKAGES + 1))
    except (UnreadableDatabase, MemoryError) as error:
        why = str(error)[:LONGEST_TEXT] or "it needs too much memory"
        return Database(path, place.type, (), why)
    if len(found) > MOST_PACKAGES:
        return Database(path, place.type, (), f"it has more than {MOST_PACKAGES} packages")
    valid = sorted({package for package in found if package.is_valid()})
    invalid = sum(not package.is_valid() for package in found)
    if not valid and not invalid:
        return None
    why = f"{invalid} packages without a name and version, or with too long ones" if invalid else ""
    return Database(path, place.type, tuple(valid), why)


def combine(databases: Iterable[Database]) -> LayerPackages:
    """Return the databases of one layer, which are sorted by path.

    Those beyond the limits are left out, and not read: `databases` may read them.
    """
    kept: list[Database] = []
    count = characters = 0
    for database in databases:
        count += len(database.packages)
        characters += database.characters()
        if len(kept) >= MOST_DATABASES or count > MOST_PACKAGES or characters > MOST_CHARACTERS:
            why = f"it has more than {MOST_DATABASES} databases or {MOST_PACKAGES} packages"
            if characters > MOST_CHARACTERS:
                why = f"the texts of its packages have more than {MOST_CHARACTERS} characters"
            return LayerPackages(tuple(kept), why)
        kept.append(database)
    return LayerPackages(tuple(kept))


def not_a_file(path: str, place: Place, kind: EntryType) -> Database | None:
    """Return the database for an entry that is not a file, with the reason that it is skipped.

    A directory is no attempt at a database, and os-release is a symbolic link in most images.
    """
    if kind is EntryType.DIRECTORY or place.format is Format.OS:
        return None
    what = "a symbolic link" if kind is EntryType.SYMLINK else "not a file"
    return Database(path, place.type, (), f"it is {what}")
