"""What killed commands of a host have left open in CVMFS."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from publisher.repository.cvmfs.mirror import command_note
from publisher.service.configuration import RepositoryConfiguration, ServiceConfiguration
from publisher.service.jobs.interrupted import Interrupted
from tests.command import environment
from tests.cvmfs import make_machine

NAME = "images.test.org"


def test_a_lease_that_a_killed_command_holds_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine = make_machine(tmp_path / "machine")
    machine.make(NAME, "-u", "gw,/srv/cvmfs,http://gateway")
    for name, text in machine.environment.items():
        monkeypatch.setenv(name, text)
    note = command_note(machine.state / NAME)
    leases = machine.root / "srv/cvmfs" / NAME / "leases"

    def begin() -> None:
        """Begin a transaction, and do nothing more: as a command that is killed then."""
        repository = machine.open(NAME)
        repository.guard.server.run(["transaction", NAME])
        repository.close()

    configuration = ServiceConfiguration(
        "service.yaml",
        tmp_path,
        "sqlite://",
        (RepositoryConfiguration("r", f"cvmfs:{NAME}"), RepositoryConfiguration("d", "dir:/none")),
        environment=("PUBLISHER_STATE", "PUBLISHER_CVMFS_CONFIGURATION", "CVMFS_STANDIN_ROOT"),
    )
    interrupted = Interrupted(environment() | machine.environment, threading.Event())
    for looks in (1, 2):
        begin()
        assert note.exists() and list(leases.iterdir())
        for _ in range(looks - 1):  # a command that has begun since the last look may still run
            interrupted.recover(configuration)
            assert note.exists()
        interrupted.recover(configuration)
        assert not note.exists() and not list(leases.iterdir()), caplog.text
