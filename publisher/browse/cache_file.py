"""SQLite files in the user's cache, which can be deleted at any time."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import suppress
from pathlib import Path

_BUSY_SECONDS = 5.0

_log = logging.getLogger(__name__)


def open_cache(file: Path, schema: str, version: int, probe: str) -> sqlite3.Connection | None:
    """Open a cache inside a transaction, so that no other process changes it meanwhile.

    Args:
        file: The file, which is created; a damaged one, or one of another version, is replaced.
        schema: The statements that create the tables.
        version: The version of the tables.
        probe: A query that fails if the tables are missing.

    Returns:
        The database; None if it cannot be used.
    """
    for _ in range(2):
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return open_tables(str(file), schema, version, probe)
        except sqlite3.OperationalError as error:  # locked, or not writable
            _log.debug("the cache %s cannot be used: %s", file, error)
            return None
        except (OSError, sqlite3.Error) as error:
            _log.debug("the cache %s is replaced: %s", file, error)
            with suppress(OSError):
                file.unlink()
    return None


def open_tables(name: str, schema: str, version: int, probe: str) -> sqlite3.Connection:
    """Open the database `name`, as `open_cache` does; raise sqlite3.Error if it is damaged."""
    database = sqlite3.connect(name, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN IMMEDIATE")
        found = database.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            for statement in schema.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {version}")
        elif found != version:
            raise sqlite3.DatabaseError(f"its version is {found}")
        database.execute(probe)
    except BaseException:
        database.close()
        raise
    return database
