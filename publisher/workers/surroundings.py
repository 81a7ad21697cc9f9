"""What all worker processes may use, and where their temporary files are."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

ADDRESS_SPACE = 2 * 2**30
"""The most memory of a worker, in bytes. A zstd window takes 128 MiB of it, and SQLite 16 MiB."""

OPEN_FILES = 2048


def use_for_temporary_files(directory: Path) -> None:
    """Create `directory`, and let Python and SQLite put temporary files there."""
    directory.mkdir(mode=0o700)
    tempfile.tempdir = str(directory)
    # SQLite reads the environment only when it is loaded, which the fork server has done.
    with closing(sqlite3.connect(":memory:")) as database:
        quoted = str(directory).replace("'", "''")
        database.execute(f"PRAGMA temp_store_directory = '{quoted}'")
