"""Which files may have secrets: those that their owner alone can read. Pure."""

from __future__ import annotations

import os
import stat


def is_exposed(status: os.stat_result) -> bool:
    """Return whether users other than its owner may read or change a file."""
    return bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO))
