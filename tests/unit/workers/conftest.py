from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.workers.pool import Workers
from tests.worker_stages import Stages, probed_workers


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Two workers of a fork server that obeys probes; the same server for all tests."""
    with probed_workers() as opened:
        yield opened


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    """Makes stages of both forms."""
    return Stages(tmp_path)
