"""Runs commands, alternating, and says what each cost."""

from __future__ import annotations

import json
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
"""What to run, one after the other, given an empty directory to work in."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took: seconds on the clock, seconds of CPU, and peak memory in bytes."""

    wall: float
    cpu: float
    memory: int


def measure(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[Cost]]:
    """Run every contender `rounds` times, in turn, so that a slow moment hits all alike."""
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                try:
                    parts = [_run(command) for command in contender(Path(folder))]
                finally:
                    unmount_below(Path(folder))  # podman leaves its storage mounted
            costs[name].append(
                Cost(
                    sum(part.wall for part in parts),
                    sum(part.cpu for part in parts),
                    max(part.memory for part in parts),
                )
            )
    return costs


def median(costs: Sequence[Cost]) -> Cost:
    """The median of each figure by itself."""
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.cpu for cost in costs),
        round(statistics.median(cost.memory for cost in costs)),
    )


def _run(command: Command) -> Cost:
    words = [sys.executable, "-I", "-S", str(RUNNER), *map(str, command)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    wall, cpu, memory = json.loads(done.stdout)
    return Cost(wall, cpu, memory)
