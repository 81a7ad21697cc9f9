from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from publisher.ingest import Report, Request, ingest
from publisher.layout import RepositoryURL
from publisher.repository.directory import DirectoryRepository
from publisher.wishlist import wish_for
from tests.registry_images import fast_sources

IngestAll = Callable[..., Report]


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[DirectoryRepository]:
    url = RepositoryURL("dir", str(tmp_path / "images"))
    repository = DirectoryRepository(url, writable=True)
    yield repository
    repository.close()


@pytest.fixture
def ingest_all(repository: DirectoryRepository) -> IngestAll:
    """Publish the images that are named, as one run."""

    def run(*images: str, **options: object) -> Report:
        with fast_sources() as sources:
            requests = [Request(wish_for(image)) for image in images]
            return ingest(requests, repository, sources, **options)  # type: ignore[arg-type]

    return run
