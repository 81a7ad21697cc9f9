from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.workers import fork_server
from publisher.workers.pool import Workers
from tests import worker_server
from tests.worker_stages import ENVIRONMENT, Stages


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Two workers of a fork server that obeys probes; the same server for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fork_server, "COMMAND", worker_server.COMMAND)
        with Workers(2, ENVIRONMENT) as opened:
            yield opened


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    """Makes stages of both forms."""
    return Stages(tmp_path)
