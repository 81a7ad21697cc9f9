from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.repository.descriptors import Directories, remove_at
from tests.engine import Unpack
from tests.trees import describe_tree, tree_identity


@pytest.fixture
def unpack(tmp_path: Path) -> Iterator[Unpack]:
    """Unpacks members: `unpack(file("a"), directory("b")).entries`."""
    trees = tmp_path / "trees"
    trees.mkdir()
    yield Unpack(trees)
    # Some trees are nested too deep for what pytest removes temporary directories with.
    with Directories(tmp_path) as directories:
        remove_at(directories.root, "trees")


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A directory beside the trees; the test fails if anything in it is changed or even touched."""
    directory = tmp_path / "victim"
    directory.mkdir()
    (directory / "canary").write_text("alive")
    (directory / "below").mkdir()
    (directory / "below" / "file").write_text("here")
    before, identity = describe_tree(directory), tree_identity(directory)
    yield directory
    assert describe_tree(directory) == before
    assert tree_identity(directory) == identity
    own = ("victim", "trees", "layer-", "flat")
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(own)] == []
