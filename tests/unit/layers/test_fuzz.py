"""Mutated archives: no escape, no hang, no traceback, no growth.

PUBLISHER_FUZZ sets how many are tried (600 by default); a long run is

    PUBLISHER_FUZZ=200000 pytest tests/unit/layers/test_fuzz.py --timeout=0 --basetemp=/dev/shm/f

PUBLISHER_FUZZ_SEED chooses another series; a failure names the number that repeats it alone.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from publisher.errors import PublisherError
from publisher.layers.merge import merge
from publisher.layers.policy import Limits, Policy
from publisher.repository.descriptors import Directories, remove_at
from tests.engine import unpack_layer
from tests.hostile import CORPUS, aimed_at
from tests.layer_builder import (
    BLOCK,
    END,
    Layer,
    Member,
    character_device,
    compress,
    directory,
    fifo,
    file,
    hardlink,
    layer_of_blob,
    opaque,
    pax_header,
    symlink,
    tar,
    whiteout,
)
from tests.trees import describe_tree

COUNT = int(os.environ.get("PUBLISHER_FUZZ", "600"))
SEED = int(os.environ.get("PUBLISHER_FUZZ_SEED", "1"))
CPU_SECONDS_EACH = 20.0
"""The deadline of one archive, whatever else the machine is doing."""
GROWTH_KIB = 40_000
POLICY = Policy(limits=Limits(layer_bytes=3_000_000, layer_entries=2000))

VALID: list[Member | bytes] = [
    directory("d", xattrs={"user.a": b"1"}),
    file("d/f", b"content" * 100, mtime_ns=1_500_000_000),
    hardlink("d/h", "d/f"),
    symlink("s", "../victim"),
    symlink("abs", "/VICTIM"),
    file("long" * 40, b"x", format="gnu"),
    file("p/" * 60 + "f", b"y", format="ustar"),
    file("q" * 150, b"z"),
    fifo("pipe"),
    character_device("null"),
    whiteout("d/gone"),
    opaque("d/o"),
    pax_header({"comment": "global"}, b"g"),
    file("old", b"7", format="v7"),
    file("holes", b"x" * 512, pax={"GNU.sparse.map": "100,512", "GNU.sparse.size": "2000"}),
    file("uid", uid=2**31, format="gnu"),
]
FIELDS = [(0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100)]
FIELDS += [(257, 8), (329, 8), (337, 8), (345, 155), (386, 97), (482, 1), (483, 12)]
INTERESTING = [b"", b"/", b"..", b"../victim/canary", b"s/x", b"abs/canary", b".wh.", b".wh..."]
INTERESTING += [b"7" * 12, b"\xff" * 12, b"\x80" + b"\0" * 11, b"-1", b"9" * 8, b"\0" * 12, b"d"]
FLAGS = b"01234567\0xXgLKSVMDNA"


class Mutator:
    """Makes one broken layer from a seed."""

    def __init__(self, number: int, victim: str) -> None:
        self._random = random.Random(SEED * 1_000_003 + number)
        self._victim = victim

    def layer(self) -> Layer:
        choose = self._random
        archive = bytearray(tar(*self._members(), end=choose.choice([END, b"", END * 3])))
        mutations: list[Callable[[bytearray], None]] = [
            self._flip,
            self._field,
            self._field,
            self._field,
            self._flag,
            self._cut,
            self._splice,
            self._overwrite,
        ]
        for _ in range(choose.randrange(0, 5)):
            if len(archive) > BLOCK:
                choose.choice(mutations)(archive)
        raw = bytes(archive)
        blob = bytearray(
            compress(
                raw, choose.choice(["none", "none", "gzip", "zstd"]), parts=choose.choice([1, 3])
            )
        )
        if choose.random() < 0.1 and blob:
            self._flip(blob)
        return layer_of_blob(bytes(blob), raw)

    def _members(self) -> list[Member | bytes]:
        choose = self._random
        if choose.random() < 0.3:
            members: list[Member | bytes] = list(CORPUS[choose.choice(list(CORPUS))])
            members += choose.sample(VALID, 3)
        else:
            members = choose.sample(VALID, choose.randrange(1, len(VALID)))
        if choose.random() < 0.3:
            choose.shuffle(members)
        return aimed_at(members, self._victim)

    def _header(self, archive: bytearray) -> int:
        """The offset of what most likely is a header."""
        starts = [
            at
            for at in range(0, len(archive) - BLOCK + 1, BLOCK)
            if archive[at + 257 : at + 262] == b"ustar"
        ]
        if starts:
            return self._random.choice(starts)
        return self._random.randrange(0, len(archive) - BLOCK + 1, BLOCK)

    def _flip(self, archive: bytearray) -> None:
        archive[self._random.randrange(len(archive))] ^= 1 << self._random.randrange(8)

    def _field(self, archive: bytearray) -> None:
        at = self._header(archive)
        offset, length = self._random.choice(FIELDS)
        value = self._random.choice([*INTERESTING, self._random.randbytes(length)])
        if self._random.random() < 0.3:
            value = b"%0*o" % (length - 1, self._random.randrange(8 ** min(11, length)))
        archive[at + offset : at + offset + length] = value[:length].ljust(length, b"\0")
        self._correct(archive, at)

    def _flag(self, archive: bytearray) -> None:
        at = self._header(archive)
        archive[at + 156] = self._random.choice(FLAGS)
        self._correct(archive, at)

    def _correct(self, archive: bytearray, at: int) -> None:
        """Usually write a correct checksum, so that the fields behind it are tested."""
        if self._random.random() < 0.95:
            archive[at + 148 : at + 156] = b" " * 8
            archive[at + 148 : at + 156] = b"%06o\0 " % sum(archive[at : at + BLOCK])

    def _cut(self, archive: bytearray) -> None:
        if self._random.random() < 0.5:
            del archive[self._random.randrange(len(archive)) :]
        else:
            start = self._random.randrange(0, len(archive), BLOCK)
            del archive[start : start + BLOCK * self._random.randrange(1, 4)]

    def _splice(self, archive: bytearray) -> None:
        start = self._random.randrange(0, len(archive), BLOCK)
        piece = archive[start : start + BLOCK * self._random.randrange(1, 6)]
        to = self._random.randrange(0, len(archive), BLOCK)
        archive[to:to] = piece * self._random.choice([1, 1, 2, 30])

    def _overwrite(self, archive: bytearray) -> None:
        at = self._random.randrange(len(archive))
        piece = self._random.choice([struct.pack("<Q", self._random.getrandbits(64)), *INTERESTING])
        archive[at : at + len(piece)] = piece


class Hangs(Exception):
    """The deadline of an archive is over."""


@pytest.fixture
def _deadlines() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGPROF, interrupt)
    yield
    signal.signal(signal.SIGPROF, before)


@pytest.mark.usefixtures("_deadlines")
def test_mutated_archives_do_no_harm(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "below").mkdir(parents=True)
    (victim / "canary").write_text("alive")
    before = describe_tree(victim)
    beside = sorted(p.name for p in tmp_path.iterdir())
    unpacked = refused = 0
    settled = 0
    with Directories(tmp_path) as directories:
        for number in range(COUNT):
            source = Mutator(number, str(victim)).layer()
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS_EACH)
            try:
                done = unpack_layer(source, tmp_path / "tree", POLICY)
                list(merge([done.index]))
                unpacked += 1
            except PublisherError:
                refused += 1
            except Exception as error:
                error.add_note(f"PUBLISHER_FUZZ_SEED={SEED}, number {number}")
                raise
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            if (tmp_path / "tree").exists():
                remove_at(directories.root, "tree")
            if number % 100 == 0:
                assert describe_tree(victim) == before, f"seed {SEED}, up to number {number}"
                assert sorted(p.name for p in tmp_path.iterdir()) == beside
            if number == min(1000, COUNT // 2):
                settled = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert describe_tree(victim) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - settled < GROWTH_KIB
    assert unpacked > COUNT // 20, "hardly anything was unpacked: the mutations are too coarse"
    assert refused > COUNT // 20, "hardly anything was refused: the mutations are too tame"
    print(f"{unpacked} unpacked, {refused} refused")
