"""A machine with a stand-in for the CVMFS server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components import can_mount
from tests.cvmfs import Machine, make_machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Its union mounts are real where the test may mount."""
    made = make_machine(tmp_path / "machine", overlay=can_mount())
    for key, value in made.environment.items():
        monkeypatch.setenv(key, value)
    yield made
    made.unmount()
