"""The tests of this directory run where today's engines are installed: `make test-engines`."""

from __future__ import annotations

import os

import pytest

from tests.engines.table import TABLE

if "PUBLISHER_TEST_ENGINES" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not TABLE:
        return
    terminalreporter.section("engines and outputs", sep="-")
    width = max(len(engine) for engine, _ in TABLE)
    second = max(len(output) for _, output in TABLE)
    for (engine, output), result in sorted(TABLE.items()):
        terminalreporter.line(f"{engine:{width}}  {output:{second}}  {result}")
