"""The database file of one repository: where it is, what is in it, how it is opened and replaced.

It is an SQLite file with a rollback journal, which every user of the machine can read.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from urllib.parse import quote

from publisher.state.model import Tries
from publisher.state.outbox import SCHEMA as OUTBOX_SCHEMA
from publisher.tree.layout import RepositoryURL

_APPLICATION = 0x70756273  # "pubs"
_VERSION = 2
_BUSY_SECONDS = 10.0

COLUMNS = tuple(each.name for each in fields(Tries))
INTEGERS = ("line", "column", "tries")
"""Those of COLUMNS that are numbers. All others are texts."""


def quoted(names: Iterable[str]) -> str:
    """Return the names of columns for a statement."""
    return ", ".join(f'"{name}"' for name in names)


_SCHEMA = f"""
CREATE TABLE repository (url TEXT NOT NULL);
CREATE TABLE wishes (
  {", ".join(f'"{n}" {"INTEGER" if n in INTEGERS else "TEXT"}' for n in COLUMNS)},
  PRIMARY KEY (wish_list, name)
);
CREATE TABLE tried (
  wish_list TEXT, fingerprint TEXT, at TEXT, PRIMARY KEY (wish_list, fingerprint)
);
CREATE TABLE runs (
  number INTEGER PRIMARY KEY, started TEXT, command TEXT, exit_code INTEGER, run TEXT
);
{OUTBOX_SCHEMA}
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""
# Names of files need not be UTF-8; sqlite3 refuses such texts, but not their bytes.
TEXT = "CAST(? AS TEXT)"


class _Unusable(Exception):
    """A database cannot be used as it is; the text is the cause."""


FAILURES = (OSError, sqlite3.Error, _Unusable)
"""What prevents that a database is opened."""


def state_file(directory: Path, url: str | RepositoryURL) -> Path:
    """Return the path of the database of the repository `url` in `directory`."""
    text = canonical_url(url)
    slug = re.sub(r"[^A-Za-z0-9]+", "-", text.partition(":")[2]).strip("-")[-40:].strip("-")
    return directory / f"wishes-{slug}-{hashlib.sha256(to_bytes(text)).hexdigest()[:12]}.sqlite"


def to_bytes(text: str) -> bytes:
    """Return a text as it is stored; names of files need not be UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def canonical_url(url: str | RepositoryURL) -> str:
    """Return the URL of a repository, the same for all paths of one directory."""
    found = url if isinstance(url, RepositoryURL) else RepositoryURL.parse(url)
    if found.kind != "dir":
        return str(found)
    return f"dir:{os.path.realpath(found.location)}"


def make_directory(directory: Path) -> None:
    """Create the directory of the state if it is missing; every user can read it."""
    if not directory.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)  # whatever the umask is


def open_writable(path: Path, url: str, note: Callable[[str], None]) -> sqlite3.Connection:
    """Open the database of the repository `url`, or create it; raise one of FAILURES.

    One that is damaged, of a later version, or of another repository is renamed, and `note`
    receives a sentence about that.
    """
    make_directory(path.parent)
    with _opening(path):
        try:
            return _checked(_connect(path, "rw"), url, upgrades=True)
        except FileNotFoundError:
            pass
        except (_Unusable, sqlite3.DatabaseError, IsADirectoryError) as error:
            if _is_temporary(error):
                raise
            aside, why = _put_aside(path), failure_cause(error)
            note(f"the state in {path} begins anew: {why} (the former file is {aside})")
        return _create(path, url)


def open_readable(path: Path, url: str) -> sqlite3.Connection:
    """Open the database of the repository `url`, also as another user; raise one of FAILURES."""
    try:
        return _checked(_connect(path, "ro"), url)
    except FileNotFoundError:
        raise _Unusable("no run has written it yet") from None


def open_empty() -> sqlite3.Connection:
    """Return a database in memory, which is empty."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    connection.executescript(_SCHEMA)
    return connection


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Let one process at a time decide whether the database is usable."""
    import filelock  # long to load, and readers do not need it

    lock = filelock.FileLock(path.with_suffix(".lock"), mode=0o644, fallback_to_soft=False)
    try:
        held = lock.acquire(timeout=_BUSY_SECONDS)
    except filelock.Timeout as error:
        raise _Unusable("another process is opening it") from error
    with held:
        yield


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    kind = path.stat().st_mode  # SQLite has one error for all that cannot be opened
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(f"{path} is a directory")
    if not stat.S_ISREG(kind):
        raise _Unusable("it is not a file")
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = _text
    return connection


def _checked(
    connection: sqlite3.Connection, url: str, *, upgrades: bool = False
) -> sqlite3.Connection:
    """Return `connection` if its database is that of `url`, and whole; else close it and raise.

    Args:
        connection: The database.
        url: The repository.
        upgrades: Whether a database of an earlier version is converted. Otherwise it is read as if
            it were, from a copy in memory.
    """
    try:
        if _is_of_version_1(connection):
            if not upgrades:
                connection = _copy(connection)
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute('ALTER TABLE wishes ADD COLUMN "behind_since" TEXT')
                connection.execute(f"PRAGMA user_version = {_VERSION}")
        _check(connection, url)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_of_version_1(connection: sqlite3.Connection) -> bool:
    [[application]] = connection.execute("PRAGMA application_id")
    [[version]] = connection.execute("PRAGMA user_version")
    return bool(application == _APPLICATION and version == 1)


def _copy(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Return a copy in memory, and close the connection."""
    copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    copy.text_factory = _text
    with closing(connection):
        connection.backup(copy)
    return copy


def _check(connection: sqlite3.Connection, url: str) -> None:
    [[application]] = connection.execute("PRAGMA application_id")
    [[version]] = connection.execute("PRAGMA user_version")
    if application != _APPLICATION:
        raise _Unusable("it is not such a database")
    if version != _VERSION:
        raise _Unusable(f"its version is {version}, and this program reads {_VERSION}")
    [[result]] = connection.execute("PRAGMA quick_check(1)")
    if result != "ok":
        raise _Unusable(f"it is damaged: {result}")
    connection.execute(f"SELECT {quoted(COLUMNS)} FROM wishes LIMIT 0")
    connection.execute("SELECT wish_list, fingerprint, at FROM tried LIMIT 0")
    connection.execute("SELECT number, started, command, exit_code, run FROM runs LIMIT 0")
    found = connection.execute("SELECT url FROM repository").fetchone()
    if found is None or found[0] != url:
        raise _Unusable(f"it is that of {found[0] if found else 'no repository'}")


def _create(path: Path, url: str) -> sqlite3.Connection:
    """Create the database under another name, so that no process ever sees a part of it."""
    draft = path.with_suffix(".draft")
    for each in (draft, _journal(draft), _journal(path)):
        each.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(descriptor, 0o644)  # whatever the umask is
    finally:
        os.close(descriptor)
    with closing(_connect(draft, "rw")) as connection:
        connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        connection.execute(f"INSERT INTO repository VALUES ({TEXT})", (to_bytes(url),))
    draft.replace(path)
    return _connect(path, "rw")


def _put_aside(path: Path) -> Path:
    """Rename what is at `path`, in place of what was renamed before; return its new path."""
    aside = path.with_suffix(".unusable-directory" if path.is_dir() else ".unusable")
    _journal(path).unlink(missing_ok=True)  # SQLite would apply it to the next database
    return path.replace(aside)


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


def _is_temporary(error: Exception) -> bool:
    """Return whether the database may be whole: it is locked, or the disk has a problem."""
    code = getattr(error, "sqlite_errorcode", None)
    damaged = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
    return isinstance(error, sqlite3.Error) and code is not None and code & 0xFF not in damaged


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def failure_cause(error: Exception) -> str:
    """Return why a database could not be opened, or used."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
