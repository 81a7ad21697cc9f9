"""What is measured already: one JSON file for each measurement, in the state folder."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

SPACE = 25
"""Gigabytes that the folder of the measurements may take."""


class NotEnoughSpace(Exception):
    """The disk has less free space than the measurements may use."""


@dataclass(frozen=True, slots=True)
class State:
    """The state folder. What is written there is whole: files are replaced, not overwritten."""

    folder: Path

    def load(self, name: str) -> Any:
        """Return the result of a measurement, or None if it is missing."""
        path = self._path(name)
        return json.loads(path.read_bytes())["result"] if path.exists() else None

    def documents(self) -> dict[str, Any]:
        """Return every measurement with its circumstances, by name."""
        found = sorted((self.folder / "measured").glob("*.json"))
        return {path.stem: json.loads(path.read_bytes()) for path in found}

    def measure(self, name: str, work: Callable[[], Any], *, again: bool = False) -> Any:
        """Return the result of `work`, from the file of an earlier run if there is one.

        With the result, the file has the commit, the machine, the date, the load and the seconds.
        """
        if not again and self._path(name).exists():
            progress(f"{name}: measured already")
            return self.load(name)
        progress(f"{name}: begins")
        load_before, began = os.getloadavg()[0], time.monotonic()
        result = work()
        document = {
            "result": result,
            "circumstances": {
                "commit": commit(),
                "date": datetime.now(UTC).isoformat(timespec="minutes"),
                "machine": machine(),
                "load": [round(load_before, 1), round(os.getloadavg()[0], 1)],
                "seconds": round(time.monotonic() - began),
            },
        }
        self.save(name, document)
        progress(f"{name}: {document['circumstances']['seconds']} s")
        return result

    def save(self, name: str, document: Any) -> None:
        """Write the file of a measurement."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(document, indent=1) + "\n")
        new.replace(path)

    def check_space(self, gigabytes: float) -> None:
        """Raise NotEnoughSpace unless the disk of the folder has that much, used space included."""
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free + used_bytes(self.folder)
        if free < gigabytes * 1e9:
            raise NotEnoughSpace(
                f"{self.folder} has {free / 1e9:.1f} GB, and {gigabytes:.0f} GB are needed:"
                " choose another disk with --folder"
            )

    def _path(self, name: str) -> Path:
        return self.folder / "measured" / f"{name}.json"


def used_bytes(folder: Path) -> int:
    """Return the bytes on the disk that everything below `folder` takes, links counted once."""
    done = subprocess.run(["du", "-s", "-B1", str(folder)], capture_output=True, text=True)
    return int(done.stdout.split()[0])


def commit() -> str:
    """Return the commit of the checkout, with "+" if files of it are changed."""
    done = _git("rev-parse", "--short=10", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return done + ("+" if changed else "")


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    return done.stdout.strip()


def machine() -> dict[str, str]:
    """Return what the figures depend on: processor, memory, kernel, system, Python."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": f"{os.cpu_count()} of {cpu[1] if cpu else platform.machine()}",
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": platform.release().split("-")[0],
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "python": platform.python_version(),
    }


def progress(text: str) -> None:
    """Print a line of progress."""
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)
