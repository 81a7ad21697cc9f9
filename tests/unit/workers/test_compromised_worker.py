"""A real worker process that its layer has taken over: what it tries is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from publisher.layers.errors import LayerError
from publisher.layers.policy import Limits as LayerLimits
from publisher.layers.policy import Policy
from publisher.workers.pool import Workers
from publisher.workers.worker import ADDRESS_SPACE, OPEN_FILES
from tests.attacked import Limits, attacked_by, listening, metadata
from tests.components import require_root
from tests.compromised import ATTEMPTS, permitted
from tests.layer_builder import file, layer
from tests.worker_stages import Stages, job

FILE_SIZE = 2**20


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
