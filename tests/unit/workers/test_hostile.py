"""Hostile archives have the same result in a worker process as in this one."""

from __future__ import annotations

from pathlib import Path

from publisher.errors import PublisherError
from publisher.layers.policy import Limits, Policy
from publisher.tree import layout
from publisher.workers.pool import Workers
from tests.hostile import CORPUS, aimed_at
from tests.layer_builder import Layer, layer
from tests.sampling import sample, share
from tests.trees import Tree, describe_tree, tree_identity
from tests.worker_stages import Stages, job

_POLICY = Policy(limits=Limits(layer_bytes=10_000_000))


def test_hostile_archives_are_refused_or_unpacked_alike(
    workers: Workers, stages: Stages, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "canary").write_text("alive")
    before = describe_tree(victim), tree_identity(victim)
    for name in sample(list(CORPUS), share(0.15)):
        attack = layer(*aimed_at(CORPUS[name], str(victim)))
        here, there = (_result(each, stages, attack) for each in (Workers(0), workers))
        assert here == there, name
        assert (describe_tree(victim), tree_identity(victim)) == before, name


def _result(workers: Workers, stages: Stages, attack: Layer) -> tuple[object, Tree | str]:
    stage = stages.make()
    try:
        unpacked = workers.unpack(stage, attack.chunks(), job(attack, _POLICY))
    except PublisherError as error:
        return type(error), str(error)
    stage.finish()
    [kept] = stages.kept.iterdir()
    tree = describe_tree(kept / layout.LAYER_TREE)
    kept.rename(stages.folder / f"{kept.name}.done")
    return unpacked, tree
