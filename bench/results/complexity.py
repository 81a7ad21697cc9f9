"""How complex the functions of the package are, now and at earlier commits.

Cyclomatic complexity is that of ruff (McCabe's, as the lint step limits it); cognitive complexity
is that of complexipy. Earlier commits are read with `git archive`; nothing is checked out.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.results.state import ROOT, progress

POINTS = 12
"""How many commits of the history are measured."""

CEILINGS = {"cyclomatic": 12, "cognitive": 30}
"""What the lint step admits."""

_COUNTED = (5, 10, 15)


def measure_complexity(points: int = POINTS) -> dict[str, Any]:
    """Return the distribution of both complexities over the history, and the largest of today."""
    history = []
    for commit, date in _commits(points):
        with tempfile.TemporaryDirectory(prefix="bench-complexity-") as folder:
            archive = subprocess.run(
                ["git", "-C", str(ROOT), "archive", "--format=tar", commit, "publisher"],
                stdout=subprocess.PIPE,
                check=True,
            )
            subprocess.run(["tar", "-xC", folder], input=archive.stdout, check=True)
            package = Path(folder) / "publisher"
            lines = sum(len(path.read_text().splitlines()) for path in package.rglob("*.py"))
            cyclomatic, cognitive = cyclomatic_of(package), cognitive_of(package)
        history.append(
            {
                "commit": commit[:10],
                "date": date,
                "lines": lines,
                "functions": len(cyclomatic),
                "cyclomatic": _distribution([size for _, size in cyclomatic]),
                "cognitive": _distribution([size for _, size in cognitive]),
            }
        )
        progress(f"  {commit[:10]}: {len(cyclomatic):,} functions")
    cyclomatic, cognitive = cyclomatic_of(ROOT / "publisher"), cognitive_of(ROOT / "publisher")
    return {
        "history": history,
        "cyclomatic": _histogram([size for _, size in cyclomatic]),
        "cognitive": _histogram([size for _, size in cognitive]),
        "most": {
            "cyclomatic": sorted(cyclomatic, key=lambda each: -each[1])[:5],
            "cognitive": sorted(cognitive, key=lambda each: -each[1])[:5],
        },
    }


def _commits(points: int) -> list[tuple[str, str]]:
    """Return commits in equal steps of the history that changed the package, the last included."""
    words = ("log", "--first-parent", "--reverse", "--format=%H %cs", "HEAD", "--", "publisher")
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
    )
    listed = [tuple(line.split()) for line in done.stdout.splitlines()]
    steps = {round(n * (len(listed) - 1) / max(points - 1, 1)) for n in range(points)}
    return [(listed[at][0], listed[at][1]) for at in sorted(steps)]


def cyclomatic_of(package: Path) -> list[tuple[str, int]]:
    """Return each function and method below `package` with its cyclomatic complexity."""
    words = ("check", "--isolated", "--no-cache", "--select", "C901", "--output-format", "json")
    everything = ("--config", "lint.mccabe.max-complexity = 0", "--target-version", "py311")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *words, *everything, str(package)],
        capture_output=True,
        text=True,
    )
    found = []
    for each in json.loads(done.stdout):
        match = re.fullmatch(r"`(.*)` is too complex \((\d+) > 0\)", each["message"])
        if match:
            place = Path(each["filename"]).relative_to(package)
            found.append((f"{place}: {match[1]}", int(match[2])))
    return found


def cognitive_of(package: Path) -> list[tuple[str, int]]:
    """Return each function and method below `package` with its cognitive complexity."""
    import complexipy

    return [
        (f"{path.relative_to(package)}: {each.name.replace('::', '.')}", each.complexity)
        for path in sorted(package.rglob("*.py"))
        for each in complexipy.file_complexity(str(path)).functions
    ]


def _distribution(sizes: Sequence[int]) -> dict[str, float]:
    ordered = sorted(sizes)
    return {
        "mean": round(sum(ordered) / len(ordered), 2),
        "median": ordered[len(ordered) // 2],
        "ninetieth": ordered[len(ordered) * 9 // 10],
        "largest": ordered[-1],
    } | {f"over{ceiling}": sum(size > ceiling for size in ordered) for ceiling in _COUNTED}


def _histogram(sizes: Sequence[int]) -> dict[str, int]:
    return {str(size): sizes.count(size) for size in range(min(sizes), max(sizes) + 1)}
