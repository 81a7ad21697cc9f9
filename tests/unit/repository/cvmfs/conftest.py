"""A machine with a CVMFS server that stands in for the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cvmfs import Machine, make_machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = make_machine(tmp_path / "machine")
    for key, value in made.environment.items():
        monkeypatch.setenv(key, value)
    return made
