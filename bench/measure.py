"""Runs commands, alternating, and measures what each costs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.components import unmount_below

RUNNER = Path(__file__).with_name("run_one.py")

Command = Sequence[str | Path]
Contender = Callable[[Path], Sequence[Command]]
"""Returns the commands to run one after the other, given an empty directory to work in."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one run: wall, user and system seconds, and peak memory in bytes."""

    wall: float
    user: float
    system: float
    memory: int

    @property
    def cpu(self) -> float:
        """All CPU seconds."""
        return self.user + self.system


def measure(
    contenders: Mapping[str, Contender], rounds: int, folder: Path | None = None
) -> dict[str, list[Cost]]:
    """Run every contender `rounds` times, in turn, so that a slow moment affects all alike.

    Each works in an empty directory below `folder`; without it, where temporary files are.
    Unwritten data of one is synced before the next begins.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as work:
                os.sync()
                try:
                    parts = [run_once(command) for command in contender(Path(work))]
                finally:
                    unmount_below(Path(work))  # podman leaves its storage mounted
            costs[name].append(
                Cost(
                    sum(part.wall for part in parts),
                    sum(part.user for part in parts),
                    sum(part.system for part in parts),
                    max(part.memory for part in parts),
                )
            )
    return costs


def median(costs: Sequence[Cost]) -> Cost:
    """Return the median of each figure by itself."""
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.user for cost in costs),
        statistics.median(cost.system for cost in costs),
        round(statistics.median(cost.memory for cost in costs)),
    )


def run_once(command: Command) -> Cost:
    """Run one command, which must succeed, and return its cost."""
    words = [sys.executable, "-I", "-S", str(RUNNER), *map(str, command)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    return Cost(*json.loads(done.stdout))
