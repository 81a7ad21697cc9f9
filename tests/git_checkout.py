"""A checkout of a git repository with wish lists, for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SETTINGS = (
    *("-c", "user.name=test", "-c", "user.email=test@example.org"),
    *("-c", "init.defaultBranch=main", "-c", "commit.gpgSign=false"),
    *("-c", "protocol.file.allow=always"),
)


def git(folder: Path, *arguments: str) -> str:
    """Run git in `folder`; return what it printed, without the last line break."""
    done = subprocess.run(
        ["git", *_SETTINGS, "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.rstrip("\n")


def checkout(folder: Path, **files: str) -> Path:
    """Make a repository in `folder` with a first commit on the branch main."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet")
    commit_files(folder, files)
    return folder


def commit_files(folder: Path, files: dict[str, str]) -> str:
    """Write and commit files of a checkout; return the commit."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "test")
    return git(folder, "rev-parse", "HEAD")
