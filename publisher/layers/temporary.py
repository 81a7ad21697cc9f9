"""Temporary SQLite databases for the state of a layer, outside of memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from publisher.layers.errors import TEMPORARY_SPACE, LayerError, NoTemporarySpace

_SETTINGS = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -16384;
"""
"""A cache of 16 MiB. The database need not survive a crash."""


def temporary_database(schema: str, file: Path | None = None) -> sqlite3.Connection:
    """Return a database with `schema`, inside a transaction that the caller may commit.

    Without a `file` it is in memory, and beyond the size of its cache in an unnamed temporary file
    of SQLite. Several threads may use it, one after the other.
    """
    database = sqlite3.connect(
        file or "", isolation_level=None, cached_statements=32, check_same_thread=False
    )
    database.executescript(f"{_SETTINGS}{schema}BEGIN;")
    return database


@contextmanager
def temporary_databases(what: str) -> Iterator[None]:
    """Raise LayerError, beginning with `what`, if a temporary database cannot be used.

    The error is NoTemporarySpace if the layer itself is valid.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise NoTemporarySpace(
            what,
            why=f"the list of its entries cannot be stored: {error}",
            hint=TEMPORARY_SPACE,
        ) from error
    except sqlite3.DatabaseError as error:
        raise LayerError(what, why=f"the list of its entries is damaged: {error}") from error
