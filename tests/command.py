"""Runs the real `publisher` command as a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The result document of a command that was called with --output json."""
        return json.loads(self.out)


def command(*arguments: str | Path) -> list[str]:
    """The words of a `publisher` command."""
    return [sys.executable, "-m", "publisher", *map(str, arguments)]


def environment(home: Path | None = None, **more: str) -> dict[str, str]:
    """An environment without the developer's own settings and credentials."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    return {**kept, "HOME": str(home or "/nonexistent"), **more}


def publisher(
    *arguments: str | Path,
    cwd: Path | None = None,
    home: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str = "",
) -> Result:
    """Run `publisher` to its end."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(home, **(env or {})),
        input=input,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def succeed(*arguments: str | Path, **options: Any) -> Result:
    """Run `publisher`, which must end with 0."""
    result = publisher(*arguments, **options)
    assert result.code == 0, f"exit {result.code}\n{result.out}\n{result.err}"
    return result
