"""What commands cost: first publication, moved tag, nothing to do, removal, checks."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.measure import Command, Cost, median, run_once
from bench.results.images import HOST, PUBLISHER, World
from bench.results.state import progress
from tests.components import skopeo_copy

ROUNDS = 3


def measure_costs(world: World, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return the median cost of each command.

    An image with versions is published, moved and removed in a repository of its own; what reads
    all images reads the large one.
    """
    moving = [r for r in world.recipes if r.family == "science"] or list(world.recipes)
    costs: dict[str, list[Cost]] = {}
    wishes = world.state.folder / "wishes.yaml"
    names = "".join(f"  - {world.reference(recipe)}\n" for recipe in world.recipes)
    wishes.write_text(f"version: 2\nimages:\n{names}")
    everything = ("--repository", world.tree)
    settings = ("--config", world.configuration)
    commands: dict[str, Command] = {
        "ingest, nothing to do": (*PUBLISHER, "ingest", wishes, *settings, *everything),
        "list": (*PUBLISHER, "list", *everything),
        "stats": (*PUBLISHER, "stats", *everything),
        "verify": (*PUBLISHER, "verify", *everything),
        "verify --deep": (*PUBLISHER, "verify", "--deep", *everything),
        "python3 -c pass": (PUBLISHER[0], "-c", "pass"),
    }
    run_once(commands["ingest, nothing to do"])  # records which list requests the images
    for number in range(rounds):
        for name, cost in _life(world, moving):
            costs.setdefault(name, []).append(cost)
        for name, command in commands.items():
            if name != "verify --deep" or not number:  # it reads everything
                costs.setdefault(name, []).append(_run(command))
        progress(f"  round {number + 1} of {rounds}")
    return {
        "rounds": rounds,
        "images": len(world.recipes),
        "moving": [recipe.name for recipe in moving[:2]],
        "costs": {
            name: {**asdict(median(each)), "most": max(cost.wall for cost in each)}
            for name, each in costs.items()
        },
        "load": round(statistics.mean(os.getloadavg()), 1),
    }


def _life(world: World, versions: Sequence[Any]) -> Iterator[tuple[str, Cost]]:
    """Publish an image, move its tag, collect the old one, remove the new one."""
    tag = f"{world.registry.host}/field/moving:latest"
    reference = f"{HOST}/field/moving:latest"
    with _folder(world.state.folder / "life") as tree:
        place = ("--repository", tree)

        def move(recipe: Any) -> Command:
            source = f"docker://{world.registry.host}/field/{recipe.name}"
            plain = ("--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests")
            skopeo_copy(source, f"docker://{tag}", *plain)
            return world.ingest(recipe, tree, reference)

        yield "first publication", _run(move(versions[0]))
        yield "ingest-image, nothing to do", _run(move(versions[0]))
        yield "moved tag", _run(move(versions[1]))
        yield "gc of the replaced image", _run((*PUBLISHER, "gc", "--now", *place))
        remove = (*PUBLISHER, "remove", reference, "--grace", "0d", *place)
        yield "remove", _run(remove)
        yield "gc of the last image", _run((*PUBLISHER, "gc", "--now", *place))


def _run(command: Command) -> Cost:
    os.sync()
    return run_once(command)


@contextmanager
def _folder(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder / "tree"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
