"""One server of commands that are killed or fail, for all modules: it takes a second to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transactions.client import FaultyCommands, faulty_commands
from tests.transactions.scenarios import quick_directory, warm_up


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    with quick_directory() as path:
        yield path


@pytest.fixture(scope="session")
def commands(folder: Path) -> Iterator[FaultyCommands]:
    with faulty_commands(folder) as running:
        warm_up(running, folder / "warm")
        yield running
