"""One image as it lies in an archive of `docker save`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SavedImage:
    """Its names, its config, and the names of its layers' files from bottom to top."""

    names: tuple[str, ...]
    config: bytes
    layers: tuple[str, ...]
