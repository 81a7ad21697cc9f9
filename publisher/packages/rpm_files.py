"""The files of rpm's databases: SQLite, and rpm's own format ndb. Both contain headers.

Berkeley DB, the format of rpm before 4.16, is not read.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, BinaryIO

from publisher.packages.model import MOST_PACKAGES, Package, UnreadableDatabase
from publisher.packages.rpm import KEY, read_header

_LARGEST_HEADER = 2**26
_MOST_STEPS = 200_000
"""Steps of 1,000 instructions of SQLite: more than the largest database needs."""
_WAL_VERSIONS = slice(18, 20)
_READABLE_TABLES = frozenset({"Packages", "sqlite_master"})

_PAGE = 4096
_NDB_HEADER = struct.Struct("<4sIIII")
_SLOT = struct.Struct("<4sIII")
_SLOTS_BEFORE = 2
_BLOCK = 16
_BLOB_HEAD = struct.Struct("<4sIII")


def read_sqlite(file: BinaryIO) -> Iterator[Package]:
    """Yield the packages of `rpmdb.sqlite`.

    The file is read into memory. SQLite executes nothing that the file defines: views, triggers,
    functions and virtual tables are refused, and the number of its instructions is limited.

    Raises:
        UnreadableDatabase: It is not such a database.
    """
    data = bytearray(file.read())
    size = len(data)
    if not data.startswith(b"SQLite format 3\0") or len(data) < 100:
        raise UnreadableDatabase("it is not a database of SQLite")
    # SQLite refuses a database in memory whose header names a write-ahead log.
    data[_WAL_VERSIONS] = b"\1\1"
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            yield from _packages(_sqlite_headers(database, data), size)
    except (sqlite3.Error, OverflowError) as error:
        raise UnreadableDatabase(f"SQLite cannot read it: {error}") from error


def _packages(headers: Iterable[bytes], size: int) -> Iterator[Package]:
    """Yield the packages of `headers`, which have no more bytes than the file, `size`.

    In a malicious file, many entries name the same large header.
    """
    for header in headers:
        size -= len(header)
        if size < 0:
            raise UnreadableDatabase("its headers have more bytes than the file")
        package = read_header(header)
        if package.name != KEY:
            yield package


def _sqlite_headers(database: sqlite3.Connection, data: bytearray) -> Iterator[bytes]:
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_HEADER)
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA cell_size_check = ON")
    database.deserialize(bytes(data))
    data.clear()
    steps = iter(range(_MOST_STEPS))
    database.set_progress_handler(lambda: next(steps, None) is None, 1000)
    # A generated column would compute its values, by functions that the file chooses.
    hidden = database.execute("SELECT 1 FROM pragma_table_xinfo('Packages') WHERE hidden")
    if hidden.fetchone():
        raise UnreadableDatabase("a column of the table Packages is computed")
    database.set_authorizer(_authorize)
    kinds = "SELECT type FROM sqlite_master WHERE name = 'Packages' AND rootpage > 0"
    if database.execute(kinds).fetchall() != [("table",)]:
        raise UnreadableDatabase("it has no table Packages")
    for (blob,) in database.execute("SELECT blob FROM Packages NOT INDEXED"):
        if not isinstance(blob, bytes):
            raise UnreadableDatabase("a header is not a blob")
        yield blob


def _authorize(action: int, first: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_SELECT:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_READ and first in _READABLE_TABLES:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def read_ndb(file: BinaryIO) -> Iterator[Package]:
    """Yield the packages of `Packages.db`.

    The file begins with pages of slots, of which the first two are the header. Each slot names a
    package and the blocks of its blob, which is the header of the package between a head and a
    tail. All numbers are little-endian. Source: rpm's `lib/backend/ndb/rpmpkg.c`.

    Raises:
        UnreadableDatabase: It is not such a database.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    yield from _packages(_ndb_headers(file), size)


def _ndb_headers(file: BinaryIO) -> Iterator[bytes]:
    magic, version, _, pages, _ = _unpack(_NDB_HEADER, file.read(_NDB_HEADER.size))
    if magic != b"RpmP" or version != 0:
        raise UnreadableDatabase("it is not a database of rpm in version 0 of the format ndb")
    slots = pages * _PAGE // _SLOT.size
    if slots > 4 * MOST_PACKAGES:
        raise UnreadableDatabase("it has too many slots")
    file.seek(0)
    table = file.read(slots * _SLOT.size)
    for number in range(_SLOTS_BEFORE, slots):
        part = table[number * _SLOT.size : (number + 1) * _SLOT.size]
        magic, index, offset, blocks = _unpack(_SLOT, part)
        if magic != b"Slot":
            raise UnreadableDatabase("a slot is damaged")
        if not index:
            continue
        yield _blob(file, index, offset * _BLOCK, blocks * _BLOCK)


def _blob(file: BinaryIO, index: int, offset: int, size: int) -> bytes:
    if size > _LARGEST_HEADER:
        raise UnreadableDatabase("a header is too large")
    file.seek(offset)
    magic, found, _, length = _unpack(_BLOB_HEAD, file.read(_BLOB_HEAD.size))
    if magic != b"BlbS" or found != index or length > size:
        raise UnreadableDatabase("a header is not in its place")
    return bytes(file.read(length))


def _unpack(form: struct.Struct, data: bytes) -> tuple[Any, ...]:
    try:
        return form.unpack(data)
    except struct.error as error:
        raise UnreadableDatabase("it is truncated") from error
