"""Fixtures that tests of several modules share."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.real_image import RealImages, build_real_images

# How long an example takes says more about what else the machine does than about the program.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")


@pytest.fixture(scope="session")
def real_images() -> RealImages:
    """Debian, Python and numpy as images; see tests/real_image.py."""
    return build_real_images()
