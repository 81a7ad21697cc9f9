"""A snapshotter is killed before each of its steps: what follows finds the state before or after.

The operations run in a forked process, without the gRPC service, which has no state of its own.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from publisher.oci.chain import chain_ids
from publisher.snapshotter.model import AlreadyExists, Kind, Mount, Snapshot
from publisher.snapshotter.snapshotter import REFERENCE, Snapshotter
from publisher.snapshotter.trees import PublishedTrees
from tests.command import publisher
from tests.components import require_mounts
from tests.layer_builder import file, image, layer, write_layout
from tests.snapshotter import mounted
from tests.snapshotter_kill import kill_at

BASE, TOP = layer(file("base", b"base")), layer(file("top", b"top"))
CHAINS = chain_ids([BASE.diff_id, TOP.diff_id])


@dataclass(frozen=True, slots=True)
class Operation:
    """`run` is executed on a state that `before` has made."""

    name: str
    before: Callable[[Snapshotter], object]
    run: Callable[[Snapshotter], object]


def published(snapshotter: Snapshotter, number: int) -> None:
    parent = CHAINS[number - 1] if number else ""
    with suppress(AlreadyExists):
        snapshotter.prepare(f"extract-{number}", parent, {REFERENCE: CHAINS[number]})


def base(snapshotter: Snapshotter) -> None:
    published(snapshotter, 0)
    write(snapshotter.prepare("old", CHAINS[0], {"a": "b"}), "old")


def written(snapshotter: Snapshotter) -> None:
    base(snapshotter)
    write(snapshotter.prepare("active", CHAINS[0], {"a": "b"}), "x" * 5000)


def unpacked(snapshotter: Snapshotter) -> None:
    """A layer that no tree has, and a container above it and a published one."""
    written(snapshotter)
    snapshotter.commit("unpacked", "active", {})
    snapshotter.prepare("above", "unpacked", {})


def write(mounts: list[Mount], text: str) -> None:
    """Write as a container does: into the upper directory."""
    upper = next(o for o in mounts[0].options if o.startswith("upperdir="))
    Path(upper.removeprefix("upperdir="), "directory").mkdir()
    Path(upper.removeprefix("upperdir="), "directory", "file").write_text(text)


def cleaned_up(snapshotter: Snapshotter) -> None:
    """Remove what an interrupted process left."""
    snapshots = snapshotter._directories._root
    (snapshots / "99" / "fs" / "directory").mkdir(parents=True)
    (snapshots / "98").mkdir()
    snapshotter.cleanup()


OPERATIONS = [
    Operation("the first start", lambda s: None, lambda s: None),
    Operation("prepare", base, lambda s: s.prepare("new", CHAINS[0], {"a": "b"})),
    Operation("prepare without a parent", base, lambda s: s.prepare("new", "", {})),
    Operation("view", base, lambda s: s.view("new", CHAINS[0], {})),
    Operation("a published layer", base, lambda s: published(s, 1)),
    Operation("commit", written, lambda s: s.commit("name", "active", {"c": "d"})),
    Operation("update", base, lambda s: s.update("old", {"c": "d"}, ())),
    Operation("remove", written, lambda s: s.remove("active")),
    Operation("remove above others", unpacked, lambda s: s.remove("above")),
    Operation("remove a published layer", lambda s: published(s, 0), lambda s: s.remove(CHAINS[0])),
    Operation("cleanup", base, cleaned_up),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    write_layout(image(BASE, TOP), folder / "layout", "1")
    done = publisher("ingest-image", f"oci:{folder}/layout:1", "--repository", folder / "tree")
    assert done.code == 0, done.err
    return folder / "tree"


@contextmanager
def opened(root: Path, tree: Path) -> Iterator[Snapshotter]:
    snapshotter = Snapshotter(root, PublishedTrees([tree]))
    try:
        yield snapshotter
    finally:
        snapshotter.close()


def interrupted(number: int, root: Path, tree: Path, operation: Operation) -> bool:
    """Run the operation in a child that is killed at a step; return whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            kill_at(number)
            with opened(root, tree) as snapshotter:
                operation.run(snapshotter)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - pytest must not go on in the child
            os.write(2, f"{error!r}: {error}\n".encode())
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a snapshot but its times, its usage, and the files that a container sees."""

    snapshot: Snapshot
    usage: tuple[int, int]
    files: dict[str, bytes]


def state(snapshotter: Snapshotter) -> dict[str, Known]:
    """Return all snapshots by name; check that the directory contains them, and nothing else."""
    found = snapshotter.walk()
    directories = snapshotter._directories
    for each in found:
        files = Path(directories.files(each.id))
        assert files.is_symlink() == bool(each.layer)
        assert files.is_dir()
        assert (files.parent / "work").is_dir() == (each.kind is Kind.ACTIVE or bool(each.size))
    names = {path.name for path in directories._root.iterdir()}
    assert names == {str(each.id) for each in found}, "a directory is missing, or was left"
    return {
        each.name: Known(
            Snapshot(each.id, each.name, each.parent, each.kind, 0, 0, each.labels, each.layer),
            snapshotter.usage(each.name),
            contents(snapshotter, each),
        )
        for each in found
    }


def contents(snapshotter: Snapshotter, snapshot: Snapshot) -> dict[str, bytes]:
    """Return the files of a snapshot and of those below it, of which none deletes any."""
    with snapshotter._store.transaction():
        stack = snapshotter._store.stack(snapshot)
    seen: dict[str, bytes] = {}
    for each in reversed(stack):
        top = Path(snapshotter._directories.files(each.number)).resolve()
        seen |= read_files(top)
    return seen


def read_files(top: Path) -> dict[str, bytes]:
    files = (path for path in top.rglob("*") if path.is_file())
    return {str(path.relative_to(top)): path.read_bytes() for path in files}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_killed_at_each_step_the_state_is_that_before_or_after(
    operation: Operation, tmp_path: Path, tree: Path
) -> None:
    def begun(name: str) -> Path:
        with opened(tmp_path / name, tree) as snapshotter:
            operation.before(snapshotter)
        return tmp_path / name

    with opened(begun("before"), tree) as snapshotter:
        before = state(snapshotter)
        operation.run(snapshotter)
        after = state(snapshotter)
    assert all(known.files for known in before.values())
    outcomes = set()
    number = 0
    while True:
        number += 1
        root = tmp_path / str(number)
        if operation.name != "the first start":
            begun(str(number))
        killed = interrupted(number, root, tree, operation)
        with opened(root, tree) as snapshotter:
            found = state(snapshotter)
            assert found in (before, after), f"killed at step {number}"
            outcomes.add(found == after)
            if killed and found == before and before != after:
                operation.run(snapshotter)
                assert state(snapshotter) == after, f"again after step {number}"
        assert set(os.listdir(root)) == {"lock", "reserve", "snapshots", "state.db"}
        if not killed:
            break
    assert number > 3
    assert True in outcomes
    assert before == after or False in outcomes


def test_a_running_container_keeps_its_files_wherever_another_removal_is_killed(
    tmp_path: Path, tree: Path
) -> None:
    require_mounts()
    root = tmp_path / "root"
    with opened(root, tree) as snapshotter:
        unpacked(snapshotter)
        (mount,) = snapshotter.mounts("above")
    expected = {"base": b"base", "directory/file": b"x" * 5000, "mine": b"mine"}
    number, killed = 0, True
    with mounted([asdict(mount)], tmp_path / "mount") as place:
        (place / "mine").write_bytes(b"mine")
        while killed:
            number += 1
            with opened(root, tree) as snapshotter, suppress(AlreadyExists):
                write(snapshotter.prepare("other", "unpacked", {}), "other")
            removal = Operation("", base, lambda s: s.remove("other"))
            killed = interrupted(number, root, tree, removal)
            assert read_files(place) == expected, f"killed at step {number}"
    with opened(root, tree) as snapshotter:
        assert set(state(snapshotter)) == {CHAINS[0], "old", "unpacked", "above"}
        (mount,) = snapshotter.mounts("above")
    with mounted([asdict(mount)], tmp_path / "mount") as place:
        assert read_files(place) == expected
    assert number > 3
