"""Temporary SQLite databases: what holds the state of a layer outside of memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from publisher.layers.errors import LayerError, NoTemporarySpace

_SETTINGS = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -16384;
"""
"""16 MiB of cache. Nothing survives a crash, and nothing has to."""


def temporary_database(schema: str, file: Path | None = None) -> sqlite3.Connection:
    """Return a database with `schema`, inside a transaction; what is not committed is lost.

    Without a `file` it lies in memory, and beyond the size of its cache in an unnamed file where
    SQLite has its temporary files. May be used from several threads, one after the other.
    """
    database = sqlite3.connect(
        file or "", isolation_level=None, cached_statements=32, check_same_thread=False
    )
    database.executescript(f"{_SETTINGS}{schema}BEGIN;")
    return database


@contextmanager
def temporary_databases(what: str) -> Iterator[None]:
    """Raise LayerError, beginning with `what`, if a temporary database cannot be used.

    It is NoTemporarySpace where the layer is sound.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise NoTemporarySpace(
            what,
            why=f"the list of its entries cannot be stored: {error}",
            hint="free space where temporary files are: SQLITE_TMPDIR or TMPDIR, else /var/tmp",
        ) from error
    except sqlite3.DatabaseError as error:
        raise LayerError(what, why=f"the list of its entries is damaged: {error}") from error
