"""Adds man pages and completion scripts to the wheel, if `make dist` has made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SharedFiles(BuildHookInterface):  # type: ignore[type-arg]
    """Adds what is in build/share, which is installed in share/ of the environment."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name each file; hatchling calls this before it builds."""
        share = Path(self.root, "build/share")
        build_data["shared_data"] |= {
            str(path): f"share/{path.relative_to(share)}"
            for path in sorted(share.rglob("*"))
            if path.is_file()
        }
