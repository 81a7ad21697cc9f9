"""A model of a disk whose power fails: what was not synced is lost, or was written in any order.

It is made from the operations that `tests.transactions.recorder` recorded, and written to a real
file system. Everything up to the last syncfs is on the disk; so are the names in a directory, and
the content of a file, that were fsynced since. Of all other operations any part may be.
"""

from __future__ import annotations

import os
import random
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

Operation = dict[str, Any]
"""A line of the recording."""

ALL_PARTS = 7
"""Of so many operations every part may be lost; of more, none, all, one, or all but one."""


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


class Disk:
    """The disk after the operation `at` of the recording `log`, before anything is lost.

    `unsafe` are the operations that may be lost. `write` decides about them, once.
    """

    def __init__(self, log: Sequence[Operation], at: int) -> None:
        self.at = at
        self.inodes: dict[int, Inode] = {}
        self.root = log[0]["root"]
        done = log[1 : at + 1]
        synced = max((n for n, each in enumerate(done) if each["op"] == "syncfs"), default=-1)
        for number, value in log[0]["inodes"].items():
            self._learn(int(number), value)
            self.inodes[int(number)].names = dict(value["names"])
        for each in done[: synced + 1]:
            self._apply(each)
        for each in done[: synced + 1]:
            for number, value in each.get("inodes", {}).items():
                self._learn(int(number), value)
        self.later = done[synced + 1 :]
        self.unsafe = [
            each
            for number, each in enumerate(self.later)
            if each["op"] not in ("syncfs", "fsync") and not self._is_safe(number)
        ]

    def write(
        self, operations: Sequence[Operation], content: Callable[[bytes, bytes], bytes]
    ) -> None:
        """Execute some of the later operations, in this order.

        `content` returns what a file that was not fsynced contains, given what was written to it,
        and what it contained before. The beginning that both share is never lost.
        """
        old = {number: inode.content for number, inode in self.inodes.items()}
        for each in operations:
            self._apply(each)
        synced = {each["inode"] for each in self.later if each["op"] == "fsync"}
        for each in self.later:
            for key, value in each.get("inodes", {}).items():
                number, written = int(key), bytes.fromhex(value["content"])
                before = old.get(number, b"")
                if number in self.inodes and before != written:
                    if number not in synced:
                        shared = written[: _common_length(before, written)]
                        written = max(content(written, before), shared, key=len)
                    self.inodes[number].content = written

    def copy(self) -> Disk:
        """Return a disk that can be written to apart from this one."""
        made = copy(self)
        made.inodes = {
            number: replace(inode, names=dict(inode.names)) for number, inode in self.inodes.items()
        }
        return made

    def make(self, target: Path) -> None:
        """Put the tree on a real file system, in place of `target`."""
        subprocess.run(["rm", "-rf", str(target)], check=True)
        self._make(self.root, target, {})

    def key(self) -> str:
        """A text that is the same for disks with the same tree."""
        return repr(sorted(self._describe(self.root, "")))

    def _is_safe(self, number: int) -> bool:
        """Whether the directories of that later operation were fsynced after it."""
        each = self.later[number]
        changed = (each.get("parent", -1), each.get("to", -1))
        return any(o["op"] == "fsync" and o["inode"] in changed for o in self.later[number:])

    def _learn(self, number: int, value: dict[str, Any]) -> None:
        known = self.inodes.get(number)
        self.inodes[number] = Inode(
            value["mode"],
            value["uid"],
            value["gid"],
            value["mtime_ns"],
            value["target"],
            value["device"],
            bytes.fromhex(value["content"]),
            known.names if known is not None else {},
        )

    def _apply(self, each: Operation) -> None:
        """One change of names; one that depends on a lost change is lost as well."""
        for number, value in each.get("inodes", {}).items():
            if int(number) not in self.inodes:
                self._learn(int(number), value)
        match each["op"]:
            case "add":
                if each["parent"] in self.inodes and each["inode"] in self.inodes:
                    self.inodes[each["parent"]].names.setdefault(each["name"], each["inode"])
            case "drop":
                if each["parent"] in self.inodes:
                    self.inodes[each["parent"]].names.pop(each["name"], None)
            case "move":
                source, target = self.inodes.get(each["parent"]), self.inodes.get(each["to"])
                if source and target and each["name"] in source.names:
                    target.names[each["as"]] = source.names.pop(each["name"])
            case "swap":
                source, target = self.inodes[each["parent"]], self.inodes[each["to"]]
                one, other = source.names.get(each["name"]), target.names.get(each["as"])
                if one is not None and other is not None:
                    source.names[each["name"]], target.names[each["as"]] = other, one

    def _describe(self, number: int, path: str) -> Iterator[tuple[str, object]]:
        inode = self.inodes[number]
        yield path, (number, inode.mode, inode.target, inode.content)
        for name, below in inode.names.items():
            yield from self._describe(below, f"{path}/{name}")

    def _make(self, number: int, path: Path, made: dict[int, Path]) -> None:
        inode = self.inodes[number]
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


def random_loss(log: Sequence[Operation], at: int, chance: random.Random) -> Disk:
    """The disk when power fails after the operation `at`, with a random part of what may be lost.

    Operations that were not fsynced are also in another order.
    """

    def content(written: bytes, old: bytes) -> bytes:
        if chance.random() < 0.5:
            return written
        return chance.choice([written[: chance.choice([0, len(written) // 9])], old])

    disk = Disk(log, at)
    unsafe = [id(each) for each in disk.unsafe]
    kept = [each for each in disk.later if id(each) not in unsafe or chance.random() < 0.5]
    if chance.random() < 0.5:
        free = [each for each in kept if id(each) in unsafe]
        kept = [each for each in kept if id(each) not in unsafe]
        for each in free:
            kept.insert(chance.randint(0, len(kept)), each)
    disk.write(kept, content)
    return disk


@dataclass(frozen=True, slots=True)
class Loss:
    """Power fails after the operation `at`; those of its unsafe operations in `lost` are lost.

    `content` is that of `Disk.write`, and `before` the disk before anything is lost.
    """

    at: int
    lost: frozenset[int]
    content: Callable[[bytes, bytes], bytes]
    before: Disk = field(repr=False)

    def disk(self) -> Disk:
        """The disk after that."""
        disk = self.before.copy()
        lost = {id(disk.unsafe[number]) for number in self.lost}
        disk.write([each for each in disk.later if id(each) not in lost], self.content)
        return disk


def all_losses(log: Sequence[Operation]) -> list[Loss]:
    """The losses that a power failure can cause, up to ALL_PARTS; some leave the same tree.

    A failure at an earlier operation leaves what one of those just before the next sync leaves.
    What was written to files that were not synced is complete, cut off, or lost in all of them.
    """
    syncs = [n for n, each in enumerate(log) if each.get("op") in ("syncfs", "fsync")]
    moments = sorted({n for sync in syncs for n in (sync - 1, sync)} | {len(log) - 1})
    return [
        Loss(before.at, lost, content, before)
        for before in (Disk(log, at) for at in moments)
        for lost in _parts(len(before.unsafe))
        for content in (_written, _cut_off, _lost)
    ]


def _parts(count: int) -> Iterator[frozenset[int]]:
    everything = frozenset(range(count))
    for size in range(count + 1) if count <= ALL_PARTS else range(2):
        for part in combinations(range(count), size):
            yield frozenset(part)
            if count > ALL_PARTS:
                yield everything - set(part)


def _common_length(one: bytes, other: bytes) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _written(written: bytes, old: bytes) -> bytes:
    return written


def _cut_off(written: bytes, old: bytes) -> bytes:
    return written[: len(written) // 9]


def _lost(written: bytes, old: bytes) -> bytes:
    return old
