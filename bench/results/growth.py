"""How costs grow with files, layers, images and scheduled images, and where that ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.growth import BENCHMARKS, costs_of, fit
from bench.results.state import progress
from publisher.layers.policy import Limits

NAMES = (
    *("new-files", "find-path", "find-name", "new-layers", "split-layers"),
    *("new-image", "moved-tag", "verify"),
)

SECONDS = 3600
"""What ends a growth: a command that takes an hour of one processor,"""

MEMORY = 4 * 10**9
"""or this number of bytes."""

BOUNDS = {name: Limits().layer_entries for name in ("new-files", "find-path", "find-name")}
"""What the publisher refuses in any case."""


def measure_growth(folder: Path = Path("/dev/shm"), rounds: int = 1) -> dict[str, Any]:
    """Return the costs at each size, the fitted curve, and the size at which it ends."""
    found = {}
    for name in NAMES:
        benchmark = BENCHMARKS[name]
        costs = costs_of(benchmark, rounds, folder)
        sizes = list(costs)
        cpu = [cost.cpu for cost in costs.values()]
        memory = [float(cost.memory) for cost in costs.values()]
        curve = fit(sizes, cpu)
        found[name] = {
            "title": benchmark.title,
            "unit": benchmark.unit,
            "sizes": sizes,
            "cpu": [round(cost.cpu, 3) for cost in costs.values()],
            "wall": [round(cost.wall, 3) for cost in costs.values()],
            "memory": [cost.memory for cost in costs.values()],
            "start": round(curve.start, 3),
            "exponent": curve.exponent if _grows(cpu) else None,
            "anHour": _finite(curve.size_at(SECONDS)) if _grows(cpu) else None,
            "memoryEnds": _finite(fit(sizes, memory).size_at(MEMORY)) if _grows(memory) else None,
            "bound": BOUNDS.get(name),
        }
        progress(f"  {name}: {', '.join(f'{seconds:.2f}' for seconds in cpu)} CPU s")
    return found


def _grows(costs: Sequence[float]) -> bool:
    """Return whether the cost at the largest size is more than a tenth above that at the least.

    Without that, a curve would be fitted to noise.
    """
    return costs[-1] > 1.1 * costs[0]


def _finite(size: float) -> int | None:
    """Return the size as a number for JSON; None if it is beyond all that is meaningful."""
    return round(size) if size < 10**12 else None
