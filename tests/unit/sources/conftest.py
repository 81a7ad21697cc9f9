from __future__ import annotations

from collections.abc import Iterator

import pytest

from publisher.sources.open import Sources
from tests.registry import OwnRegistry
from tests.registry_images import fast_sources


@pytest.fixture
def registry() -> Iterator[OwnRegistry]:
    with OwnRegistry() as registry:
        yield registry


@pytest.fixture
def sources() -> Iterator[Sources]:
    with fast_sources() as sources:
        yield sources
