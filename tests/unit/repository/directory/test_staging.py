"""Staging space: hidden from readers, kept until its process ends, deleted afterwards."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from publisher.repository.directory.staging import FINISHED_LAYER_LIFETIME, Staging
from publisher.repository.disk import remove_tree
from publisher.tree import layout
from tests.components import require_root, run

ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")

_WORKER = """
import sys
from pathlib import Path
from publisher.repository.directory.staging import Staging

staging = Staging(Path(sys.argv[1]))
path = staging.new_path()
path.mkdir()
(path / "half").write_text("an unfinished layer")
print(path, flush=True)
sys.stdin.readline()
staging.close()
"""


@contextmanager
def worker(root: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process with unfinished work, and its session's directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def sessions(root: Path) -> list[Path]:
    return sorted(p for p in (root / layout.STATE / "sessions").iterdir() if p.is_dir())


def test_other_users_cannot_read_the_staging_space_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        staging = Staging(tmp_path)
        assert staging.directory.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)
    assert staging.directory == tmp_path / ".metadata/.publisher"
    assert staging.directory.parent.stat().st_mode & 0o777 == 0o755


def test_the_staging_space_is_on_the_file_system_of_the_tree(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    paths = [staging.new_path(), staging.new_trash(), staging.finished_layer(ONE)]
    assert all(tmp_path in path.parents for path in paths)
    assert all(path.parent.stat().st_dev == tmp_path.stat().st_dev for path in paths)


def test_no_two_paths_are_the_same(tmp_path: Path) -> None:
    one, other = Staging(tmp_path), Staging(tmp_path)
    paths = [s.new_path() for s in (one, other) for _ in range(50)]
    paths += [s.new_trash() for s in (one, other) for _ in range(50)]
    assert len(set(paths)) == 200
    assert not any(path.exists() for path in paths)
    assert one.finished_layer(ONE) == other.finished_layer(ONE) != one.finished_layer(TWO)


def test_the_next_writer_deletes_the_session_of_a_killed_process(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    with worker(tmp_path) as (process, path):
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (path / "half").exists()
        staging.sweep()
        assert not path.parent.exists()
        assert len(sessions(tmp_path)) == 1
        assert len(list(path.parent.parent.iterdir())) == 2  # this process' session and its lock


def test_the_session_of_a_running_process_is_not_changed(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    with worker(tmp_path) as (process, path):
        for _ in range(3):
            staging.sweep()
        assert (path / "half").read_text() == "an unfinished layer"
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(20) == 0
    assert not path.parent.exists()


def test_one_process_may_have_several_sessions(tmp_path: Path) -> None:
    one, other = Staging(tmp_path), Staging(tmp_path)
    path = other.new_path()
    path.write_text("unfinished")
    one.sweep()
    assert path.exists()
    other.close()
    assert not path.exists()
    one.sweep()
    assert len(sessions(tmp_path)) == 1
    one.close()
    assert list((tmp_path / layout.STATE / "sessions").iterdir()) == []


def test_closing_deletes_unfinished_work_and_keeps_finished_layers(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    staging.new_path().mkdir()
    staging.finished_layer(ONE).mkdir()
    staging.close()
    assert sessions(tmp_path) == []
    assert Staging(tmp_path).finished_layer(ONE).is_dir()


def test_unfinished_work_is_deleted_at_once_unless_a_commit_has_sources_in_it(
    tmp_path: Path,
) -> None:
    """The commit of another image, which has a journal for a moment, must not keep the space."""
    staging = Staging(tmp_path)
    other, own = staging.new_path(), staging.new_path()
    for path in (other, own):
        path.mkdir()
    source = f"{layout.STATE}/sessions/{own.parent.name}/{own.name}/tree"
    journal = {"version": 1, "operations": [[source, "published", 0, False]]}
    staging.journal.write_text(json.dumps(journal))
    staging.discard(other)
    staging.discard(own)
    assert (other.exists(), own.exists()) == (False, True)
    staging.journal.write_text("damaged")
    staging.discard(own)
    assert own.exists(), "its sources are unknown"
    staging.journal.unlink()
    staging.discard(own)
    assert not own.exists()


def test_an_error_during_clean_up_does_not_replace_the_result_of_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    require_root()
    staging = Staging(tmp_path)
    stuck = staging.new_path()
    stuck.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", stuck)
    try:
        with caplog.at_level(logging.WARNING, logger="publisher"):
            staging.close()
        assert "cannot delete" in caplog.text
    finally:
        run("umount", stuck)
    other = Staging(tmp_path)
    other.sweep()
    other.empty_trash()
    assert not stuck.exists()


def test_a_finished_layer_waits_for_two_weeks_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = Staging(tmp_path)
    layer = staging.finished_layer(ONE)
    layer.mkdir()
    real_time = time.time
    for age, kept in (
        (-3600.0, True),
        (0.0, True),
        (FINISHED_LAYER_LIFETIME - 60, True),
        (FINISHED_LAYER_LIFETIME + 60, False),
    ):
        monkeypatch.setattr(time, "time", lambda age=age: real_time() + age)
        staging.sweep()
        assert layer.exists() == kept, age


def test_the_trash_is_emptied_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    staging = Staging(tmp_path)
    tree = staging.new_trash()
    tree.mkdir()
    (tree / "link").symlink_to(tmp_path)
    staging.new_trash().symlink_to(tmp_path / "victim")
    staging.empty_trash()
    assert list(tree.parent.iterdir()) == []
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_foreign_file_among_the_sessions_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    staging = Staging(tmp_path)
    (tmp_path / layout.STATE / "sessions/.nfs0001").write_text("")
    (staging.new_trash()).mkdir()
    with caplog.at_level(logging.WARNING, logger="publisher"):
        staging.sweep()
        staging.empty_trash()
    assert list((tmp_path / layout.STATE / "trash").iterdir()) == []
    assert caplog.records == []


_OPENER = """
import sys
from pathlib import Path
from publisher.repository.directory.staging import Staging

for _ in range(int(sys.argv[2])):
    staging = Staging(Path(sys.argv[1]))
    path = staging.new_path()
    path.mkdir()
    (path / "half").write_text("")
    assert (path / "half").exists()
    staging.close()
"""

_SWEEPER = """
import sys
from pathlib import Path
from publisher.repository.lock import WriterLock
from publisher.repository.directory.staging import Staging

staging = Staging(Path(sys.argv[1]))
lock = WriterLock(staging.directory, 60)
print("ready", flush=True)
while True:
    with lock.hold("sweeping"):
        staging.sweep()
"""


def test_a_new_session_is_never_taken_for_an_abandoned_one(tmp_path: Path) -> None:
    sweeper = subprocess.Popen(
        [sys.executable, "-c", _SWEEPER, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert sweeper.stdout is not None
    try:
        sweeper.stdout.readline()
        opener = subprocess.run(
            [sys.executable, "-c", _OPENER, str(tmp_path), "1000"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert opener.returncode == 0, opener.stderr
        assert sweeper.poll() is None
    finally:
        sweeper.kill()
        sweeper.wait()
        sweeper.stdout.close()


def test_two_processes_do_not_delete_one_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Staging(tmp_path), Staging(tmp_path)
    for _ in range(2):
        (one.new_trash() / "below").mkdir(parents=True)
    deleted: list[Path] = []

    def delete(path: Path) -> None:
        deleted.append(path)
        if len(deleted) == 1:
            other.empty_trash()
        remove_tree(path)

    monkeypatch.setattr("publisher.repository.directory.staging.remove_tree", delete)
    one.empty_trash()
    assert len(deleted) == len(set(deleted)) == 2
    assert not any(path.exists() for path in deleted)
    assert list((tmp_path / layout.STATE / "trash").iterdir()) == []


def test_a_tree_that_an_ended_process_was_deleting_is_not_taken_for_its_notes(
    tmp_path: Path,
) -> None:
    """A published file may have the name of a transaction's notes."""
    (tmp_path / "victim").mkdir()
    dead = Staging(tmp_path)
    for content in ("[]", '["victim"]'):
        deleting = dead.session / "deleting" / content.strip('[]"')
        deleting.mkdir(exist_ok=True)
        (deleting / "places.json").write_text(content)
    (dead.session / "deleting/file").write_text("")
    dead._alive.release()
    staging = Staging(tmp_path)
    staging.sweep()
    staging.empty_trash()
    assert (tmp_path / "victim").is_dir()
    assert sessions(tmp_path) == [staging.session]


@pytest.mark.parametrize("outside", ["../outside", "a/../../outside", "ABSOLUTE"])
def test_a_list_of_parents_that_leads_out_of_the_repository_removes_nothing(
    tmp_path: Path, outside: str
) -> None:
    root, victim, work = tmp_path / "root", tmp_path / "outside", tmp_path / "root" / "work"
    for made in (victim, work, root / "a"):
        made.mkdir(parents=True)
    listed = [str(victim) if outside == "ABSOLUTE" else outside]
    (work / "places.json").write_text(json.dumps(listed))
    Staging(root).remove_unused_parents(work)
    assert victim.is_dir()


@pytest.mark.parametrize(
    "data", [b"5", b"null", b'"a"', b"[1]", b'{"a":1}', b"[" * 100_000, b"\xff"]
)
def test_a_malformed_list_of_parents_is_ignored(tmp_path: Path, data: bytes) -> None:
    work = tmp_path / "root" / "work"
    (tmp_path / "root" / "a").mkdir(parents=True)
    work.mkdir()
    (work / "places.json").write_bytes(data)
    Staging(tmp_path / "root").remove_unused_parents(work)
    assert (tmp_path / "root" / "a").is_dir()
