"""Power fails at any moment of a command: what was not synced is lost, or was written in any order.

The command's operations are recorded, with the contents that files had whenever they were synced.
A model of a disk then keeps everything up to the last sync, and a random part of what came later:
some operations, in another order, files empty or cut off. The resulting tree is written to a real
file system, and the next command has to repair it.
"""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree.layout import RepositoryURL
from tests.sampling import COMPLETE, SEED
from tests.transactions.client import FaultyCommands, faulty_commands
from tests.transactions.scenarios import (
    SCENARIOS,
    Scenario,
    Stage,
    assert_nothing_is_left,
    assert_readers_are_served,
    copy,
    differences,
    quick_directory,
    state_of,
    warm_up,
)

LOSSES = int(os.environ.get("PUBLISHER_POWER_LOSSES", "100" if COMPLETE else "20"))


@dataclass(slots=True)
class Inode:
    """One inode on the model's disk; `names` are the entries of a directory."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    target: str = ""
    device: int = 0
    content: bytes = b""
    names: dict[str, int] = field(default_factory=dict)


Disk = dict[int, Inode]


class Loss:
    """The disk after a recorded command whose power fails after its operation `at`."""

    def __init__(self, log: list[dict[str, Any]], at: int, chance: random.Random) -> None:
        self.disk: Disk = {}
        self.root = log[0]["root"]
        self._log = log
        self._chance = chance
        done = log[1 : at + 1]
        # Everything before a syncfs is on disk.
        synced = max((n for n, each in enumerate(done) if each["op"] == "syncfs"), default=-1)
        self._load(log[0]["inodes"])
        for each in done[: synced + 1]:
            self._apply(each)
        self._learn(done[: synced + 1])
        later = done[synced + 1 :]
        old = {number: inode.content for number, inode in self.disk.items()}
        kept = [e for e in later if self._is_safe(e, later) or chance.random() < 0.5]
        # What was fsynced keeps its order; everything else may be written in any order.
        if chance.random() < 0.5:
            free = [each for each in kept if not self._is_safe(each, later)]
            kept = [each for each in kept if self._is_safe(each, later)]
            for each in free:
                kept.insert(chance.randint(0, len(kept)), each)
        for each in kept:
            self._apply(each)
        self._lose_content(later, old)

    @staticmethod
    def _is_safe(each: dict[str, Any], later: list[dict[str, Any]]) -> bool:
        number = later.index(each)
        return any(o["op"] == "fsync" and o["inode"] in _directories(each) for o in later[number:])

    def _load(self, inodes: dict[str, Any]) -> None:
        for number, value in inodes.items():
            self._learn_inode(int(number), value)
            self.disk[int(number)].names = dict(value["names"])

    def _learn(self, operations: list[dict[str, Any]]) -> None:
        for each in operations:
            for number, value in each.get("inodes", {}).items():
                self._learn_inode(int(number), value)

    def _learn_inode(self, number: int, value: dict[str, Any]) -> None:
        old = self.disk.get(number)
        names = old.names if old is not None else {}
        content = bytes.fromhex(value["content"])
        self.disk[number] = Inode(
            value["mode"],
            value["uid"],
            value["gid"],
            value["mtime_ns"],
            value["target"],
            value["device"],
            content,
            names,
        )

    def _apply(self, each: dict[str, Any]) -> None:
        """One change of names; one that depends on a lost change is lost as well."""
        for number, value in each.get("inodes", {}).items():
            if int(number) not in self.disk:
                self._learn_inode(int(number), value)
        match each["op"]:
            case "add":
                if each["parent"] in self.disk and each["inode"] in self.disk:
                    self.disk[each["parent"]].names.setdefault(each["name"], each["inode"])
            case "drop":
                if each["parent"] in self.disk:
                    self.disk[each["parent"]].names.pop(each["name"], None)
            case "move":
                source, target = self.disk.get(each["parent"]), self.disk.get(each["to"])
                if source and target and each["name"] in source.names:
                    target.names[each["as"]] = source.names.pop(each["name"])
            case "swap":
                source, target = self.disk[each["parent"]], self.disk[each["to"]]
                one, other = source.names.get(each["name"]), target.names.get(each["as"])
                if one is not None and other is not None:
                    source.names[each["name"]], target.names[each["as"]] = other, one

    def _lose_content(self, later: list[dict[str, Any]], old: dict[int, bytes]) -> None:
        """What was written since the last sync may be missing, or end somewhere."""
        synced = {each["inode"] for each in later if each["op"] == "fsync"}
        for each in later:
            for key, value in each.get("inodes", {}).items():
                number, content = int(key), bytes.fromhex(value["content"])
                if number not in self.disk or old.get(number) == content:
                    continue
                if number not in synced and self._chance.random() < 0.5:
                    content = content[: self._chance.choice([0, len(content) // 9])]
                    content = self._chance.choice([content, old.get(number, content)])
                self.disk[number].content = content

    def make(self, target: Path) -> None:
        """Put the tree on a real file system."""
        made: dict[int, Path] = {}
        subprocess.run(["rm", "-rf", str(target)], check=True)
        if self.disk[self.root].names or self.root in self.disk:
            self._make(self.root, target, made)

    def _make(self, number: int, path: Path, made: dict[int, Path]) -> None:
        inode = self.disk[number]
        kind = stat.S_IFMT(inode.mode)
        if number in made:
            os.link(made[number], path, follow_symlinks=False)
            return
        if kind == stat.S_IFDIR:
            path.mkdir()
            for name, below in inode.names.items():
                self._make(below, path / name, made)
        else:
            made[number] = path
            if kind == stat.S_IFLNK:
                path.symlink_to(inode.target)
            elif kind == stat.S_IFREG:
                path.write_bytes(inode.content)
            else:
                os.mknod(path, inode.mode, inode.device)
        os.chown(path, inode.uid, inode.gid, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            path.chmod(stat.S_IMODE(inode.mode))
        os.utime(path, ns=(inode.mtime_ns, inode.mtime_ns), follow_symlinks=False)


def _directories(each: dict[str, Any]) -> set[int]:
    return {each.get("parent", -1), each.get("to", -1)}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with quick_directory() as path:
        yield path


@pytest.fixture(scope="module")
def commands(folder: Path) -> Iterator[FaultyCommands]:
    with faulty_commands(folder) as running:
        warm_up(running, folder / "warm")
        yield running


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
    after = state_of(root)
    states.append(after)
    log = [json.loads(line) for line in recording.read_text().splitlines()]
    syncs = [number for number, each in enumerate(log) if each.get("op") in ("syncfs", "fsync")]
    for _ in range(LOSSES):
        at = chance.randint(0, len(log) - 1)
        if chance.random() < 0.6:  # the effect of a sync shows soon after it
            at = min(chance.choice(syncs) + chance.randint(0, 12), len(log) - 1)
        what = f"seed {SEED}, power lost after operation {at} of {len(log) - 1}"
        Loss(log, at, chance).make(root)
        DirectoryRepository(RepositoryURL("dir", str(root)), writable=True).close()
        assert_readers_are_served(root)
        state = state_of(root)
        assert state in states, f"{what}: {[differences(state, each) for each in states]}"
        ended = commands.run(root, ["log", *stage.place], command, stage.verify())
        assert ended.code == 0, f"{what}: {ended.output}"
        assert not differences(state_of(root), after), what
        assert_nothing_is_left(stage.published)
    assert states[0] != after
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(f"\n{scenario.name}: {LOSSES} losses of power in {seconds:.0f} s, seed {SEED}")
