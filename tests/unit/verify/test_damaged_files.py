"""Every file of a tree and of the publisher's state is damaged, and every command is run.

No command ends with an exit code that is not documented, and the commands in the `try:` lines
lead to a sound tree, in which nothing that was published is lost.

A part of all combinations is tried, chosen by the seed of tests/sampling.py, and a larger one with
CI set. With PUBLISHER_SAMPLE=all every command is run for every damage, which takes hours.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.damaged_tree import (
    FILES,
    READING,
    WRITING,
    Damage,
    Place,
    Tree,
    damages,
    follow_hints,
    prepared_tree,
    published,
)
from tests.sampling import SEED, share

COMMANDS = {**READING, **WRITING}
SHARE = share(0.05, complete=0.1)
"""The part of the damages of a file, and of the commands for each, that is tried."""

JOURNAL = b'{"version": 1, "record": {"id": "1"}, "operations": []}'

LOST_WITH_THE_FILE = {
    ("schedule of the published", "missing"): "scheduled",  # it is published nevertheless
}


@pytest.fixture(scope="module")
def pristine() -> Iterator[Tree]:
    with prepared_tree() as tree:
        yield tree


def harm(tree: Tree, path: Path, data: Damage) -> None:
    """Restore the tree, and damage one file."""
    tree.restore()
    if data is None:
        path.unlink()
    elif isinstance(data, Place):
        data.make(path)
    else:
        path.write_bytes(data)


def chosen(tree: Tree, what: str) -> tuple[Path, dict[str, Damage], random.Random]:
    """The file, its damages that are tried, and the source of further choices."""
    choice = random.Random(f"{SEED} {what}")
    tree.restore()
    path = tree.files()[what]
    every = damages(path.read_bytes() if path.exists() else JOURNAL)
    if not path.exists():
        del every["missing"]
    names = choice.sample(list(every), max(1, round(len(every) * SHARE)))
    return path, {name: every[name] for name in names}, choice


@pytest.mark.parametrize("what", FILES)
def test_no_command_fails_in_an_undocumented_way(pristine: Tree, what: str) -> None:
    path, tried, choice = chosen(pristine, what)
    for name, data in tried.items():
        for command in choice.sample(list(COMMANDS), max(1, round(len(COMMANDS) * SHARE))):
            harm(pristine, path, data)
            result = pristine.run(*COMMANDS[command](pristine))
            assert result.code in (0, 1, 3), (what, name, command, result)
            assert "Traceback" not in result.err


@pytest.mark.parametrize("what", FILES)
def test_following_the_hints_ends_with_a_sound_tree_and_loses_nothing(
    pristine: Tree, what: str
) -> None:
    path, tried, choice = chosen(pristine, what)
    before = published(pristine)
    for name, data in tried.items():
        start = choice.choice(["verify --deep", "ingest", "gc", "list"])
        harm(pristine, path, data)
        result = pristine.run(*COMMANDS[start](pristine)) if start != "gc" else pristine.run("gc")
        done = follow_hints(pristine, result)
        after = published(pristine)
        lost = {key for key in before if after.get(key) != before[key]}
        allowed = LOST_WITH_THE_FILE.get((what, name), "nothing")
        lost = {key for key in lost if not key.startswith(allowed)}
        assert not lost, (what, name, start, done)
        result = pristine.run("ingest", pristine.wishes)
        assert result.code == 0, (what, name, start, done, result)
        result = pristine.run("verify", "--deep", "--quiet")
        assert result.code == 0, (what, name, start, done, result)


@pytest.mark.parametrize("damage", ["missing", "a directory"])
def test_an_image_is_published_from_a_damaged_layer_after_the_hint_is_followed(
    pristine: Tree, damage: str
) -> None:
    pristine.restore()
    path = pristine.files()["file of a layer"]
    command = WRITING["ingest-image"](pristine)
    harm(pristine, path, damages(path.read_bytes())[damage])
    result = pristine.run(*command)
    assert result.code == 1
    assert "cannot link etc/os from a published layer: the layer is damaged" in result.err
    assert "(publisher verify --deep --refetch)" in result.err
    assert pristine.run("verify", "--deep", "--refetch").code == 0  # it is repaired
    assert pristine.run(*command).code == 0
    assert pristine.run("verify", "--deep", "--quiet").code == 0


def test_every_file_of_the_tree_and_of_the_state_is_of_a_kind_that_is_damaged(
    pristine: Tree,
) -> None:
    pristine.restore()
    kinds = pristine.files()
    assert sorted(kinds) == sorted(FILES)
    known = {(path.name, path.suffix) for path in kinds.values()}
    contents = {path.parent for what, path in kinds.items() if what.startswith("file")}
    for path in pristine.root.rglob("*"):
        inside = any(part in ("layerfs", ".flat", "base") for part in path.parts)
        if path.is_file() and not path.is_symlink() and not inside:
            assert any(_is_like(path, name, suffix) for name, suffix in known), path
    assert contents


def _is_like(path: Path, name: str, suffix: str) -> bool:
    """Whether a file has the name of one of the kinds, or is named by a digest or a key."""
    named_by_digest = len(path.stem) >= 64 and path.suffix == suffix
    return path.name == name or named_by_digest or path.name.startswith("=")
