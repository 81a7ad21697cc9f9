from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from publisher.state import Cause, News, RunRecord, Tries
from publisher.state.database import state_file
from publisher.state.store import State, open_state
from tests.components import require_mounts

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
URL = "dir:/srv/images"
LIST = "/etc/lists/\udcff.yaml"  # names of files need not be UTF-8


def new(name: str = "quay.io/a:1", wish_list: str = LIST) -> Tries:
    return Tries(wish_list, name, name, NOW, "astro", 7, 5, "f")


def run(number: int = 0) -> RunRecord:
    at = NOW + timedelta(minutes=number)
    return RunRecord(at, at, "ingest", (LIST,), 1, {"failed": 1}, 12, {"fetching": 0.5}, "")


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def opened(tmp_path: Path, notes: list[str]) -> Callable[..., State]:
    def open_it(*, writable: bool = True, url: str = URL) -> State:
        return open_state(tmp_path / "state", url, writable=writable, note=notes.append)

    return open_it


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return state_file(tmp_path / "state", URL)


def test_what_is_recorded_is_found_again(
    opened: Callable[..., State], path: Path, notes: list[str]
) -> None:
    before = os.umask(0o077)
    try:
        with opened() as state:
            failed = state.record_failure(new(), NOW, Cause.REFUSED, "a\n b", NOW)
            assert state.wish(LIST, "quay.io/a:1") == failed
            state.record_success(new("quay.io/b:1"), NOW, "sha256:1")
            state.record_tried(LIST, "f", NOW)
            state.add_run(run())
            assert state.runs() == [run()]
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    for writable in (False, True):
        with opened(writable=writable) as state:
            found, other = state.wishes()
            assert found == failed == state.wish(LIST, "quay.io/a:1")
            assert (found.owner, found.line, found.column) == ("astro", 7, 5)
            assert (found.cause, found.error, found.tries) == ("refused", "a b", 1)
            assert (found.failing_since, found.last_success, found.next_try) == (NOW, None, NOW)
            assert (other.last_success, other.digest, other.is_failing) == (NOW, "sha256:1", False)
            assert state.runs() == [run()]
            assert state.has_tried(LIST, "f") and not state.has_tried(LIST, "g")
            assert state.wish("", "quay.io/a:1") is None
    assert notes == []


def test_a_state_of_the_first_version_is_read_and_converted(
    opened: Callable[..., State], path: Path, notes: list[str]
) -> None:
    with opened() as state:
        known = state.record_success(new(), NOW, "sha256:1")
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE wishes DROP COLUMN behind_since")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    before = path.read_bytes()
    with opened(writable=False) as state:
        assert state.wishes() == [known]
    assert path.read_bytes() == before
    with opened() as state:
        behind = state.record_success(known, NOW, "sha256:2", is_behind=True)
    with opened(writable=False) as state:
        assert state.wishes() == [behind]
        assert behind.behind_since == NOW
    assert notes == []


def test_repositories_have_states_of_their_own(
    opened: Callable[..., State], tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "link").symlink_to("tree")
    with opened(url=f"dir:{tmp_path}/tree") as state:
        state.record_success(new(), NOW)
    assert state_file(tmp_path, f"{tmp_path}/link/") == state_file(tmp_path, f"dir:{tmp_path}/tree")
    with opened(url=f"{tmp_path}/link/", writable=False) as state:
        assert state.wishes()
    with opened(url="cvmfs:images.example.org") as state:
        assert not state.wishes()
        assert "images-example-org" in state.path.name


def test_a_failure_is_news_at_first_with_another_cause_and_after_each_week() -> None:
    def failed(tries: Tries, day: int, cause: Cause = Cause.REFUSED) -> Tries:
        return tries.failed(NOW + timedelta(days=day), cause, "error", None)

    tries = failed(new(), 0)
    assert tries.news(NOW) is News.STARTED
    tries = failed(tries.reported(NOW), 1)
    assert tries.news(NOW + timedelta(days=1)) is None
    assert failed(tries, 2, Cause.UNREACHABLE).news(NOW) is News.CHANGED
    for week in (1, 2):
        at = NOW + timedelta(days=7 * week)
        assert tries.news(at - timedelta(seconds=1)) is None
        assert tries.news(at) is News.LASTING
        tries = failed(tries.reported(at), 7 * week)
        assert tries.news(at) is None
    assert (tries.failing_since, tries.tries) == (NOW, 4)
    well = tries.succeeded(NOW, "sha256:2")
    assert well.news(NOW) is None and well.succeeded(NOW, "").digest == "sha256:2"
    assert failed(well, 30).news(NOW) is News.STARTED


def test_what_is_no_longer_requested_or_worked_on_is_forgotten(
    opened: Callable[..., State],
) -> None:
    with opened() as state:
        for name in ("a", "b"):
            state.record_success(new(name), NOW)
        state.record_success(new("a", "other"), NOW)
    with opened() as state:
        state.forget(LIST, ["a", "unknown"])
        assert [(t.wish_list, t.name) for t in state.wishes()] == [(LIST, "b"), ("other", "a")]
        state.record_success(new("b"), NOW + timedelta(days=20))
        for fingerprint in "efg":
            state.record_tried(LIST, fingerprint, NOW)
        state.flush()
        state.forget_tried(LIST, ["f"])
        assert not state.has_tried(LIST, "e")
        state.record_tried(LIST, "g", NOW)
        state.flush()
        assert [state.has_tried(LIST, each) for each in "efg"] == [False, True, True]
        state.add_run(run(31 * 24 * 60))
    with opened() as state:
        assert [(t.wish_list, t.name) for t in state.wishes()] == [(LIST, "b")]
        assert not state.has_tried(LIST, "f")


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage" * 5000)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def later_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def other_repository(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE repository SET url = 'dir:/other'")
    connection.close()


def without_a_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE runs")
    connection.close()


def other_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE wishes (a)")
    connection.close()


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        garbage,
        truncated,
        empty,
        later_version,
        other_repository,
        without_a_table,
        other_program,
        directory,
        fifo,
    ],
)
def test_an_unusable_state_begins_anew_with_a_note_and_the_former_one_is_kept(
    opened: Callable[..., State], path: Path, notes: list[str], damage: Callable[[Path], None]
) -> None:
    for _ in range(2):  # the second former state replaces the first one, or is left where it is
        with opened() as state:
            for number in range(200):
                state.record_success(new(f"image-{number}"), NOW)
        damage(path)
        path.with_name(f"{path.name}-journal").write_bytes(b"of the former one")
        with opened(writable=False) as state:
            assert state.wishes() == [] and state.runs() == []
        [note] = notes
        assert note.startswith(f"cannot read the state of dir:/srv/images in {path}: ")
        notes.clear()
        with opened() as state:
            assert state.wishes() == []
            state.record_success(new(), NOW)
        [note] = notes
        if damage is directory and "cannot keep" in note:
            break
        assert f"the state in {path} begins anew: " in note
        assert path.with_suffix(f".unusable{'-directory' * (damage is directory)}").exists()
        notes.clear()
        with opened() as state:
            assert len(state.wishes()) == 1
            state.forget(LIST, [tries.name for tries in state.wishes()])
        assert notes == []


def test_a_state_that_no_run_has_written_is_noted_by_readers(
    opened: Callable[..., State], path: Path, notes: list[str]
) -> None:
    with opened(writable=False) as state:
        assert (state.wishes(), state.runs(), state.wish("", "a")) == ([], [], None)
    assert notes == [
        f"cannot read the state of dir:/srv/images in {path}: no run has written it yet"
    ]
    assert not path.parent.exists()


def test_a_row_that_is_damaged_is_left_out(opened: Callable[..., State], path: Path) -> None:
    with opened() as state:
        state.record_success(new("a"), NOW)
        state.record_success(new("b"), NOW)
        state.add_run(run())
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE wishes SET first_seen = 'yesterday' WHERE name = 'a'")
        connection.execute("UPDATE runs SET run = '[]'")
    connection.close()
    with opened() as state:
        assert [tries.name for tries in state.wishes()] == ["b"]
        assert state.runs() == []


@pytest.mark.parametrize("there_before", [True, False])
def test_a_read_only_directory_is_noted_once_and_what_is_known_stays_in_memory(
    opened: Callable[..., State], path: Path, notes: list[str], there_before: bool
) -> None:
    require_mounts()
    if there_before:
        with opened() as state:
            state.record_failure(new("a"), NOW, Cause.REFUSED, "error", NOW)
    path.parent.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", "-o", "ro", path.parent, path.parent], check=True)
    try:
        with opened() as state:
            state.record_success(new("b"), NOW)
            state.flush()
            state.flush()
            assert [tries.name for tries in state.wishes()] == ["a"] * there_before + ["b"]
    finally:
        subprocess.run(["umount", path.parent], check=True)
    [note] = notes
    assert note.startswith("cannot keep the state of dir:/srv/images")


def test_a_full_disk_is_noted_once_and_nothing_is_lost_when_it_has_space_again(
    opened: Callable[..., State], path: Path, notes: list[str]
) -> None:
    require_mounts()
    path.parent.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path.parent], check=True)
    try:
        with opened() as state:
            state.record_success(new("before"), NOW)
            state.flush()
            full = path.parent / "full"
            with pytest.raises(OSError, match="space"):
                full.write_bytes(bytes(1 << 20))
            for number in range(300):
                state.record_failure(new(f"{number}"), NOW, Cause.OTHER, "x" * 100, NOW)
            state.flush()
            state.flush()
            assert len(state.wishes()) == 301
            with opened(writable=False) as other:
                assert [tries.name for tries in other.wishes()] == ["before"]
            full.unlink()
        with opened() as state:
            assert len(state.wishes()) == 301
    finally:
        subprocess.run(["umount", path.parent], check=True)
    [note] = notes
    assert note == f"cannot write the state in {path}: database or disk is full"


def test_two_runs_write_to_one_state(opened: Callable[..., State]) -> None:
    with opened() as one, opened() as other:
        one.record_success(new("a"), NOW)
        other.record_success(new("b"), NOW)
        other.flush()
        one.flush()
        assert [tries.name for tries in other.wishes()] == ["a", "b"]
        other.add_run(run(1))
        one.add_run(run(2))
    with opened() as state:
        assert state.runs() == [run(1), run(2)] or state.runs() == [run(2), run(1)]
