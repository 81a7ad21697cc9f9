"""Notifications that are not delivered yet, and what receivers know already.

Both are in the database of the state. Their number is limited: of a receiver that never answers,
the oldest messages are discarded.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KEPT_MESSAGES = 100
"""The most messages that are kept for one receiver."""

KEPT_BYTES = 8 * 2**20
"""The most bytes of the messages that are kept for one receiver."""

KEPT_SECONDS = 14 * 86400
"""How long a message is kept, for example for a receiver that is not configured any more."""

SCHEMA = """
CREATE TABLE outbox (
  number INTEGER PRIMARY KEY, receiver TEXT, identity TEXT, added REAL, claimed REAL, message TEXT
);
CREATE TABLE known (subject TEXT PRIMARY KEY, what TEXT);
"""


class Outbox:
    """The messages of one repository that are to be sent again. Safe between threads.

    A process that sends messages claims them for some seconds, so that no other one sends them as
    well. The first failure is noted; failures affect nothing else.

    Args:
        connection: The database.
        lock: Held while the database is used.
        note: Receives a sentence about each problem.
        clock: Returns the seconds since 1970.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        lock: threading.RLock,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._lock = lock
        self._note = note
        self._clock = clock
        self._noted = False

    def claim(self, receiver: str, seconds: float) -> list[tuple[str, str]]:
        """Claim the messages to a receiver that no other process has claimed.

        Returns:
            The identity and the text of each message, the oldest first.
        """
        now = self._clock()
        found: list[tuple[str, str]] = []
        with self._changing("read the undelivered notifications"):
            self._connection.execute("DELETE FROM outbox WHERE added < ?", (now - KEPT_SECONDS,))
            # A claim that ends later than any process waits was made while the clock was wrong.
            free = "receiver = ? AND NOT coalesce(claimed BETWEEN ? AND ?, 0)"
            values = (receiver, now, now + 3600)
            query = f"SELECT identity, message FROM outbox WHERE {free} ORDER BY number"
            found = list(self._connection.execute(query, values))
            claim = f"UPDATE outbox SET claimed = ? WHERE {free}"
            self._connection.execute(claim, (now + seconds, *values))
        return found

    def add(self, receiver: str, identity: str, text: str, seconds: float) -> None:
        """Keep a message, claimed for some seconds, in place of the oldest if there are many."""
        now = self._clock()
        with self._changing("keep a notification"):
            self._connection.execute(
                "INSERT INTO outbox (receiver, identity, added, claimed, message)"
                " VALUES (?, ?, ?, ?, ?)",
                (receiver, identity, now, now + seconds, text),
            )
            self._connection.execute(
                "DELETE FROM outbox WHERE receiver = ?1 AND number NOT IN"
                " (SELECT number FROM (SELECT number, sum(length(message))"
                " OVER (ORDER BY number DESC) AS size FROM outbox WHERE receiver = ?1)"
                " WHERE size <= ?2 ORDER BY number DESC LIMIT ?3)",
                (receiver, KEPT_BYTES, KEPT_MESSAGES),
            )

    def remove(self, receiver: str, identity: str) -> None:
        """Forget a message that was delivered."""
        with self._changing("forget a delivered notification"):
            query = "DELETE FROM outbox WHERE receiver = ? AND identity = ?"
            self._connection.execute(query, (receiver, identity))

    def release(self, receiver: str, identity: str) -> None:
        """End the claim of this process to a message that was not delivered."""
        with self._changing("release a notification"):
            query = "UPDATE outbox SET claimed = NULL WHERE receiver = ? AND identity = ?"
            self._connection.execute(query, (receiver, identity))

    def count(self, receiver: str | None = None) -> int:
        """Return how many messages are not delivered: to a receiver, or to all."""
        query = "SELECT count(*) FROM outbox WHERE ?1 IS NULL OR receiver = ?1"
        with self._lock:
            try:
                [[count]] = self._connection.execute(query, (receiver,))
            except sqlite3.Error:
                return 0
            return int(count)

    def known(self, subject: str) -> str:
        """Return what receivers know about a subject; "" if they know nothing."""
        with self._lock:
            try:
                query = "SELECT what FROM known WHERE subject = ?"
                found = self._connection.execute(query, (subject,)).fetchone()
            except sqlite3.Error:
                return ""  # then they are notified again
        return str(found[0]) if found else ""

    def learn(self, subject: str, what: str) -> None:
        """Remember what receivers know about a subject."""
        with self._changing("remember what was notified"):
            self._connection.execute("INSERT OR REPLACE INTO known VALUES (?, ?)", (subject, what))

    @contextmanager
    def _changing(self, what: str) -> Iterator[None]:
        """Make the changes of the block at once, or note why they cannot be made.

        They are part of the transaction of `State.flush`, if there is one: it notes that.
        """
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            try:
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    yield
            except sqlite3.Error as error:
                if not self._noted:
                    self._noted = True
                    self._note(f"cannot {what}: {error}")
