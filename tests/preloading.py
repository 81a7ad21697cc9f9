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

_OF_SERVICES = (
    *("publisher.snapshotter.", "publisher.service."),
    *("publisher.cli.serve.", "publisher.cli.service_process.", "publisher.cli.worker."),
)
"""What only commands that run as services load: all others would be forked with its memory too."""


def load_package() -> None:
    """Load all modules but those of services, and what they load late."""
    for module in pkgutil.walk_packages(publisher.__path__, "publisher."):
        if not f"{module.name}.".startswith((*_OF_SERVICES, "publisher.__main__.")):
            importlib.import_module(module.name)
    for name in _LATE:
        importlib.import_module(name)
