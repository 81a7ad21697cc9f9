"""Loads the whole package in a process that forks commands, so that no child has to."""

from __future__ import annotations

import importlib
import pkgutil

import publisher

_LATE = (
    *("ctypes", "filelock", "packaging.specifiers", "packaging.version"),
    *("subprocess", "tempfile", "urllib.request"),
)
"""Modules of others that the package loads when it needs them."""

_OF_EXTRAS = ("publisher.snapshotter",)


def load_package() -> None:
    """Load all modules but those that need an extra, and what they load late."""
    for module in pkgutil.walk_packages(publisher.__path__, "publisher."):
        if not module.name.startswith((*_OF_EXTRAS, "publisher.__main__")):
            importlib.import_module(module.name)
    for name in _LATE:
        importlib.import_module(name)
