"""Stages of layers without a repository, and the processes of workers."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from publisher.layers.policy import Policy
from publisher.repository.cvmfs.kept import DEFAULT_LIMIT, KeptLayers
from publisher.repository.cvmfs.layer_stage import CvmfsLayerStage
from publisher.repository.cvmfs.spool import StagedLayer
from publisher.repository.directory.layer_stage import DirectoryLayerStage
from publisher.workers import fork_server
from publisher.workers.job import Job, Unpacked
from publisher.workers.pool import Workers
from tests import worker_server
from tests.layer_builder import Layer

ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1])}
"""The environment of workers of tests/worker_server.py."""


@contextmanager
def probed_workers(count: int = 2) -> Iterator[Workers]:
    """Workers of tests/worker_server.py, which obey probes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fork_server, "COMMAND", worker_server.COMMAND)
        with Workers(count, ENVIRONMENT) as opened:
            yield opened


Stage = DirectoryLayerStage | CvmfsLayerStage


class Stages:
    """Makes stages in `folder`; each is kept below `kept` when it is finished."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = folder / "kept"
        self.kept.mkdir()
        self._numbers = itertools.count()
        self.memory = KeptLayers(DEFAULT_LIMIT)

    def make(self, form: str = "tree") -> Stage:
        name = str(next(self._numbers))
        directory, kept = self.folder / name, self.kept / name
        if form == "tree":
            return DirectoryLayerStage(directory, kept, "the layer")
        staged = StagedLayer(kept, self.kept / f"{name}-blob")
        return CvmfsLayerStage(directory, staged, "the layer", self.memory)

    def probe(self, *words: str) -> Stage:
        """A stage whose worker calls a function of tests/worker_server.py."""
        stage = self.make()
        (stage.place.directory / "probe").write_text(json.dumps(words))
        return stage


def job(layer: Layer, policy: Policy | None = None, *, tar_split: bool = False) -> Job:
    return Job(layer.descriptor, layer.diff_id, policy or Policy(), tar_split)


def unpack(workers: Workers, stage: Stage, layer: Layer) -> Unpacked:
    return workers.unpack(stage, layer.chunks(), job(layer))


def server_pid(workers: Workers) -> int:
    running = workers._server._running
    assert running is not None
    return running[1].pid


def children(pid: int) -> list[int]:
    """The processes that `pid` started, zombies too."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descriptors() -> list[str]:
    """What this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue  # that of the listing itself
    return sorted(each.partition(":")[0] for each in found)
