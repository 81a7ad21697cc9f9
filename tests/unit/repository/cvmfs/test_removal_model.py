"""The model of removal (tests/unit/removal/test_model.py), against a CVMFS repository.

The same rules and invariants; only where the tree lies, and where a publisher dies, differ.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import initialize, invariant, run_state_machine_as_test

from publisher.sources.open import Sources
from tests import removal_machine as directory
from tests.cvmfs import Machine, die_around_calls, make_machine
from tests.removal_model import START, TAGS, Model, Source, assert_tree_is

NAME = "images.test.org"
SEQUENCES = int(os.environ.get("PUBLISHER_CVMFS_SEQUENCES", "3"))


class CvmfsRemoval(directory.Removal):
    machine: Machine

    @initialize()
    def begin(self) -> None:
        directory.EXECUTED["sequences"] += 1
        self.place = Path(tempfile.mkdtemp(prefix="machine-", dir=self.folder))
        self.machine = make_machine(self.place / "machine")
        self.environment = pytest.MonkeyPatch()
        for key, value in self.machine.environment.items():
            self.environment.setenv(key, value)
        self.machine.make(NAME)
        self.root = self.machine.mount(NAME)
        self.repository: Any = self.machine.open(NAME)
        self.sources = Sources()
        self.model = Model()
        self.now = START
        self.at_source = dict.fromkeys(TAGS, 0)
        self.source.set(self.at_source)

    def teardown(self) -> None:
        if hasattr(self, "place"):
            self.repository.close()
            self.sources.close()
            self.environment.undo()
            shutil.rmtree(self.place)

    def killed(self, operation: int, act: Callable[[Any], object], after: Model) -> None:
        """Do it in a process that ends before or after its n-th call of the server."""
        directory.EXECUTED["kills"] += 1
        pid = os.fork()
        if pid == 0:
            die_around_calls(operation % 6)
            code = 1
            try:
                act(self.machine.open(NAME))
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, -signal.SIGKILL)
        with self.repository.transaction("next") as transaction, transaction.exclusive():
            pass
        if self.recorded() != self.expected(self.model):
            self.model = after

    @invariant()
    def the_tree_matches_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        directory.EXECUTED["steps"] += 1
        shown = self.place / "shown"
        subprocess.run(["cp", "-al", self.root, shown], check=True)
        for marker in shown.rglob(".cvmfscatalog"):
            marker.unlink()
        # The server's own directories stay when nothing is left in them.
        subprocess.run(
            ["find", shown, "-mindepth", "2", "-empty", "-type", "d", "-delete"], check=True
        )
        assert_tree_is(shown, self.model)
        shutil.rmtree(shown)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    yield Source(tmp_path_factory.mktemp("source") / "app")


def test_images_are_published_and_removed_as_in_the_model(tmp_path: Path, source: Source) -> None:
    CvmfsRemoval.folder = tmp_path
    CvmfsRemoval.source = source
    before = dict(directory.EXECUTED)
    run_state_machine_as_test(
        CvmfsRemoval,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=15,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # each step takes a server's time: shrinking would take hours
            suppress_health_check=list(HealthCheck),
        ),
    )
    done = {key: directory.EXECUTED[key] - before[key] for key in before}
    print(f"{done['sequences']} sequences, {done['steps']} steps, {done['kills']} kills")
    assert done["sequences"] >= SEQUENCES
