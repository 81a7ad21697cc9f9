"""The engines of the Debian releases that `tests/engines.sh` installs."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Release:
    """The beginnings of the engines' versions; which configuration is that of its containerd."""

    docker: str
    containerd: str
    podman: str
    configuration: str


RELEASES = {
    "sid": Release("28.", "2.", "5.", "containerd-3"),
    "trixie": Release("26.1.", "1.7.", "5.4.", "containerd-2"),
}

HERE = RELEASES[os.environ.get("PUBLISHER_TEST_ENGINES", "sid")]
"""The release in which the tests run."""
