"""Fixtures that tests of several modules share."""

from __future__ import annotations

import pytest

from tests.real_image import RealImages, build_real_images


@pytest.fixture(scope="session")
def real_images() -> RealImages:
    """Debian, Python and numpy as images; see tests/real_image.py."""
    return build_real_images()
