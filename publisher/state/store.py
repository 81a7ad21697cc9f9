"""The database with what is remembered about one repository.

It is one SQLite file with a rollback journal, which every user of the machine can read. Whatever
is wrong with it never affects a run: a note is written, and the run continues with what it knows.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock

from publisher.closing import Closing
from publisher.codec import Codec, Malformed
from publisher.state.model import Cause, RunRecord, Tries
from publisher.state.outbox import SCHEMA as OUTBOX_SCHEMA
from publisher.state.outbox import Outbox
from publisher.times import format_time
from publisher.tree.layout import RepositoryURL

_APPLICATION = 0x70756273  # "pubs"
_VERSION = 1
_BUSY_SECONDS = 10.0
_FLUSH_SECONDS = 3.0
_KEPT_RUNS = 5000  # a month of runs every ten minutes
_KEPT = timedelta(days=30)
"""How long an image is remembered that is not worked on any more, for example of another list."""

_TRIES = Codec(Tries, naming=str)
_RUN = Codec(RunRecord)
_COLUMNS = tuple(each.name for each in fields(Tries))
_INTEGERS = ("line", "column", "tries")


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


_SCHEMA = f"""
CREATE TABLE repository (url TEXT NOT NULL);
CREATE TABLE wishes (
  {", ".join(f'"{n}" {"INTEGER" if n in _INTEGERS else "TEXT"}' for n in _COLUMNS)},
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
_TEXT = "CAST(? AS TEXT)"
_INSERT_TRIES = (
    f"INSERT OR REPLACE INTO wishes ({_quoted(_COLUMNS)})"
    f" VALUES ({', '.join('?' if name in _INTEGERS else _TEXT for name in _COLUMNS)})"
)


class _Unusable(Exception):
    """A database cannot be used as it is; the text is the cause."""


_FAILURES = (OSError, sqlite3.Error, _Unusable, filelock.Timeout)


def state_file(directory: Path, url: str | RepositoryURL) -> Path:
    """Return the path of the database of the repository `url` in `directory`."""
    text = canonical_url(url)
    slug = re.sub(r"[^A-Za-z0-9]+", "-", text.partition(":")[2]).strip("-")[-40:].strip("-")
    return directory / f"wishes-{slug}-{hashlib.sha256(_bytes(text)).hexdigest()[:12]}.sqlite"


def open_state(
    directory: Path,
    url: str | RepositoryURL,
    *,
    writable: bool,
    note: Callable[[str], None] = lambda text: None,
) -> State:
    """Open what is remembered about the repository `url`.

    It never fails. A database that is damaged, of a later version, or of another repository is
    kept beside a new one if `writable`, and otherwise appears to be empty. So does one that cannot
    be opened.

    Args:
        directory: The directory of the databases; it is created if `writable`.
        url: The repository.
        writable: Whether the state is to be changed. Otherwise it may be that of another user.
        note: Receives a sentence about each problem.
    """
    path = state_file(directory, url)
    text = canonical_url(url)
    if not writable:
        try:
            return State(path, _open_readable(path, text), note)
        except _FAILURES as error:
            note(f"cannot read the state of {text} in {path}: {_why(error)}")
            return State(path, _empty(), note)
    try:
        return State(path, _open_writable(path, text, note), note)
    except _FAILURES as error:
        note(f"cannot keep the state of {text} in {path}: {_why(error)}")
    with suppress(*_FAILURES):
        return State(path, _open_readable(path, text), note, is_noted=True)
    return State(path, _empty(), note)


class State(Closing):
    """What is remembered about the wishes and runs of one repository. Safe between threads.

    Changes are buffered, and written every few seconds and at the end. If that fails, a note is
    written once, and the state is kept in memory until it succeeds.

    Attributes:
        path: The database.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        note: Callable[[str], None],
        *,
        is_noted: bool = False,
    ) -> None:
        self.path = path
        self._connection = connection
        self._note = note
        self._noted = is_noted
        self._lock = threading.RLock()
        self._changed: dict[tuple[str, str], Tries | None] = {}
        self._tried: dict[tuple[str, str], datetime | None] = {}
        self._runs: list[RunRecord] = []
        self._used: set[tuple[str, str]] = set()
        self._flushed = time.monotonic()

    def wishes(self) -> list[Tries]:
        """Return what is known of every image, ordered by list and name."""
        with self._lock:
            found = {(t.wish_list, t.name): t for t in self._select("", ())}
            for key, tries in self._changed.items():
                found.pop(key, None)
                if tries is not None:
                    found[key] = tries
        return [found[key] for key in sorted(found)]

    def wish(self, wish_list: str, name: str) -> Tries | None:
        """Return what is known of one image of a list, or None."""
        key = wish_list, name
        with self._lock:
            self._used.add(key)
            if key in self._changed:
                return self._changed[key]
            where = f"WHERE wish_list = {_TEXT} AND name = {_TEXT}"
            return next(self._select(where, (_bytes(wish_list), _bytes(name))), None)

    def unused(self, wish_list: str) -> list[Tries]:
        """Return what is known of the images of a list that were not looked up since opening."""
        with self._lock:
            used = set(self._used)
        return [
            each
            for each in self.wishes()
            if each.wish_list == wish_list and (each.wish_list, each.name) not in used
        ]

    def has_tried(self, wish_list: str, fingerprint: str) -> bool:
        """Return whether all images of the wish with this fingerprint were tried."""
        with self._lock:
            if (wish_list, fingerprint) in self._tried:
                return self._tried[wish_list, fingerprint] is not None
            query = f"SELECT 1 FROM tried WHERE wish_list = {_TEXT} AND fingerprint = ?"
            return bool(self._read(query, (_bytes(wish_list), fingerprint)))

    def runs(self, limit: int = 100) -> list[RunRecord]:
        """Return the last runs, the latest first."""
        with self._lock:
            rows = self._read("SELECT run FROM runs ORDER BY number DESC LIMIT ?", (limit,))
            written = []
            for (text,) in rows:
                with suppress(Malformed):
                    written.append(_RUN.parse(text))
            return [*reversed(self._runs), *written][:limit]

    def record_success(self, tries: Tries, now: datetime, digest: str = "") -> Tries:
        """Remember that an image is current; return what is then known.

        Args:
            tries: The image: what `wish` returned, or a new value, with the present place of the
                wish in its list.
            now: The moment.
            digest: What its reference names; "" if that was not looked up.
        """
        return self._put(tries.succeeded(_second(now), digest))

    def record_failure(
        self,
        tries: Tries,
        now: datetime,
        cause: Cause,
        error: str,
        next_try: datetime | None = None,
    ) -> Tries:
        """Remember that an image failed; return what is then known. See `record_success`."""
        next_try = None if next_try is None else _second(next_try)
        return self._put(tries.failed(_second(now), cause, error, next_try))

    def record_tried(self, wish_list: str, fingerprint: str, now: datetime) -> None:
        """Remember that all images of a wish were tried."""
        with self._lock:
            self._tried[wish_list, fingerprint] = _second(now)

    def forget_tried(self, wish_list: str, kept: Collection[str]) -> None:
        """Forget that wishes of a list were tried, except those with the fingerprints `kept`."""
        with self._lock:
            query = f"SELECT fingerprint FROM tried WHERE wish_list = {_TEXT}"
            known = {fingerprint for (fingerprint,) in self._read(query, (_bytes(wish_list),))}
            known |= {fingerprint for of, fingerprint in self._tried if of == wish_list}
            for fingerprint in known.difference(kept):
                self._tried[wish_list, fingerprint] = None

    def record_reported(self, wish_list: str, name: str, now: datetime) -> None:
        """Remember that the present failure of an image was reported."""
        with self._lock:
            tries = self.wish(wish_list, name)
            if tries is not None and tries.is_failing:
                self._put(tries.reported(_second(now)))

    def forget(self, wish_list: str, names: Iterable[str]) -> None:
        """Forget images of a list, for example since it does not request them any more."""
        with self._lock:
            for name in names:
                if self.wish(wish_list, name) is not None:
                    self._changed[wish_list, name] = None

    def add_run(self, run: RunRecord) -> None:
        """Remember a run, and forget what has not been worked on for a month."""
        with self._lock:
            for tries in self.wishes():
                last = max(filter(None, (tries.first_seen, tries.last_success, tries.last_failure)))
                if run.ended - last > _KEPT:
                    self._changed[tries.wish_list, tries.name] = None
            self._runs.append(run)

    def outbox(self) -> Outbox:
        """Return the notifications that are not delivered yet."""
        return Outbox(self._connection, self._lock, self._note)

    def flush_if_due(self) -> None:
        """Write the changes if the last time was some seconds ago."""
        with self._lock:
            if time.monotonic() - self._flushed >= _FLUSH_SECONDS:
                self.flush()

    def flush(self) -> None:
        """Write the changes; if that fails, note it once and keep them in memory."""
        with self._lock:
            self._flushed = time.monotonic()
            if not (self._changed or self._tried or self._runs):
                return
            try:
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    self._write()
            except sqlite3.Error as error:
                if not self._noted:
                    self._noted = True
                    self._note(f"cannot write the state in {self.path}: {_why(error)}")
            else:
                self._changed.clear()
                self._tried.clear()
                self._runs.clear()

    def close(self) -> None:
        """Write the changes, and close the database."""
        with self._lock:
            self.flush()
            with suppress(sqlite3.Error):
                self._connection.close()

    def _put(self, tries: Tries) -> Tries:
        with self._lock:
            self._changed[tries.wish_list, tries.name] = tries
        return tries

    def _write(self) -> None:
        forgotten = [key for key, tries in self._changed.items() if tries is None]
        self._connection.executemany(
            f"DELETE FROM wishes WHERE wish_list = {_TEXT} AND name = {_TEXT}",
            [tuple(map(_bytes, key)) for key in forgotten],
        )
        self._connection.executemany(
            _INSERT_TRIES, [_row(tries) for tries in self._changed.values() if tries is not None]
        )
        self._connection.executemany(
            f"INSERT OR REPLACE INTO tried VALUES ({_TEXT}, ?, ?)",
            [(_bytes(of), text, format_time(at)) for (of, text), at in self._tried.items() if at],
        )
        self._connection.executemany(
            f"DELETE FROM tried WHERE wish_list = {_TEXT} AND fingerprint = ?",
            [(_bytes(of), text) for (of, text), at in self._tried.items() if at is None],
        )
        for run in self._runs:
            self._connection.execute(
                "INSERT INTO runs (started, command, exit_code, run) VALUES (?, ?, ?, ?)",
                (format_time(run.started), run.command, run.exit_code, _run_text(run)),
            )
        if self._runs:
            month = format_time(self._runs[-1].ended - _KEPT)
            self._connection.execute("DELETE FROM tried WHERE at < ?", (month,))
            self._connection.execute(
                "DELETE FROM runs WHERE number <= (SELECT max(number) FROM runs) - ?", (_KEPT_RUNS,)
            )

    def _select(self, where: str, values: tuple[object, ...]) -> Iterator[Tries]:
        for row in self._read(f"SELECT {_quoted(_COLUMNS)} FROM wishes {where}", values):
            known = {
                name: value for name, value in zip(_COLUMNS, row, strict=True) if value is not None
            }
            with suppress(Malformed):
                yield _TRIES.from_value(known)

    def _read(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            if not self._noted:
                self._noted = True
                self._note(f"cannot read the state in {self.path}: {_why(error)}")
            return []


def _row(tries: Tries) -> tuple[object, ...]:
    value = _TRIES.to_value(tries)
    found = [value[name] for name in _COLUMNS]
    return tuple(_bytes(each) if isinstance(each, str) else each for each in found)


def _run_text(run: RunRecord) -> str:
    return json.dumps(_RUN.to_value(run))


def _second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def _bytes(text: str) -> bytes:
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


# Opening ------------------------------------------------------------------------------------------


def _open_writable(path: Path, url: str, note: Callable[[str], None]) -> sqlite3.Connection:
    make_directory(path.parent)
    with _opening(path):
        try:
            return _checked(_connect(path, "rw"), url)
        except FileNotFoundError:
            pass
        except (_Unusable, sqlite3.DatabaseError, IsADirectoryError) as error:
            if _is_temporary(error):
                raise
            aside = _put_aside(path)
            note(f"the state in {path} begins anew: {_why(error)} (the former file is {aside})")
        return _create(path, url)


def _open_readable(path: Path, url: str) -> sqlite3.Connection:
    try:
        return _checked(_connect(path, "ro"), url)
    except FileNotFoundError:
        raise _Unusable("no run has written it yet") from None


def _empty() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    connection.executescript(_SCHEMA)
    return connection


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Let one process at a time decide whether the database is usable."""
    lock = filelock.FileLock(path.with_suffix(".lock"), mode=0o644, fallback_to_soft=False)
    with lock.acquire(timeout=_BUSY_SECONDS):
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


def _checked(connection: sqlite3.Connection, url: str) -> sqlite3.Connection:
    """Return `connection` if its database is that of `url`, and whole; else close it and raise."""
    try:
        _check(connection, url)
    except BaseException:
        connection.close()
        raise
    return connection


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
    connection.execute(f"SELECT {_quoted(_COLUMNS)} FROM wishes LIMIT 0")
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
        connection.execute(f"INSERT INTO repository VALUES ({_TEXT})", (_bytes(url),))
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


def _why(error: Exception) -> str:
    if isinstance(error, filelock.Timeout):
        return "another process is opening it"
    return (isinstance(error, OSError) and error.strerror) or str(error)
