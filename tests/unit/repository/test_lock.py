"""The writer lock between real processes: it names its holder, and ends with its process."""

from __future__ import annotations

import errno
import fcntl
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from publisher.repository import RepositoryBusy, RepositoryError
from publisher.repository.directory import journal
from publisher.repository.directory.repository import DirectoryRepository
from publisher.repository.lock import WriterLock
from publisher.tree.history import Record
from publisher.tree.layout import RepositoryURL
from tests.processes import wait_until
from tests.threads import threads_in

_HOLDER = """
import sys
from pathlib import Path
from publisher.repository.lock import WriterLock

with WriterLock(Path(sys.argv[1]), 10).hold("collection of 3 images"):
    if len(sys.argv) > 2:
        import subprocess
        subprocess.Popen(["sleep", "30"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    directory = tmp_path / "srv" / ".metadata" / ".publisher"
    directory.mkdir(parents=True)
    return directory


@contextmanager
def holder(state: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until it is killed or receives a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(state), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_refused_writer_gets_the_holder_its_start_and_its_purpose(state: Path) -> None:
    with holder(state) as process:
        with pytest.raises(RepositoryBusy) as caught, WriterLock(state, 0).hold("test"):
            pytest.fail("two writers at once")
        message = str(caught.value)
        assert f"process {process.pid} on {os.uname().nodename}" in message
        assert "collection of 3 images" in message
        assert str(state.parent.parent) in caught.value.what
        assert "--wait" in caught.value.hint
        assert message.startswith(f"{caught.value.what}: {caught.value.holder}; waited")
        assert time.strftime("since %Y-%m-%dT", time.gmtime()) in message


def test_a_writer_that_waited_in_vain_reports_how_long(state: Path) -> None:
    with holder(state):
        with pytest.raises(RepositoryBusy) as caught, WriterLock(state, 0.6).hold("test"):
            pytest.fail("two writers at once")
    assert re.search(r"; waited [1-9][0-9]* s$", caught.value.why)


def test_a_waiting_writer_reports_it_once_and_continues_after_the_release(state: Path) -> None:
    reports: list[str] = []
    with holder(state) as process:
        assert process.stdin is not None
        lines = process.stdin

        def release(report: str) -> None:
            reports.append(report)
            lines.write("\n")
            lines.flush()

        with WriterLock(state, 30, release).hold("test"):
            assert process.wait(10) == 0
    assert len(reports) == 1
    assert f"process {process.pid}" in reports[0]


def test_a_writer_that_is_to_stop_waits_no_longer_and_never_begins_to(state: Path) -> None:
    stop = threading.Event()
    with holder(state) as process:
        for _ in range(2):
            lock = WriterLock(state, 10**6, lambda _: stop.set(), stop)
            with pytest.raises(RepositoryBusy, match=str(process.pid)), lock.hold("test"):
                pytest.fail("two writers at once")
    with WriterLock(state, 0, None, stop).hold("test") as held:  # it is free
        assert held


def test_a_writer_that_need_not_wait_reports_nothing(state: Path) -> None:
    said: list[str] = []
    with WriterLock(state, 30, said.append).hold("test"):
        pass
    assert said == []


def test_a_lock_ends_with_its_process_even_by_sigkill(state: Path) -> None:
    with holder(state) as process:
        process.kill()
        process.wait()
        with WriterLock(state, 5).hold("test"):
            pass


def test_a_lock_is_not_kept_by_a_child_of_an_ended_process(state: Path) -> None:
    with holder(state, "with a child") as process:
        process.kill()
        process.wait()
        with WriterLock(state, 5).hold("test"):
            pass


def test_an_exception_frees_the_lock(state: Path) -> None:
    lock = WriterLock(state, 0)
    with pytest.raises(ZeroDivisionError), lock.hold("test"):
        _ = 1 // 0
    with lock.hold("test"), pytest.raises(RepositoryBusy), WriterLock(state, 0).hold("other"):
        pytest.fail("two writers at once")


def test_a_holder_that_cannot_be_recorded_frees_the_lock(state: Path) -> None:
    (state / "holder.json").mkdir()
    with pytest.raises(OSError, match=r"holder\.json"), WriterLock(state, 0).hold("test"):
        pytest.fail("the lock is held without a record of its holder")
    (state / "holder.json").rmdir()
    with WriterLock(state, 0).hold("test"):
        pass


WRONG_TYPES = '{"pid": [1], "host": 2, "since": {}, "purpose": null}'


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '"x"', "\0", '{"pid": 1', WRONG_TYPES])
def test_an_unreadable_holder_is_reported_as_another_process(state: Path, text: str) -> None:
    with holder(state):
        (state / "holder.json").write_text(text)
        with pytest.raises(RepositoryBusy, match="another process"), WriterLock(state, 0).hold("x"):
            pytest.fail("two writers at once")


def test_other_users_cannot_read_or_take_the_lock(state: Path) -> None:
    before = os.umask(0)
    try:
        with WriterLock(state, 0).hold("test"):
            for name in ("lock", "holder.json"):
                assert (state / name).stat().st_mode & 0o777 == 0o600
            assert json.loads((state / "holder.json").read_bytes())["pid"] == os.getpid()
    finally:
        os.umask(before)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_refused(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(RepositoryError, match="does not support file locks"):
        DirectoryRepository(
            RepositoryURL("dir", str(tmp_path / "images")), writable=True, may_be_new=True
        )
    assert not list(tmp_path.glob("images/.metadata/.publisher/sessions/*/*"))


def test_threads_of_one_process_take_turns(state: Path) -> None:
    """Each holds the lock until all others that are left wait for it."""
    lock = WriterLock(state, 60)
    finished: list[int] = []

    def work(number: int) -> None:
        with lock.hold(f"thread {number}"):
            wait_until(lambda: threads_in(inspect.unwrap(WriterLock.hold)) == 3 - len(finished))
            finished.append(number)

    with ThreadPoolExecutor(4) as pool:
        for turn in [pool.submit(work, number) for number in range(4)]:
            turn.result()
    assert sorted(finished) == [0, 1, 2, 3]


_COUNTER = """
import sys
from pathlib import Path
from publisher.repository.lock import WriterLock

counter = Path(sys.argv[2])
for _ in range(30):
    with WriterLock(Path(sys.argv[1]), 60).hold("counting"):
        number = int(counter.read_text())
        counter.write_text(str(number + 1))
"""


def test_processes_take_turns(state: Path, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [
        subprocess.Popen([sys.executable, "-c", _COUNTER, str(state), str(counter)])
        for _ in range(4)
    ]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert counter.read_text() == "120"


def test_a_journal_that_a_writer_executes_is_not_unfinished(state: Path) -> None:
    repository = DirectoryRepository(RepositoryURL("dir", str(state.parents[1])))
    record = Record("1", "2026-11-20T08:15:00Z", "me", "here", 1, "test", (), {})
    journal.write(state / "journal.json", (), record)
    assert repository.unfinished(), "no process ever held the lock"
    with holder(state):
        assert not repository.unfinished()
    assert repository.unfinished()
    with WriterLock(state, 0).hold("next"):
        pass  # looking does not hold the lock
