"""What is remembered about one repository, in its database.

Whatever is wrong with the database never affects a run: a note is written, and the run continues
with what it knows.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from publisher.closing import Closing
from publisher.codec import Codec, Malformed
from publisher.state.database import (
    COLUMNS,
    FAILURES,
    INTEGERS,
    TEXT,
    canonical_url,
    failure_cause,
    open_empty,
    open_readable,
    open_writable,
    quoted,
    state_file,
    to_bytes,
)
from publisher.state.model import Cause, RunRecord, Tries
from publisher.state.outbox import Outbox
from publisher.times import format_time
from publisher.tree.layout import RepositoryURL

_FLUSH_SECONDS = 3.0
_KEPT_RUNS = 5000  # a month of runs every ten minutes
_KEPT = timedelta(days=30)
"""How long an image is remembered that is not worked on any more, for example of another list."""

_TRIES = Codec(Tries, naming=str)
_RUN = Codec(RunRecord)
_INSERT_TRIES = (
    f"INSERT OR REPLACE INTO wishes ({quoted(COLUMNS)})"
    f" VALUES ({', '.join('?' if name in INTEGERS else TEXT for name in COLUMNS)})"
)


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
            return State(path, open_readable(path, text), note)
        except FAILURES as error:
            note(f"cannot read the state of {text} in {path}: {failure_cause(error)}")
            return State(path, open_empty(), note)
    try:
        return State(path, open_writable(path, text, note), note)
    except FAILURES as error:
        note(f"cannot keep the state of {text} in {path}: {failure_cause(error)}")
    with suppress(*FAILURES):
        return State(path, open_readable(path, text), note, is_noted=True)
    return State(path, open_empty(), note)


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
            where = f"WHERE wish_list = {TEXT} AND name = {TEXT}"
            return next(self._select(where, (to_bytes(wish_list), to_bytes(name))), None)

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
            query = f"SELECT 1 FROM tried WHERE wish_list = {TEXT} AND fingerprint = ?"
            return bool(self._read(query, (to_bytes(wish_list), fingerprint)))

    def runs(self) -> list[RunRecord]:
        """Return all runs that are remembered, the latest first."""
        with self._lock:
            return self._select_runs("")

    def last_runs(self) -> list[RunRecord]:
        """Return the last run of each command, the latest first."""
        with self._lock:
            found = self._select_runs(
                "WHERE number IN (SELECT max(number) FROM runs GROUP BY command)"
            )
        return list({run.command: run for run in reversed(found)}.values())[::-1]

    def record_success(
        self, tries: Tries, now: datetime, digest: str = "", *, is_behind: bool = False
    ) -> Tries:
        """Remember that an image is as it is to be; return what is then known.

        Args:
            tries: The image: what `wish` returned, or a new value, with the present place of the
                wish in its list.
            now: The moment.
            digest: What its reference names; "" if that was not looked up.
            is_behind: Whether that is another image than the published one, which a pin keeps.
        """
        return self._put(tries.succeeded(_second(now), digest, is_behind=is_behind))

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
            query = f"SELECT fingerprint FROM tried WHERE wish_list = {TEXT}"
            known = {fingerprint for (fingerprint,) in self._read(query, (to_bytes(wish_list),))}
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

    def flush(self, also: Callable[[], None] | None = None) -> None:
        """Write the changes; if that fails, note it once and keep them in memory.

        Args:
            also: Further changes of the same database, for example of the outbox. They are made
                in the same transaction: after a kill, all changes are in the database, or none.
        """
        with self._lock:
            self._flushed = time.monotonic()
            if also is None and not (self._changed or self._tried or self._runs):
                return
            try:
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    self._write()
                    if also is not None:
                        also()
            except sqlite3.Error as error:
                if not self._noted:
                    self._noted = True
                    self._note(f"cannot write the state in {self.path}: {failure_cause(error)}")
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
            f"DELETE FROM wishes WHERE wish_list = {TEXT} AND name = {TEXT}",
            [tuple(map(to_bytes, key)) for key in forgotten],
        )
        self._connection.executemany(
            _INSERT_TRIES, [_row(tries) for tries in self._changed.values() if tries is not None]
        )
        self._connection.executemany(
            f"INSERT OR REPLACE INTO tried VALUES ({TEXT}, ?, ?)",
            [(to_bytes(of), text, format_time(at)) for (of, text), at in self._tried.items() if at],
        )
        self._connection.executemany(
            f"DELETE FROM tried WHERE wish_list = {TEXT} AND fingerprint = ?",
            [(to_bytes(of), text) for (of, text), at in self._tried.items() if at is None],
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

    def _select_runs(self, where: str) -> list[RunRecord]:
        rows = self._read(f"SELECT run FROM runs {where} ORDER BY number DESC", ())
        found = [*reversed(self._runs)]
        for (text,) in rows:
            with suppress(Malformed):
                found.append(_RUN.parse(text))
        return found

    def _select(self, where: str, values: tuple[object, ...]) -> Iterator[Tries]:
        for row in self._read(f"SELECT {quoted(COLUMNS)} FROM wishes {where}", values):
            known = {
                name: value for name, value in zip(COLUMNS, row, strict=True) if value is not None
            }
            with suppress(Malformed):
                yield _TRIES.from_value(known)

    def _read(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            if not self._noted:
                self._noted = True
                self._note(f"cannot read the state in {self.path}: {failure_cause(error)}")
            return []


def _row(tries: Tries) -> tuple[object, ...]:
    value = _TRIES.to_value(tries)
    found = [value[name] for name in COLUMNS]
    return tuple(to_bytes(each) if isinstance(each, str) else each for each in found)


def _run_text(run: RunRecord) -> str:
    return json.dumps(_RUN.to_value(run))


def _second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
