"""A command that is killed at any operation leaves the tree as before or after a commit."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from publisher.repository.history import History
from publisher.tree.history import Change
from tests.any_repository import KINDS, environment_of
from tests.sampling import COMPLETE, SEED, sample, share
from tests.transactions.client import KILLED, Ended, FaultyCommands
from tests.transactions.scenarios import (
    SCENARIOS,
    Scenario,
    Stage,
    State,
    assert_nothing_is_left,
    assert_readers_are_served,
    copy,
    differences,
    fingerprint,
    replace_by,
    state_of,
)
from tests.trees import describe_tree

SHARES = {"directory": share(0.1), "cvmfs": share(0.02, complete=0.04)}
"""The part of all operations at which a command is killed.

A server makes each kill on CVMFS ten times slower. There, a part is enough under CI as well, beside
all operations at which commands of the server begin, are fed and end.
"""

PARTS = 2
"""Each scenario is split into so many tests, so that they run on several processors."""

AT_ONCE = 25
"""How many kills of a command on a directory take one run of it.

It is killed at the last of the operations. Before each of the others, the tree is copied: that is
what a kill there would leave.
"""

WITH_WORKERS = (
    ("directory", "two new images"),
    *((kind, "a moved tag and a new image together") for kind in KINDS),
    ("directory", "refetch"),
)
"""Two layers after each other; two images at once, which are committed together, on CVMFS with a
worker that reads the contents again; and a layer after the processes of `verify --deep`."""

RANDOM_KILLS = int(os.environ.get("PUBLISHER_RANDOM_KILLS", "25" if COMPLETE else "8"))
"""How many random kills to add; docs/transactions.md has the result of 10,000."""


class Killing:
    """One scenario, which is repeated from its beginning."""

    def __init__(
        self,
        scenario: Scenario,
        kind: str,
        folder: Path,
        commands: FaultyCommands,
        workers: int = 0,
    ) -> None:
        self.commands = commands
        self.stage = Stage(folder, kind, workers)
        self.stage.begin()
        scenario.prepare(self.stage, commands)
        self.command = scenario.command(self.stage)
        self.origin = folder / "origin"
        self.published = self.stage.published
        self.root = self.published.root
        copy(self.published.whole, self.origin)
        self.states: list[State] = [state_of(self.root)]
        self.histories = [changes_in(self.published.state)]
        ended = self._run_to_the_end()
        self.operations = ended.operations
        self.served = ended.served
        self.attended = ended.attended
        self._settled: set[tuple[bytes, bool, tuple[Change, ...]]] = set()

    def _run_to_the_end(self) -> Ended:
        """Learn how many operations there are, and what the tree is like after each commit."""
        ended = self.stage.run(self.commands, self.command, mode="snapshot")
        assert ended.code == 0, ended.output
        whole = self.published.whole
        inside = self.root.relative_to(whole)
        state = self.published.state.relative_to(whole)
        for each in whole.parent.glob(f"{whole.name}.*"):
            self.states.append(state_of(each / inside))
            self.histories.append(changes_in(each / state))
            shutil.rmtree(each)
        self.stage.succeed(self.commands, self.stage.verify())
        self.states.append(state_of(self.root))
        self.histories.append(changes_in(self.published.state))
        return ended

    def times(self, part: int) -> list[int]:
        """Return at which operations one of PARTS tests kills."""
        chosen = sample(range(1, self.operations + 1), SHARES[self.stage.kind])
        served = self.served if COMPLETE else sample(self.served, share(0.2))
        return sorted({*chosen, *served})[part::PARTS]

    def kill_each(self, operations: Sequence[int]) -> int:
        """Kill the command at each of these operations, see that it ends well after each, and
        return how often it was killed."""
        # While a copy is made, a server or a worker may change the tree.
        if self.stage.kind != "directory" or self.stage.workers:
            return sum(self.kill_at(at) for at in operations)
        return sum(
            self._kill_in_one_run(operations[start : start + AT_ONCE])
            for start in range(0, len(operations), AT_ONCE)
        )

    def kill_at(self, *operations: int) -> int:
        """Start from the beginning, be killed at each of these operations of a run that begins
        where the last one was killed, and see that it still ends well; how often it was killed."""
        copy(self.origin, self.published.whole)
        killed = 0
        with naming(operations):
            for at in operations:
                killed += self._run_until(at)
                self._check_readers()
            # A second repair has fewer findings than the first, and may have other states between.
            is_between = len(operations) > 1 or self.published.machine is not None
            self._check_recovery(any_state=is_between and "verify" in self.command)
            assert self.commands.left() == [], "processes outlive the publisher"
        return killed

    def _kill_in_one_run(self, operations: Sequence[int]) -> int:
        """Do the same as `kill_at` for each of these operations, with one run of the command."""
        copy(self.origin, self.root)
        killed = self._run_until(operations[-1], copies=operations)
        copies = {at: self.root.with_name(f"{self.root.name}.{at}") for at in operations}
        if killed and self.root.exists():
            last = copies[operations[-1]]
            assert not differences(describe_tree(last), describe_tree(self.root))
        else:  # it ended before the last ones
            copies = {at: made for at, made in copies.items() if killed or made.exists()}
        for at, made in copies.items():
            replace_by(made, self.root)
            with naming([at]):
                self._check_readers()
                self._check_recovery(any_state=False)
        return len(copies)

    def _run_until(self, at: int, copies: Collection[int] = ()) -> bool:
        """Return whether the command was killed; else it ended before this operation."""
        ended = self.stage.run(self.commands, self.command, mode="kill", at=at, copies=copies)
        return ended.code == KILLED

    def _check_readers(self) -> None:
        # The server cannot replace a tree in one revision: it is missing between two.
        if self.published.machine is None or "verify" not in self.command:
            assert_readers_are_served(self.root)

    def _check_recovery(self, *, any_state: bool) -> None:
        """Check that a killed command is completed or undone, and that it then does its work."""
        self.recover()
        changes = changes_in(self.published.state)
        found = fingerprint(self.published.whole), any_state, changes
        if found in self._settled:
            return  # from the same files, the same command does the same
        state = state_of(self.root)
        assert any_state or state in self.states, [differences(state, each) for each in self.states]
        # A repair that is interrupted may find something else when it is repeated. A journal knows
        # the trees that it exchanges by their inodes, which a copy does not keep.
        is_repair = "verify" in self.command
        # Otherwise, the history has what was published, neither less nor more.
        matching = zip(self.states, self.histories, strict=True)
        assert is_repair or (state, changes) in matching, (changes, self.histories)
        again = self.stage.run(self.commands, self.command)
        assert again.code == 0, again.output
        # The last of the states is one that verify found sound.
        assert not differences(state_of(self.root), self.states[-1])
        assert is_repair or changes_in(self.published.state) == self.histories[-1]
        assert_nothing_is_left(self.published)
        self._settled.add(found)

    def recover(self) -> None:
        """Do what every writing command does first; the tree then has the state of a commit."""
        if self.root.exists():
            with environment_of(self.published):
                repository = self.published.open()
                with repository.transaction("a look") as transaction, transaction.exclusive():
                    pass
                repository.close()
            assert not list((self.published.state / "sessions").iterdir())


def changes_in(state: Path) -> tuple[Change, ...]:
    """The changes in a history, sorted; no transaction has two lines."""
    records = list(History(state).read())
    assert len(records) == len({record.id for record in records})
    changes = [change for record in records for change in record.changes]
    return tuple(sorted(changes, key=lambda change: (change.name, change.what, change.why)))


@contextmanager
def naming(operations: Sequence[int]) -> Iterator[None]:
    """Within the block, a failure names the operations at which the command was killed."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"seed {SEED}, killed at {operations}") from error


@pytest.mark.timeout(1200)  # on a busy machine
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_killed_after_any_operation(
    scenario: Scenario,
    kind: str,
    part: int,
    folder: Path,
    commands: FaultyCommands,
    capsys: pytest.CaptureFixture[str],
) -> None:
    began = time.monotonic()
    place = folder / f"{scenario.name.replace(' ', '-')}-{kind}-{part}"
    killing = Killing(scenario, kind, place, commands)
    times = killing.times(part)
    kills = killing.kill_each(times)
    # Also the publisher's own files; after the last kill, the second run may have been left out.
    killing.stage.succeed(commands, killing.command, killing.stage.verify())
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(
            f"\n{scenario.name}, {kind}, {part + 1} of {PARTS}: killed at {kills} of "
            f"{killing.operations} operations in {seconds:.0f} s, seed {SEED}"
        )
    # Threads take turns a little differently each time, so that the very last may be missed.
    assert kills >= len(times) - 5
    assert kills or len(times) < 3


@pytest.mark.timeout(1200)  # on a busy machine
@pytest.mark.parametrize(("kind", "name"), WITH_WORKERS)
def test_killed_at_any_step_of_the_exchange_with_worker_processes(
    name: str,
    kind: str,
    folder: Path,
    commands: FaultyCommands,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The other kills are of a publisher without workers. What differs with them is shown here:
    processes that have to end with the publisher, and may write until they do.
    """
    began = time.monotonic()
    [scenario] = [each for each in SCENARIOS if each.name == name]
    place = folder / f"{name.replace(' ', '-')}-{kind}-workers"
    killing = Killing(scenario, kind, place, commands, workers=2)
    times = sample(killing.attended, share(0.1))
    kills = killing.kill_each(times)
    killing.stage.succeed(commands, killing.command, killing.stage.verify())
    assert commands.left() == []
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(
            f"\n{name}, {kind}, with workers: killed at {kills} of "
            f"{len(killing.attended)} steps in {seconds:.0f} s, seed {SEED}"
        )
    assert kills >= len(times) - 5  # the answer of a worker may arrive in fewer parts
    assert kills or len(times) < 3


@pytest.mark.timeout(900 + 10 * RANDOM_KILLS)  # on a busy machine
def test_killed_again_and_again_at_random(
    folder: Path, commands: FaultyCommands, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    chance = random.Random(SEED)
    played = [
        Killing(scenario, kind, folder / f"random-{kind}-{number}", commands)
        for kind, number, scenario in sample(
            [(kind, *each) for kind in KINDS for each in enumerate(SCENARIOS)], share(0.3)
        )
    ]
    kills = 0
    while kills < RANDOM_KILLS:
        killing = chance.choice(played)
        # Also during the recovery from a kill, which may be interrupted as well.
        times = [chance.randint(1, killing.operations) for _ in range(chance.randint(1, 4))]
        done = killing.kill_at(*times)
        kills += done
        if kills % 100 < done:
            with capsys.disabled():
                print(f"{kills} kills in {time.monotonic() - began:.0f} s, seed {SEED}", flush=True)
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(f"\nrandom: {kills} kills in {seconds:.0f} s, seed {SEED}")
