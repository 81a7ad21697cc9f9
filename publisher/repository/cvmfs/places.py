"""The directories of a machine that publishes to CVMFS."""

from __future__ import annotations

from pathlib import Path

CONFIGURATION = Path("/etc/cvmfs/repositories.d")

STATE = Path("/var/lib/publisher")
"""The default directory of the metadata mirrors of all repositories."""
