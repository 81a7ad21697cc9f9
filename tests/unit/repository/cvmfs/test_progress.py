"""A server command that makes no progress: it is described, and does not wait forever."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from publisher.cli.main import main
from publisher.ingest.report import Status
from publisher.ingest.run import ingest
from publisher.repository import RepositoryBusy
from publisher.repository.cvmfs import progress
from publisher.repository.cvmfs.configuration import load_configuration
from publisher.repository.cvmfs.progress import ServerStalled, Watch
from publisher.repository.cvmfs.repository import CvmfsRepository
from publisher.sources.open import Sources
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.components import require_mounts
from tests.cvmfs import Machine
from tests.layer_builder import file, image, layer, write_layout

NAME = "images.test.org"


@pytest.fixture
def impatient(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """A machine with a repository, and image oci:LAYOUT:1, where a minute takes little time."""
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.6)
    monkeypatch.setattr(progress, "LEAST_LIMIT_SECONDS", 1.8)
    machine.make(NAME)
    write_layout(image(layer(file("f", os.urandom(400_000)))), tmp_path / "layout", "1")
    return machine


@contextmanager
def hanging(machine: Machine, moment: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the server wait, at `moment`, for a remount that does not end within the block."""
    (machine.root / "standin-hang").touch()
    monkeypatch.setenv("CVMFS_STANDIN_HANG", moment)
    yield
    (machine.root / "standin-hang").unlink()


def publish(repository: CvmfsRepository, tmp_path: Path) -> list[Status]:
    wish = wish_for(f"oci:{tmp_path}/layout:1", name="tool")
    with Sources() as sources:
        report = ingest([Request(wish)], repository, sources)
    assert not report.failed, [outcome.error for outcome in report.failed]
    return [outcome.status for outcome in report.outcomes]


def test_a_remount_that_hangs_is_described_and_ended_and_the_next_run_aborts_it(
    impatient: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    with hanging(impatient, "applied", monkeypatch):
        repository = impatient.open(NAME, on_wait=shown.append)
        with pytest.raises(ServerStalled, match="cvmfs_server ingest made no progress") as caught:
            publish(repository, tmp_path)
        repository.close()
    assert "mount-rdonly" in caught.value.processes
    [description] = shown
    assert "cvmfs_server ingest has made no progress" in description
    assert " > process " in description and "mount-rdonly" in description

    with hanging(impatient, "abort", monkeypatch):
        with pytest.raises(ServerStalled, match="cvmfs_server abort made no progress"):
            impatient.open(NAME)
    assert b"in transaction" in impatient.server("list").stdout

    repository = impatient.open(NAME)
    # It was published before the remount.
    assert publish(repository, tmp_path) == [Status.UNCHANGED]
    assert b"in transaction" not in impatient.server("list").stdout
    assert not verify(repository, deep=True).findings
    repository.close()


def test_a_command_whose_server_hangs_ends_with_3(
    impatient: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = ("ingest-image", f"oci:{tmp_path}/layout:1", "--repository", f"cvmfs:{NAME}")
    monkeypatch.setattr("sys.argv", ["publisher", *words, "--wait", "0"])
    with hanging(impatient, "applied", monkeypatch):
        with pytest.raises(SystemExit) as caught:
            main()
    assert caught.value.code == 3
    printed = capfd.readouterr().err
    assert "has made no progress for" in printed and "was ended" in printed


def test_a_server_that_does_not_read_its_input_is_ended(impatient: Machine, tmp_path: Path) -> None:
    command = impatient.bin / "cvmfs_server"
    command.write_text("#!/bin/sh\nexec sleep 600\n")
    repository = impatient.open(NAME)
    with pytest.raises(ServerStalled, match="sleep 600"):
        publish(repository, tmp_path)
    repository.close()


def test_a_mount_namespace_that_has_the_old_mount_is_named(
    impatient: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_mounts()
    holder = subprocess.Popen(["unshare", "--mount", "sleep", "600"])
    try:
        deadline = time.monotonic() + 60
        while os.readlink(f"/proc/{holder.pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with hanging(impatient, "applied", monkeypatch):
            repository = impatient.open(NAME)
            with pytest.raises(ServerStalled) as caught:
                publish(repository, tmp_path)
            repository.close()
    finally:
        holder.kill()
        holder.wait()
    mount = impatient.mount(NAME)
    assert f"mount namespace of process {holder.pid} " in caught.value.why
    assert f"has {mount} mounted" in caught.value.why
    assert "end the processes that have the old mount" in caught.value.hint


def test_output_input_processor_time_and_transfers_are_progress(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, used = 0.0, [0, 0]
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(progress, "_usage", lambda group: tuple(used))
    machine.make(NAME)
    shown: list[str] = []
    configuration = load_configuration(NAME, machine.configuration)
    watch = Watch(os.getpid(), "cvmfs_server ingest", configuration, 300, shown.append)

    def pass_time(seconds: int) -> None:
        nonlocal now
        for _ in range(seconds):
            now += 1
            watch.check((fed, lines))

    fed, lines = 0, 0
    pass_time(50)
    fed = 1
    pass_time(50)
    lines = 1
    pass_time(50)
    used[0] += os.sysconf("SC_CLK_TCK")
    pass_time(50)
    used[1] += 2**20
    pass_time(50)
    assert not shown
    used[0] += 1  # a loop that polls
    pass_time(200)
    assert len(shown) == 1
    with pytest.raises(RepositoryBusy, match="300 s"):
        pass_time(100)
