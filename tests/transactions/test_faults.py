"""A file system that fails at any operation: the tree is unchanged, or as after the command."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest

from tests.any_repository import KINDS
from tests.components import require_root, run
from tests.gathering import GATHER
from tests.sampling import SEED, sample, share
from tests.transactions.client import FaultyCommands
from tests.transactions.scenarios import (
    SCENARIOS,
    Stage,
    assert_nothing_is_left,
    assert_readers_are_served,
    copy,
    differences,
    fingerprint,
    state_of,
)

TOLERATED = ("setxattr", "removexattr")
"""A file system may have no extended attributes: an image is then published without them."""

SHARES = {"directory": share(0.1), "cvmfs": share(0.02, complete=0.04)}
"""The part of all operations that fail. On CVMFS, whose server is slow, a part is enough."""

GROUP = "a moved tag and a new image together"
GROUP_SHARE = share(0.02, complete=0.03)
"""The same for images that are committed together, which need three times the operations."""

SERVED_SHARE = share(0.1, complete=0.5)
"""The part of the operations of CVMFS's server, and of those beside workers, in such a commit."""

PARTS = 2
"""The tests that share them, so that they run on several processors."""

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS)


@pytest.mark.timeout(1200)  # on a busy machine
@pytest.mark.parametrize(
    ("kind", "part", "name", "workers"),
    [
        *((kind, part, "moved tag", 0) for kind in KINDS for part in range(PARTS)),
        *((kind, 0, GROUP, 0) for kind in KINDS),
        ("cvmfs", 0, GROUP, 2),
    ],
)
def test_a_failing_operation_leaves_the_tree_before_or_after_the_commit(
    kind: str,
    part: int,
    name: str,
    workers: int,
    folder: Path,
    commands: FaultyCommands,
    capsys: pytest.CaptureFixture[str],
) -> None:
    began = time.monotonic()
    [scenario] = [each for each in SCENARIOS if each.name == name]
    place = f"{kind}-{part}-{len(name)}-{workers}"
    stage = Stage(folder / f"failing-{place}", kind, workers)
    stage.begin()
    scenario.prepare(stage, commands)
    command, root = scenario.command(stage), stage.repository
    origin = folder / f"origin-{place}"
    whole = stage.published.whole
    copy(whole, origin)
    before = state_of(root)
    ended = stage.succeed(commands, command)
    operations = range(1, ended.operations + 1)
    stage.succeed(commands, stage.verify())
    after = state_of(root)  # sound, and so is each tree below that is equal to it
    # Each operation fails with one error once, and with another from then on.
    if workers:
        times = sample(ended.attended, SERVED_SHARE)
    elif name == GROUP:
        served = sample(ended.served, SERVED_SHARE) if ended.served else []
        times = sorted({*sample(operations, GROUP_SHARE), *served})
    else:
        times = sample(operations, SHARES[kind])[part::PARTS]
    failures = 0
    settled: set[bytes] = set()
    for at in times:
        once, lasting = ERRORS[at % 4], ERRORS[(at // 4) % 4]
        for mode, code in (("fail", once), ("broken", lasting)):
            what = f"{mode} {errno.errorcode[code]} at operation {at}, seed {SEED}"
            failures += 1
            copy(origin, whole)
            ended = stage.run(commands, command, mode=mode, at=at, code=code)
            assert "Traceback" not in ended.output, f"{what}: {ended.output}"
            assert ended.code in (0, 1, 3), f"{what}: {ended.output}"
            assert_readers_are_served(root)
            assert commands.left() == [] or not workers, what
            if ended.failed in TOLERATED:
                continue
            if ended.code == 0:
                assert not differences(state_of(root), after), what
            found = fingerprint(whole)
            if found in settled:
                continue  # from the same files, the same command does the same
            # Images that are published already do not wait for their commit.
            alone = command[2:] if command[0] == GATHER else command
            again = stage.run(commands, alone)
            assert again.code == 0, f"{what}: {again.output}"
            assert not differences(state_of(root), after), what
            assert_nothing_is_left(stage.published)
            settled.add(found)
    assert before != after
    with capsys.disabled():
        seconds = time.monotonic() - began
        print(f"\n{name}, {place}: {failures} failures in {seconds:.0f} s, seed {SEED}")


@pytest.mark.system
def test_a_disk_that_is_full_stops_an_image_and_leaves_the_tree_as_it_was(
    folder: Path, commands: FaultyCommands
) -> None:
    """Real ENOSPC, from a file system of every size that is too small."""
    require_root()
    [scenario] = [each for each in SCENARIOS if each.name == "moved tag"]
    stage = Stage(folder / "full")
    stage.folder.mkdir()
    scenario.prepare(stage, commands)
    command, root, origin = scenario.command(stage), stage.repository, folder / "full-origin"
    copy(root, origin)
    used = sum(1 for _ in origin.rglob("*"))
    before = state_of(root)
    stopped = 0
    for inodes in range(used + 2, used + 200, 3):
        run("mount", "-t", "tmpfs", "-o", f"size=16m,nr_inodes={inodes}", "tmpfs", root)
        try:
            run("cp", "-a", f"{origin}/.", root)
            ended = commands.run(root, command)
            if ended.code == 0:
                break
            stopped += 1
            assert "No space left" in ended.output
            assert "Traceback" not in ended.output
            assert not differences(state_of(root), before), "the tree has changed"
            assert commands.run(root, stage.verify()).code == 0
        finally:
            run("umount", root)
    assert ended.code == 0, ended.output
    assert stopped > 10
