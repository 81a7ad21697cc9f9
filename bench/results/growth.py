"""How costs grow with files, layers, images and scheduled images, and where that ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.growth import BENCHMARKS, costs_of, fit
from bench.results.state import progress
from publisher.layers.policy import Limits

NAMES = ("new-files", "new-layers", "split-layers", "verify", "find-path", "find-name", "moved-tag")

SECONDS = 3600
"""What ends a growth: a command that takes an hour of one processor,"""

MEMORY = 4 * 10**9
"""or this number of bytes."""

BOUNDS = {"new-files": Limits().layer_entries}
"""What the publisher refuses in any case."""


def measure_growth(folder: Path = Path("/dev/shm"), rounds: int = 1) -> dict[str, Any]:
    """Return the costs at each size, the fitted curve, and the size at which it ends."""
    found = {}
    for name in NAMES:
        benchmark = BENCHMARKS[name]
        costs = costs_of(benchmark, rounds, folder)
        sizes = list(costs)
        curve = fit(sizes, [cost.cpu for cost in costs.values()])
        memory = fit(sizes, [float(cost.memory) for cost in costs.values()])
        found[name] = {
            "title": benchmark.title,
            "unit": benchmark.unit,
            "sizes": sizes,
            "cpu": [round(cost.cpu, 3) for cost in costs.values()],
            "wall": [round(cost.wall, 3) for cost in costs.values()],
            "memory": [cost.memory for cost in costs.values()],
            "start": round(curve.start, 3),
            "exponent": curve.exponent,
            "anHour": _finite(curve.size_at(SECONDS)),
            "memoryEnds": _finite(memory.size_at(MEMORY)),
            "bound": BOUNDS.get(name),
        }
        progress(f"  {name}: exponent {curve.exponent:.2f}")
    return found


def _finite(size: float) -> int | None:
    """Return the size as a number for JSON; None if it is beyond all that is meaningful."""
    return round(size) if size < 10**12 else None
