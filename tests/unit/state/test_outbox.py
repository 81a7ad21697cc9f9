"""Undelivered notifications: order, limits, claims of other processes, and faults of the disk."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from publisher.state import Cause, Tries
from publisher.state.outbox import KEPT_BYTES, KEPT_MESSAGES, KEPT_SECONDS, SCHEMA, Outbox
from publisher.state.store import open_state

URL = "dir:/srv/images"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_outbox(tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Outbox]]:
    """Outboxes of several processes, with one database."""
    path = tmp_path / "state.sqlite"
    opened = []

    def connect() -> Outbox:
        connection = sqlite3.connect(path, isolation_level=None)
        opened.append(connection)
        if len(opened) == 1:
            connection.executescript(SCHEMA)
        return Outbox(connection, threading.RLock(), pytest.fail, clock)

    yield connect
    for connection in opened:
        connection.close()


def test_messages_are_kept_in_order_until_they_are_removed(tmp_path: Path) -> None:
    with open_state(tmp_path, URL, writable=True) as state:
        for name in ("one", "two", "three"):
            state.outbox().add("r", name, f"text of {name}", 0)
        state.outbox().add("other", "one", "\\udcff", 0)
    with open_state(tmp_path, URL, writable=True) as state:
        assert (state.outbox().count(), state.outbox().count("r")) == (4, 3)
        texts = [("one", "text of one"), ("two", "text of two"), ("three", "text of three")]
        assert state.outbox().claim("r", 60) == texts
        state.outbox().remove("r", "two")
        assert state.outbox().count() == 3


def test_a_claimed_message_is_not_sent_by_another_process(
    open_outbox: Callable[[], Outbox], clock: Clock
) -> None:
    one, other = open_outbox(), open_outbox()
    one.add("r", "mine", "x", 60)
    assert other.claim("r", 60) == []
    one.release("r", "mine")
    assert other.claim("r", 60) == [("mine", "x")]
    assert one.claim("r", 60) == []
    clock.now += 61  # that process was killed
    assert one.claim("r", 60) == [("mine", "x")]
    clock.now -= 5000  # the clock was set back: a claim in the far future does not count
    assert other.claim("r", 60) == [("mine", "x")]


def test_the_number_and_the_age_of_messages_are_limited(
    open_outbox: Callable[[], Outbox], clock: Clock
) -> None:
    outbox = open_outbox()
    outbox.add("other", "old", "x", 0)
    for number in range(KEPT_MESSAGES + 5):
        outbox.add("r", str(number), "x", 0)
    clock.now += 1
    kept = [identity for identity, _ in outbox.claim("r", 0)]
    assert kept == [str(number) for number in range(5, KEPT_MESSAGES + 5)]
    for number in (1, 2, 3):
        outbox.add("large", str(number), "x" * (KEPT_BYTES // 2), 0)
    clock.now += 1
    assert [identity for identity, _ in outbox.claim("large", 0)] == ["2", "3"]
    clock.now += KEPT_SECONDS
    assert outbox.claim("other", 0) == []
    assert outbox.count() == 0


def test_what_receivers_know_is_remembered(open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    for what in ("a", "b", ""):
        outbox.learn("verify", what)
        assert open_outbox().known("verify") == what
    assert outbox.known("prune") == ""


def test_messages_and_the_failures_that_they_report_are_stored_in_one_transaction(
    tmp_path: Path,
) -> None:
    now = datetime.now(UTC)

    def store() -> None:
        state.record_reported("/l.yaml", "image", now)
        state.outbox().learn("ingest", "known")
        state.outbox().add("r", "one", "x", 0)

    def fail() -> None:
        store()
        raise sqlite3.OperationalError("the disk is full")

    notes: list[str] = []
    with open_state(tmp_path, "dir:/images", writable=True, note=notes.append) as state:
        tries = Tries("/l.yaml", "image", "image", first_seen=now)
        state.record_failure(tries, now, Cause.OTHER, "no")
        for write, count in ((fail, 0), (store, 1)):
            state.flush(write)
            with open_state(tmp_path, "dir:/images", writable=False) as stored:
                assert len(stored.wishes()) == count
                assert stored.outbox().count() == count
                assert stored.outbox().known("ingest") == ("known" if count else "")
    assert len(notes) == 1 and "cannot write the state" in notes[0]


def test_a_database_that_cannot_be_used_is_noted_and_raises_nothing(tmp_path: Path) -> None:
    notes: list[str] = []
    connection = sqlite3.connect(tmp_path / "empty.sqlite", isolation_level=None)
    outbox = Outbox(connection, threading.RLock(), notes.append)
    outbox.add("r", "one", "x", 0)
    assert outbox.claim("r", 0) == [] and outbox.count() == 0
    outbox.learn("verify", "a")
    assert outbox.known("verify") == ""
    outbox.remove("r", "one")
    outbox.release("r", "one")
    [note] = notes
    assert "cannot keep a notification: no such table" in note
    connection.close()
