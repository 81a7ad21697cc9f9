"""Shared by the tests of real components."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.command import forking_commands


@pytest.fixture(scope="package", autouse=True)
def _forking_commands() -> Iterator[None]:
    """Commands are forked, not started: the components are real, and see no difference."""
    with forking_commands():
        yield
