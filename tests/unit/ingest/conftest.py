from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from publisher.ingest.report import Report
from publisher.ingest.run import ingest
from publisher.repository import Repository
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.any_repository import KINDS, environment_of, make_repository
from tests.registry_images import fast_sources

IngestAll = Callable[..., Report]


@pytest.fixture(params=KINDS)
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repository]:
    made = make_repository(request.param, tmp_path)
    with environment_of(made):
        repository = made.open()
        yield repository
        repository.close()


@pytest.fixture
def ingest_all(repository: Repository) -> IngestAll:
    """Publish the images that are named, as one run."""

    def run(*images: str, **options: object) -> Report:
        with fast_sources() as sources:
            requests = [Request(wish_for(image)) for image in images]
            return ingest(requests, repository, sources, **options)  # type: ignore[arg-type]

    return run
