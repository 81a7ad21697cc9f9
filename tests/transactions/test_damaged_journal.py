"""Every command reports a damaged journal, and the printed command repairs the repository."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.repository.directory.staging import JOURNAL
from tests.sampling import sample, share
from tests.transactions.client import FaultyCommands
from tests.transactions.scenarios import (
    SCENARIOS,
    Scenario,
    Stage,
    assert_nothing_is_left,
    assert_readers_are_served,
    copy,
    state_of,
)

DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda data: b"",
    lambda data: data[: len(data) // 2],
    lambda data: b"\0" * len(data),
    lambda data: b"\xff\xfe garbage",
    lambda data: b"[]",
    lambda data: b"{}",
    lambda data: data.replace(b'"version": 1, ', b""),
    lambda data: b'{"version": 1, "record": {}, "operations": []}',
    lambda data: data.replace(b'"operations": [', b'"operations": [7, '),
    lambda data: data.replace(b'"operations": [[', b'"operations": [["one"], ['),
]


def kill_after_commit_point(stage: Stage, commands: FaultyCommands, command: list[str]) -> int:
    """Kill `command` right after its commit point, and return at which operation that is."""
    origin = stage.folder / "before"
    copy(stage.repository, origin)

    def commits(at: int) -> bool:
        copy(origin, stage.repository)
        commands.run(stage.repository, command, mode="kill", at=at)
        return (stage.published.state / JOURNAL).exists()

    low, high = 1, commands.succeed(stage.repository, command).operations
    while not commits(high):  # at its end the journal is removed
        high -= 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if commits(middle) else (middle + 1, high)
    assert commits(low)
    return low


@pytest.fixture(scope="module")
def interrupted(folder: Path, commands: FaultyCommands) -> Stage:
    """A repository that holds the journal of a moved tag."""
    [scenario] = [each for each in SCENARIOS if each.name == "moved tag"]
    stage = Stage(folder / "interrupted")
    stage.begin()
    scenario.prepare(stage, commands)
    kill_after_commit_point(stage, commands, scenario.command(stage))
    copy(stage.repository, stage.folder / "origin")
    return stage


@pytest.mark.parametrize("damage", range(len(DAMAGES)))
def test_a_damaged_journal_is_reported_and_the_printed_command_removes_it(
    damage: int, interrupted: Stage, commands: FaultyCommands
) -> None:
    stage, command = interrupted, interrupted.ingest("one", squashed=["one"])
    copy(stage.folder / "origin", stage.repository)
    journal = stage.published.state / JOURNAL
    journal.write_bytes(DAMAGES[damage](journal.read_bytes().rstrip(b"\0")))

    verified = commands.run(stage.repository, ["verify", *stage.place])
    assert verified.code == 1, verified.output
    assert "transaction-damaged" in verified.output and "is damaged" in verified.output
    examined = commands.run(stage.repository, ["doctor", *stage.place])
    assert examined.code != 0, examined.output
    assert "is damaged" in examined.output and "verify --deep --refetch" in examined.output
    for refused in (command, ["gc", *stage.place]):
        ended = commands.run(stage.repository, refused)
        assert ended.code == 3, ended.output
        [moved] = re.findall(r"mv (\S+) (\S+) && publisher verify --deep --refetch", ended.output)

    Path(moved[0]).rename(moved[1])
    repaired = commands.run(stage.repository, ["verify", "--deep", "--refetch", *stage.place])
    assert "0 errors" in repaired.output, repaired.output
    for words in (["gc", "--orphans", "--now", *stage.place], command, stage.verify()):
        again = commands.run(stage.repository, words)
        assert again.code == 0, f"{words}: {again.output}"
    assert_nothing_is_left(stage.published)


@pytest.mark.parametrize(
    "scenario",
    [each for each in SCENARIOS if each.name in ("two new images", "moved tag", "gc")],
    ids=lambda scenario: scenario.name,
)
def test_a_commit_that_stopped_anywhere_is_repaired_without_its_journal(
    scenario: Scenario, folder: Path, commands: FaultyCommands
) -> None:
    stage = Stage(folder / f"lost-{scenario.name.replace(' ', '-')}")
    stage.begin()
    scenario.prepare(stage, commands)
    command, root = scenario.command(stage), stage.repository
    origin = stage.folder / "origin"
    copy(root, origin)
    operations = commands.succeed(root, command).operations
    after = state_of(root)
    copy(origin, root)
    lost = 0
    first = kill_after_commit_point(stage, commands, command)
    # There is certainly a journal at the first one, and none at the last ones.
    for at in (first, *sample(range(first + 3, operations, 3), share(0.25))):
        copy(origin, root)
        commands.run(root, command, mode="kill", at=at)
        journal = stage.published.state / JOURNAL
        if not journal.exists():
            continue
        lost += 1
        journal.unlink()
        repaired = commands.run(root, ["verify", "--repair", "--deep", *stage.place])
        assert "Traceback" not in repaired.output
        assert_readers_are_served(root)
        again = commands.run(root, command)
        assert again.code == 0, again.output
        collect = ["gc", "--orphans", "--now", *stage.place]
        cleaned = commands.run(root, collect, stage.verify("--repair"))
        assert cleaned.code == 0, cleaned.output
        published = {p: n for p, n in state_of(root).items() if p.startswith("local/")}
        assert published == {p: n for p, n in after.items() if p.startswith("local/")}
    assert lost
