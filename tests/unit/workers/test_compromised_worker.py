"""A real worker process that its layer has taken over: what it tries is refused."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
from pathlib import Path

import pytest

from publisher.layers.errors import LayerError
from publisher.layers.policy import Limits as LayerLimits
from publisher.layers.policy import Policy
from publisher.sandbox import Measure
from publisher.workers import fork_server
from publisher.workers.errors import WorkerEnded
from publisher.workers.pool import Workers
from publisher.workers.surroundings import ADDRESS_SPACE, OPEN_FILES
from tests import worker_server
from tests.attacked import Limits, attacked_by, listening, metadata
from tests.components import require_root
from tests.compromised import ATTEMPTS, permitted
from tests.confined import in_a_child, lacking
from tests.layer_builder import (
    character_device,
    directory,
    fifo,
    file,
    hardlink,
    layer,
    opaque,
    symlink,
    whiteout,
)
from tests.trees import assert_same_tree
from tests.worker_stages import ENVIRONMENT, Stages, job, unpack

FILE_SIZE = 2**20
ALL_KINDS = layer(
    directory("d", 0o2755, uid=5),
    file("d/f", b"content", uid=6),
    symlink("d/s", "/etc/passwd"),
    hardlink("d/h", "d/f"),
    fifo("p", mode=0o622),
    whiteout("gone"),
    opaque("d"),
)


def test_nothing_that_a_worker_tries_while_it_unpacks_a_layer_succeeds(
    workers: Workers, stages: Stages, tmp_path: Path
) -> None:
    require_root()
    policy = Policy(limits=LayerLimits(layer_bytes=FILE_SIZE, layer_apparent_bytes=FILE_SIZE))
    hostile = layer(file("f", b"content"))
    limits = Limits(FILE_SIZE, ADDRESS_SPACE, OPEN_FILES)
    with listening(tmp_path) as sockets:
        target = attacked_by(os.geteuid(), tmp_path / "outside", sockets, limits)
        before = metadata(target)
        stage = stages.probe("attack", target.to_json())
        with pytest.raises(LayerError) as raised:
            workers.unpack(stage, hostile.chunks(), job(hostile, policy))
        assert metadata(target) == before
    results = json.loads(raised.value.why)
    assert results.keys() == ATTEMPTS.keys()
    assert permitted(results) == set()


@pytest.mark.parametrize(
    "lacks", [*((each,) for each in Measure), tuple(Measure)], ids=lambda lacks: ", ".join(lacks)
)
def test_layers_are_unpacked_on_machines_that_lack_measures(
    lacks: tuple[Measure, ...], tmp_path: Path
) -> None:
    """The tree is that of this process, with every kind of entry."""
    require_root()
    stages = Stages(tmp_path)
    expected, stage = stages.make(), stages.make()
    unpack(Workers(0), expected, ALL_KINDS)

    def unpack_there(writer: int) -> None:
        for measure in lacks:
            lacking(measure)
        log = logging.getLogger("publisher")
        log.setLevel(logging.DEBUG)
        with os.fdopen(writer, "w", closefd=False) as file, Workers(1, ENVIRONMENT) as workers:
            log.addHandler(logging.StreamHandler(file))
            unpack(workers, stage, ALL_KINDS)

    logged = in_a_child(unpack_there)
    assert f"was not confined by: {', '.join(lacks)}\n" in logged
    assert_same_tree(stage.place.tree, expected.place.tree, directory_times=True)


@pytest.mark.parametrize("word", ["multiply", "kill_after_multiplying"])
def test_what_a_worker_has_started_ends_with_it_where_system_calls_are_not_filtered(
    word: str, tmp_path: Path
) -> None:
    require_root()
    stage = Stages(tmp_path).probe(word)

    def unpack_there(writer: int) -> None:
        lacking(Measure.SYSTEM_CALLS)
        fork_server.COMMAND = worker_server.COMMAND
        with Workers(1, ENVIRONMENT) as workers:
            try:
                unpack(workers, stage, ALL_KINDS)
            except WorkerEnded as error:
                assert error.status == -signal.SIGKILL and word != "multiply"
            pids = (stage.place.directory / "pids").read_text().split()
            left = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
            # The server still works.
            unpack(workers, Stages(tmp_path / "again").make(), ALL_KINDS)
        os.write(writer, json.dumps([len(pids), left]).encode())

    (tmp_path / "again").mkdir()
    assert json.loads(in_a_child(unpack_there)) == [4, []]


def test_what_the_policy_keeps_is_kept_in_a_confined_process(
    workers: Workers, stages: Stages
) -> None:
    require_root()
    policy = Policy(setuid="keep", devices="keep")
    capability = bytes.fromhex("0100000280000000" + "00" * 12)
    kept = layer(
        file("set-user-ID", b"x", mode=0o6755, uid=5),
        file("capable", b"x", xattrs={"security.capability": capability}),
        character_device("null"),
    )
    trees = []
    for each in (Workers(0), workers):
        stage = stages.make()
        assert each.unpack(stage, kept.chunks(), job(kept, policy)).refused == {}
        trees.append(stage.place.tree)
    assert_same_tree(*trees)
    status = (trees[1] / "set-user-ID").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o6755, 5)
    assert os.getxattr(trees[1] / "capable", "security.capability") == capability
    assert stat.S_ISCHR((trees[1] / "null").stat().st_mode)
