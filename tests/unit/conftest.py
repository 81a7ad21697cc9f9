"""Shared by all tests of the first two rings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.command import forking_commands


@pytest.fixture(scope="package", autouse=True)
def _forking_commands() -> Iterator[None]:
    """Commands are forked, not started: most tests only look at their results."""
    with forking_commands():
        yield
