"""The output of the demo: headings, commands with their output, trees, and verified claims."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

PUBLISHER = Path(sys.executable).with_name("publisher")
FOLDED = {".singularity.d": "what Apptainer needs", ".publisher": "the publisher's own state"}
HIDDEN = (".exec", ".run", ".shell", ".test", "environment", "singularity")  # links into the first
_HEX = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


class DemoError(Exception):
    """A claim of the demo does not hold."""


def explain(text: str) -> None:
    """Print a paragraph."""
    print(textwrap.fill(" ".join(text.split()), 96) + "\n", flush=True)


def heading(text: str) -> None:
    """Begin a step."""
    print(f"\n\033[1m{text}\033[0m\n" if sys.stdout.isatty() else f"\n=== {text}\n", flush=True)


def check(truth: bool, claim: str) -> None:
    """Print a claim that was verified, or end the demo."""
    if not truth:
        raise DemoError(f"this should hold, but does not: {claim}")
    print(f"  verified: {claim}", flush=True)


def publisher(*arguments: str) -> str:
    """Run the real command in the current directory, as a user would; returns what it printed."""
    print(f"$ publisher {' '.join(arguments)}", flush=True)
    environment = {k: v for k, v in os.environ.items() if k != "PUBLISHER_REPOSITORY"}
    done = subprocess.run(
        [PUBLISHER, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )
    print(short(done.stdout), flush=True)
    if done.returncode != 0:
        raise DemoError(f"publisher {arguments[0]} ended with exit code {done.returncode}")
    return done.stdout


def file(path: Path) -> None:
    """Show a text file."""
    print(f"$ cat {path}\n{short(path.read_text()).rstrip()}\n", flush=True)


def short(text: str) -> str:
    """Return the text with digests cut to twelve digits, to keep lines readable."""
    return _HEX.sub(r"\1…", text)


def tree(top: Path) -> None:
    """Show what is below `top`; directories with a single entry share its line."""
    print(f"{top}/")
    _branch(top, "")
    print(flush=True)


def _branch(directory: Path, indent: str) -> None:
    entries = sorted(entry for entry in directory.iterdir() if entry.name not in HIDDEN)
    for number, entry in enumerate(entries, 1):
        last = number == len(entries)
        name = entry.name
        if name in FOLDED:
            print(f"{indent}{'└── ' if last else '├── '}{name}/   ({FOLDED[name]})")
            continue
        while _is_directory(entry) and len(list(entry.iterdir())) == 1:
            (entry,) = entry.iterdir()
            name += f"/{entry.name}"
        print(short(f"{indent}{'└── ' if last else '├── '}{name}{_what(entry)}"))
        if _is_directory(entry):
            _branch(entry, indent + ("    " if last else "│   "))


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _what(path: Path) -> str:
    if path.is_symlink():
        return f" -> {path.readlink()}"
    if path.is_dir():
        return "/"
    if path.is_char_device():
        return "   (whiteout: deletes the name below)"
    links = path.stat().st_nlink
    return f"   ({links} links)" if links > 1 else ""
