"""Distinguish the files of a flat image: those of its layers, and those added for runtimes."""

from __future__ import annotations

import os
from pathlib import Path

from publisher.oci.config import ContainerConfig
from publisher.runtimes.flat_files import runtime_files

_PATHS = [generated.entry.path for generated in runtime_files(ContainerConfig())]


def generated_paths(layers: Path) -> list[str]:
    """The paths that a flat image has beyond its layers, which `layers` shows (a mount of them).

    Exactly those of the runtimes' files that no layer has: all others must be those of the layers.
    """
    return [path for path in _PATHS if not os.path.lexists(layers / path)]
