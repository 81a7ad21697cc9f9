"""Fixtures that tests of several modules share."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from coverage import Coverage
from hypothesis import settings

from tests import cpu
from tests.command import forking_commands
from tests.components import NEEDS_PROGRAMS
from tests.real_image import RealImages, build_real_images

# The duration of an example depends more on the load of the machine than on the program.
settings.register_profile("without deadlines", deadline=None)
settings.register_profile("few", deadline=None, max_examples=25)
settings.load_profile("without deadlines")


def pytest_addoption(parser: pytest.Parser) -> None:
    cpu.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed of sampled tests, before other processes are started that inherit it."""
    os.environ.setdefault("PUBLISHER_RANDOM_SEED", str(time.time_ns()))
    # Commands remember the images of all tests there, whose repositories are different ones.
    os.environ["PUBLISHER_STATE"] = tempfile.mkdtemp(prefix="publisher-state-")
    # Each command with workers would start one more Python. Set it to run all tests with workers.
    os.environ.setdefault("PUBLISHER_WORKERS", "0")
    cpu.start(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["PUBLISHER_STATE"], ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave out the tests and modules, none of which is garbage, when garbage is looked for."""
    gc.collect()
    gc.freeze()


def pytest_report_header(config: pytest.Config) -> str:
    seed = os.environ["PUBLISHER_RANDOM_SEED"]
    return (
        f"sampled tests: PUBLISHER_RANDOM_SEED={seed} repeats them, PUBLISHER_SAMPLE=all runs all"
    )


@pytest.fixture(scope="session", autouse=True)
def _forking_commands() -> Iterator[None]:
    """Commands are forked, not started: most tests only look at their results."""
    with forking_commands():
        yield


@pytest.fixture(scope="session")
def real_images() -> RealImages:
    """Debian, Python and numpy as images; see tests/real_image.py."""
    return build_real_images()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Add how to run the skipped tests, and the coverage of the package where it was measured."""
    _name_missing_programs(terminalreporter)
    if config.getoption("cov_source", default=None):
        _print_coverage(terminalreporter)


def _name_missing_programs(reporter: pytest.TerminalReporter) -> None:
    """Name the missing programs of all skipped tests once, with the command that installs them."""
    missing: set[str] = set()
    tests = 0
    for report in reporter.stats.get("skipped", []):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
        _, needs, programs = reason.partition(NEEDS_PROGRAMS)
        if needs:
            tests += 1
            missing.update(programs.split(", "))
    if missing:
        reporter.section("missing programs", sep="-")
        reporter.line(
            f"{tests} tests were skipped for lack of {', '.join(sorted(missing))}. Install with:"
        )
        reporter.line(
            "apt-get update && apt-get install -y --no-install-recommends "
            "$(grep -v '^#' tests/debian-packages.txt)"
        )


def _print_coverage(reporter: pytest.TerminalReporter) -> None:
    """Print the covered share of the lines of each room of the package."""
    measured = Coverage(data_file=".coverage")
    measured.load()
    lines: defaultdict[str, int] = defaultdict(int)
    covered: defaultdict[str, int] = defaultdict(int)
    top = Path(__file__).parents[1] / "publisher"
    for path in sorted(top.rglob("*.py")):
        _, statements, _, missing, _ = measured.analysis2(str(path))
        relative = path.relative_to(top)
        for room in (relative.parts[0] if len(relative.parts) > 1 else "", "publisher"):
            lines[room] += len(statements)
            covered[room] += len(statements) - len(missing)
    reporter.section("coverage by the fast groups (coverage report -m names the lines)", sep="-")
    for room in sorted(lines, key=lambda name: (name == "publisher", name)):
        if room and lines[room]:
            share = 100 * covered[room] / lines[room]
            reporter.line(f"{room:12} {share:5.1f} % of {lines[room]:6} statements")
