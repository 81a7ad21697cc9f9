"""Power fails at any moment of a command: what was not synced is lost, or was written in any order.

The command's operations are recorded, with the contents that files had whenever they were synced.
A model of a disk then keeps everything up to the last sync, and a part of what came later: some
operations, in another order, files empty or cut off. The resulting tree is written to a real file
system, and the next command has to repair it.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from tests.sampling import COMPLETE, SEED, sample, share
from tests.transactions.client import FaultyCommands
from tests.transactions.disk_model import Operation, all_losses, random_loss
from tests.transactions.scenarios import (
    FIRST,
    SCENARIOS,
    SECOND,
    Scenario,
    Stage,
    assert_nothing_is_left,
    assert_readers_are_served,
    copy,
    differences,
    state_of,
)
from tests.trees import describe_tree

LOSSES = int(os.environ.get("PUBLISHER_POWER_LOSSES", "100" if COMPLETE else "20"))


@pytest.mark.parametrize(
    "scenario",
    [each for each in SCENARIOS if each.name in ("moved tag", "gc")],
    ids=lambda scenario: scenario.name,
)
def test_after_a_power_failure_the_next_command_repairs_the_tree(
    scenario: Scenario, folder: Path, commands: FaultyCommands, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    chance = random.Random(SEED)
    stage = Stage(folder / f"loss-{scenario.name.replace(' ', '-')}")
    stage.folder.mkdir()
    scenario.prepare(stage, commands)
    command, root = scenario.command(stage), stage.repository
    origin = stage.folder / "origin"
    copy(root, origin)
    states = [state_of(root)]
    assert commands.run(root, command, mode="snapshot").code == 0
    states += [state_of(each) for each in root.parent.glob(f"{root.name}.*")]
    copy(origin, root)
    recording = stage.folder / "operations.jsonl"
    ended = commands.run(root, command, mode="record", only=str(recording))
    assert ended.code == 0, ended.output
    commands.succeed(root, stage.verify())
    after = state_of(root)  # sound, and so is each tree below that is equal to it
    states.append(after)
    log = [json.loads(line) for line in recording.read_text().splitlines()]
    syncs = [number for number, each in enumerate(log) if each.get("op") in ("syncfs", "fsync")]
    for _ in range(LOSSES):
        at = chance.randint(0, len(log) - 1)
        if chance.random() < 0.6:  # the effect of a sync shows soon after it
            at = min(chance.choice(syncs) + chance.randint(0, 12), len(log) - 1)
        what = f"seed {SEED}, power lost after operation {at} of {len(log) - 1}"
        random_loss(log, at, chance).make(root)
        DirectoryRepository(RepositoryURL("dir", str(root)), writable=True, may_be_new=True).close()
        assert_readers_are_served(root)
        state = state_of(root)
        assert state in states, f"{what}: {[differences(state, each) for each in states]}"
        ended = commands.run(root, ["log", *stage.place], command)
        assert ended.code == 0, f"{what}: {ended.output}"
        assert not differences(state_of(root), after), what
        assert_nothing_is_left(stage.published)
    assert states[0] != after
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(f"\n{scenario.name}: {LOSSES} losses of power in {seconds:.0f} s, seed {SEED}")


def test_each_state_that_a_power_failure_can_leave_is_before_or_after_a_commit(
    folder: Path, commands: FaultyCommands, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tag moves, the old image is collected, and the same image is published again.

    Each transaction changes paths that the one before it published or removed, so that executing
    an earlier one again would be seen.
    """
    began = time.monotonic()
    stage = Stage(folder / "all-losses")
    stage.folder.mkdir()
    stage.succeed(commands, stage.publish(FIRST))
    root = stage.repository
    origin = stage.folder / "origin"
    copy(root, origin)
    steps = [
        *(stage.publish(SECOND), ["gc", "--now", "--quiet", *stage.place]),
        *(stage.publish(FIRST), ["gc", "--now", "--quiet", *stage.place]),
    ]
    ended = commands.run(root, *steps, mode="snapshot")
    assert ended.code == 0, ended.output
    snapshots = sorted(root.parent.glob(f"{root.name}.*"), key=lambda path: int(path.suffix[1:]))
    states = [state_of(path) for path in (origin, *snapshots)]
    layers = {path.name: path for each in snapshots for path in each.glob(".layers/*/*")}
    copy(origin, root)
    recording = stage.folder / "operations.jsonl"
    ended = commands.run(root, *steps, mode="record", only=str(recording))
    assert ended.code == 0, ended.output
    log = [json.loads(line) for line in recording.read_text().splitlines()]
    assert len(states) == 1 + len(_commits(log)) > 4
    tried = set()
    for loss in sample(all_losses(log), share(0.04, complete=0.4)):
        disk, at = loss.disk(), loss.at
        if disk.key() in tried:
            continue
        tried.add(disk.key())
        what = f"seed {SEED}, power lost after operation {at} of {len(log) - 1}: {loss}"
        disk.make(root)
        assert_readers_are_served(root)
        DirectoryRepository(RepositoryURL("dir", str(root)), writable=True, may_be_new=True).close()
        assert_readers_are_served(root)
        state = state_of(root)
        commits = [durable for point, durable in _commits(log) if point <= at]
        certain = sum(durable <= at for durable in commits)
        allowed = states[certain : len(commits) + 1]
        assert state in allowed, f"{what}: {[differences(state, each) for each in allowed]}"
        for layer in (root / layout.STATE / "layers").iterdir():
            assert _contents(layer) == _contents(layers[layer.name]), what
    with capsys.disabled():
        print(f"\n{len(tried)} losses of power in {time.monotonic() - began:.0f} s, seed {SEED}")


def _contents(layer: Path) -> dict[str, object]:
    """What a layer's own archive contains; a link to a lower layer is made when it is published."""
    nodes = describe_tree(layer / layout.LAYER_TREE)
    return {
        path: (node.type, node.sha256, node.target)
        for path, node in nodes.items()
        if path != "from-below"
    }


def _commits(log: Sequence[Operation]) -> list[tuple[int, int]]:
    """For each commit, the operation that names its journal, and the one after which that lasts."""
    points = [n for n, each in enumerate(log) if each.get("as") == "journal.json"]
    return [
        (n, next(m for m in range(n, len(log)) if log[m]["op"] in ("fsync", "syncfs")))
        for n in points
    ]
