"""Accounts for the CPU time of tests: `pytest -n 0 --cpu FILE …`, as root.

The tests and all processes that they start, daemons too, run in a control group of their own, whose
kernel counter is read around the collection, each fixture and each test. FILE gets a line per
measurement: seconds of user and of system time, "collection", "fixture" or "test", and the name. At
the end the files and fixtures that take most are printed. A fixture is a part of the test that was
the first to need it. What kernel threads do is not counted, such as those of loop devices.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

_T = TypeVar("_T")
SHOWN = 25
_UNITS = 1_000_000  # the kernel counts microseconds


def add_option(parser: pytest.Parser) -> None:
    parser.addoption("--cpu", metavar="FILE", help="write the CPU time of each test to FILE")


def start(config: pytest.Config) -> None:
    """Account for what this process runs, if that was asked for."""
    path = config.getoption("--cpu")
    if path:
        # `--cpu tests/unit/x.py` would overwrite the tests, and run all others.
        if Path(path).suffix == ".py" or Path(path).is_dir():
            raise pytest.UsageError(f"--cpu writes to FILE, and {path} holds tests")
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        config.pluginmanager.register(Accounting(Path(f"{path}.{worker}" if worker else path)))


@dataclass(slots=True)
class Spent:
    """Seconds of CPU time."""

    user: float = 0.0
    system: float = 0.0

    @property
    def whole(self) -> float:
        return self.user + self.system


class Accounting:
    """A plugin of pytest."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1)
        self._group = _hierarchy() / f"publisher-tests-{os.getpid()}"
        self._group.mkdir()
        (self._group / "cgroup.procs").write_text(str(os.getpid()))
        self._sums: defaultdict[tuple[str, str], Spent] = defaultdict(Spent)

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Generator[None, _T, _T]:
        with self._measured("collection", "collection", "collection"):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, _T, _T]:
        name = f"{fixturedef.argname} ({fixturedef.scope}) of {request.node.nodeid}"
        with self._measured("fixture", name, f"{fixturedef.argname} ({fixturedef.baseid})"):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, _T, _T]:
        with self._measured("test", item.nodeid, item.nodeid.partition("::")[0]):
            return (yield)

    @contextmanager
    def _measured(self, kind: str, name: str, of: str) -> Iterator[None]:
        before = self._read()
        try:
            yield
        finally:
            after = self._read()
            user, system = after.user - before.user, after.system - before.system
            self._file.write(f"{user:.4f}\t{system:.4f}\t{kind}\t{name}\n")
            total = self._sums[kind, of]
            total.user += user
            total.system += system

    def _read(self) -> Spent:
        lines = (self._group / "cpu.stat").read_text().splitlines()
        values = dict(line.split() for line in lines)
        return Spent(int(values["user_usec"]) / _UNITS, int(values["system_usec"]) / _UNITS)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        spent = self._read()
        terminalreporter.section(f"CPU time: {spent.user:.1f} s user, {spent.system:.1f} s system")
        for kind in ("collection", "test", "fixture"):
            sums = [(total, of) for (each, of), total in self._sums.items() if each == kind]
            sums.sort(key=lambda pair: pair[0].whole, reverse=True)
            for total, of in sums[:SHOWN]:
                terminalreporter.line(f"{total.user:8.2f} {total.system:8.2f}  {kind:10} {of}")

    def pytest_unconfigure(self) -> None:
        self._file.close()
        for process in (self._group / "cgroup.procs").read_text().split():
            (self._group.parent / "cgroup.procs").write_text(process)
        self._group.rmdir()


def _hierarchy() -> Path:
    """The group of this process in the hierarchy of version 2, which always counts CPU time."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    [point] = [line.split()[4] for line in mounts if " - cgroup2 " in line]
    [group] = [line.removeprefix("0::/") for line in groups if line.startswith("0::")]
    return Path(point) / group
