"""A journal on disk is a committed transaction: interruptions do not change its result."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.repository import RepositoryError
from publisher.repository.directory import journal
from publisher.repository.directory.journal import Rename
from publisher.repository.history import History
from publisher.tree.history import Record
from tests.components import program
from tests.trees import describe_tree

RECORD = Record("1", "2026-11-20T08:15:00Z", "me", "here", 1, "test", (), {})
STATE = "state"


@dataclass(frozen=True)
class Change:
    """A commit of any size: the published tree, what is staged, and the renames that publish it."""

    present: dict[str, str]
    staged: dict[str, str]
    operations: list[Rename]


PLACES = ["a", "b", "sub/c", "sub/deep/d", "e"]


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Renames in the order of a transaction: new trees, replaced files and links, removals."""
    present = draw(st.dictionaries(st.sampled_from(PLACES), st.sampled_from(["file", "link"])))
    staged: dict[str, str] = {}
    operations: list[Rename] = []

    def stage(kind: str, target: str) -> None:
        source = f"{STATE}/session/{len(staged)}"
        staged[source] = kind
        operations.append(Rename(source, target))

    for number in range(draw(st.integers(0, 2))):
        stage("tree", f"trees/{number}")
    for place in draw(st.lists(st.sampled_from(PLACES), max_size=6)):
        stage(draw(st.sampled_from(["file", "link"])), place)
    gone = draw(st.lists(st.sampled_from([*PLACES, "sub", "trees/0", "nothing"]), max_size=3))
    for number, place in enumerate(gone):
        operations.append(Rename(place, f"{STATE}/trash/{number}"))
    return Change(present, staged, operations)


def _make(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "file":
            path.write_text(f"content of {path.name}")
        case "link":
            path.symlink_to(f"target-of-{path.name}")
        case "tree":
            (path / "inner").mkdir(parents=True)
            (path / "inner/file").write_text("in the tree")


@contextmanager
def prepared(change: Change) -> Iterator[tuple[Path, Path]]:
    """A repository in which `change` has just reached its commit point: (root, journal)."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / STATE / "trash").mkdir(parents=True)
        for place, kind in (change.present | change.staged).items():
            _make(root / place, kind)
        file = root / STATE / "journal.json"
        journal.write(file, change.operations, RECORD)
        yield root, file


def _state(root: Path) -> dict[str, object]:
    """The tree without times, and without the names that only the journal's owner sees."""
    return {
        path: (node.type, node.mode, node.sha256, node.target)
        for path, node in describe_tree(root).items()
        if not path.startswith((f"{STATE}/history", f"{STATE}/trash/"))
    }


@given(changes(), st.data())
def test_an_interrupted_commit_ends_like_one_that_was_not(
    change: Change, choice: st.DataObject
) -> None:
    with prepared(change) as (root, file):
        assert journal.apply(root, file)
        expected = _state(root)
        assert not file.exists()
    with prepared(change) as (root, file):
        for _ in range(choice.draw(st.integers(1, 3))):
            # The steps that an interrupted run had executed, by the simplest means.
            for operation in change.operations[
                : choice.draw(st.integers(0, len(change.operations)))
            ]:
                target = root / operation.target
                if os.path.lexists(root / operation.source):
                    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                    (root / operation.source).rename(target)
        assert journal.apply(root, file)
        assert _state(root) == expected
        assert not journal.apply(root, file)
        assert _state(root) == expected


@given(changes())
def test_executing_a_commit_twice_has_the_effect_of_executing_it_once(
    change: Change,
) -> None:
    with prepared(change) as (root, file):
        written = file.read_bytes()
        journal.apply(root, file)
        expected = _state(root)
        file.write_bytes(written)
        file.chmod(0o600)
        journal.apply(root, file)
        assert _state(root) == expected
        assert len(list(History(file.parent).read())) == 1


CHANGE = Change(
    present={"a": "link", "sub/c": "file", "old": "tree"},
    staged={f"{STATE}/session/{n}": kind for n, kind in enumerate(["tree", "file", "link"])},
    operations=[
        Rename(f"{STATE}/session/0", "trees/0"),
        Rename(f"{STATE}/session/1", "sub/c"),
        Rename(f"{STATE}/session/2", "a"),
        Rename("old", f"{STATE}/trash/0"),
    ],
)

_DYING = """
import os, signal, sys
from pathlib import Path
from publisher.repository.directory import journal

steps = int(sys.argv[3])

def counted(call):
    def wrapper(*arguments, **named):
        global steps
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        steps -= 1
        return call(*arguments, **named)
    return wrapper

for module, names in ((os, ["rename", "mkdir", "unlink", "fsync", "open", "chmod", "ftruncate"]),):
    for name in names:
        setattr(module, name, counted(getattr(module, name)))
journal.apply(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_commit_killed_at_any_system_call_is_finished_by_the_next_process() -> None:
    with prepared(CHANGE) as (root, file):
        journal.apply(root, file)
        expected = _state(root)
    for steps in range(200):
        with prepared(CHANGE) as (root, file):
            child = subprocess.run(
                [sys.executable, "-c", _DYING, str(root), str(file), str(steps)],
                capture_output=True,
                check=False,
            )
            assert child.returncode in (0, -signal.SIGKILL), child.stderr.decode()
            journal.apply(root, file)
            assert _state(root) == expected, f"killed at system call {steps}"
            assert len(list(History(file.parent).read())) == 1
        if child.returncode == 0:
            break
    assert steps > 8  # it was killed at many places
    assert child.returncode == 0


def test_a_layer_that_was_staged_again_during_an_interrupted_commit_does_not_block_it() -> None:
    """Another run may stage the same layer, under the same name, as soon as it has been moved."""
    staged = f"{STATE}/layers/1234"
    change = Change({}, {staged: "tree"}, [Rename(staged, "trees/1234")])
    with prepared(change) as (root, file):
        journal.apply(root, file)
        expected = _state(root)
    with prepared(change) as (root, file):
        (root / "trees").mkdir()
        (root / staged).rename(root / "trees/1234")
        _make(root / staged, "tree")
        assert journal.apply(root, file)
        (root / staged / "inner/file").unlink()  # what is staged is separate from the published
        assert (root / "trees/1234/inner/file").read_text() == "in the tree"
        shutil.rmtree(root / staged)
        assert _state(root) == expected


def test_without_a_journal_nothing_is_done(tmp_path: Path) -> None:
    assert not journal.apply(tmp_path, tmp_path / "journal.json")
    assert list(tmp_path.iterdir()) == []


def test_a_draft_of_a_journal_is_not_executed() -> None:
    with prepared(CHANGE) as (root, file):
        file.rename(file.with_suffix(".draft"))
        before = _state(root)
        assert not journal.apply(root, file)
        assert _state(root) == before
        # The next transaction succeeds.
        journal.write(file, CHANGE.operations[:1], RECORD)
        assert journal.apply(root, file)
        assert (root / "trees/0/inner/file").exists()
        assert (root / "old").exists()


def test_a_blocked_commit_is_finished_after_the_obstacle_is_removed() -> None:
    with prepared(CHANGE) as (root, file):
        journal.apply(root, file)
        expected = _state(root)
    with prepared(CHANGE) as (root, file):
        (root / "trees").write_text("in the way")
        for _ in range(2):
            with pytest.raises(RepositoryError, match="trees"):
                journal.apply(root, file)
            assert file.exists()
        (root / "trees").unlink()
        assert journal.apply(root, file)
        assert _state(root) == expected


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_journal_of_another_release_is_refused_and_kept(version: object) -> None:
    with prepared(CHANGE) as (root, file):
        value = {**json.loads(file.read_bytes().rstrip(b"\0")), "version": version}
        file.write_text(json.dumps(value))
        before = _state(root)
        with pytest.raises(RepositoryError, match="version"):
            journal.apply(root, file)
        assert _state(root) == before


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 4096, b"[]", b'{"version": 1}', b'{"version": 1, "operations": [1]}']
)
def test_a_journal_that_a_disk_has_damaged_is_refused_and_kept(data: bytes) -> None:
    with prepared(CHANGE) as (root, file):
        file.write_bytes(data)
        before = _state(root)
        with pytest.raises(RepositoryError, match=r"journal\.json"):
            journal.apply(root, file)
        assert _state(root) == before


def test_directories_that_a_commit_makes_are_open_to_readers() -> None:
    before = os.umask(0o077)
    try:
        with prepared(CHANGE) as (root, file):
            journal.apply(root, file)
            assert (root / "trees").stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)


def _strace(arguments: Sequence[str], folder: Path, log: Path) -> list[str]:
    """Run a program; return its calls that sync, rename or remove something in a folder.

    The file system is named by a descriptor in the folder, which strace's -y spells out. What the
    interpreter does elsewhere, such as writing bytecode or coverage data, is left out.
    """
    calls = "rename,renameat,renameat2,syncfs,fsync,unlink,unlinkat"
    subprocess.run(
        [program("strace"), "-f", "-y", "-e", f"trace={calls}", "-o", str(log), *arguments],
        check=True,
    )
    lines = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]
    return [call for call in lines if str(folder) in call and not re.match(r"unlink.*draft", call)]


@pytest.mark.system
def test_all_changes_are_synced_before_the_commit_point_and_before_the_journal_is_removed(
    tmp_path: Path,
) -> None:
    code = (
        "import sys; from pathlib import Path; from publisher.repository.directory import journal;"
        "from publisher.tree.history import Record;"
        "root = Path(sys.argv[1]); file = root / 'state/journal.json';"
        "record = Record('1', '', '', '', 1, '', (), {});"
        "journal.write(file, [journal.Rename('state/x', 'x')], record); journal.apply(root, file)"
    )
    root = tmp_path / "root"
    (root / "state").mkdir(parents=True)
    (root / "state/x").write_text("x")
    calls = _strace([sys.executable, "-c", code, str(root)], root, tmp_path / "log")
    order = [call.partition("(")[0] + "!" * ("journal.json" in call) for call in calls]
    order = order[order.index("syncfs") :]
    # Content and the draft; its name; the renames and the history; the end, which needs no sync.
    assert order == ["syncfs", "rename!", "fsync", "rename", "syncfs", "unlink!"]
