"""Loads the whole package in a process that forks commands, so that no child has to."""

from __future__ import annotations

import gc
import importlib
import pkgutil

import publisher
from publisher.codec import Codec
from publisher.lazy import _Initializer, _Pattern

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

_OF_POLICIES = ("publisher.ingest.identities.",)
"""What only commands with a policy about identities load: a quarter of the memory, by sigstore."""


def load_package() -> None:
    """Load all modules but those that few commands load, and what they load late."""
    left_out = (*_OF_SERVICES, *_OF_POLICIES, "publisher.__main__.")
    for module in pkgutil.walk_packages(publisher.__path__, "publisher."):
        if not f"{module.name}.".startswith(left_out):
            importlib.import_module(module.name)
    for name in _LATE:
        importlib.import_module(name)
    _compile_what_is_lazy()


def _compile_what_is_lazy() -> None:
    """Do once what each child would do again: compile patterns, and the methods of records."""
    for each in gc.get_objects():
        kind = type(each)
        if kind is Codec:
            each._coder  # noqa: B018
        elif kind is _Pattern:
            each.match  # noqa: B018
        elif issubclass(kind, type) and isinstance(vars(each).get("__init__"), _Initializer):
            each.__init__  # noqa: B018
            each.__dataclass_fields__  # noqa: B018
