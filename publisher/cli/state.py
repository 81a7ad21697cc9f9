"""Where the state is that the runs of this user keep, or that a command reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.cli.rendering import message
from publisher.cli.repositories import parse_repository
from publisher.repository.cvmfs.places import STATE
from publisher.tree.layout import RepositoryURL

if TYPE_CHECKING:
    from publisher.state.store import State

_OF_A_USER = "publisher"


def state_directory() -> Path:
    """Return the directory of what this user's runs remember."""
    if named := os.environ.get("PUBLISHER_STATE"):
        return Path(named)
    if os.geteuid() == 0:
        return STATE
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    # A user without a home directory, as in a container, can write nowhere: that is then noted.
    return Path(base, _OF_A_USER) if os.path.isabs(base) else STATE


def keeps_state(url: str | None) -> bool:
    """Return whether this user's runs keep a state of the repository, and can change it.

    Either it exists, or its directory is that of the machine's scheduled jobs.
    """
    from publisher.state.database import state_file

    directory = state_directory()
    path = state_file(directory, parse_repository(url))
    # os.path.exists: the state may be in a directory that this user may not search.
    if os.path.exists(path):
        return os.access(path, os.W_OK) and os.access(directory, os.W_OK)
    is_meant = bool(os.environ.get("PUBLISHER_STATE")) or os.geteuid() == 0
    existing = next(each for each in (directory, *directory.parents) if os.path.exists(each))
    return is_meant and os.access(existing, os.W_OK)


def open_state(
    url: str | None, *, writable: bool = False, note: Callable[[str], None] = message
) -> State:
    """Return what is remembered about a repository; raise UsageError if none was given.

    To be read, it is that of the scheduled runs of this machine if this user has none. `note`
    receives a sentence about each problem.
    """
    from publisher.state.database import state_file
    from publisher.state.store import open_state as open_state_in

    parsed = parse_repository(url)
    directory = state_directory()
    own = state_file(directory, parsed)
    if not (writable or os.environ.get("PUBLISHER_STATE") or os.path.exists(own)):
        directory = STATE
    return open_state_in(directory, parsed, writable=writable, note=note)


def user_cache(url: RepositoryURL, subject: str) -> Path | None:
    """Return the file of this user in which commands keep what they read of a repository's images.

    It is None for a user without a home directory.

    Args:
        url: The repository.
        subject: What the file has: "packages" or "contents".
    """
    from publisher.state.database import state_file

    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(base):
        return None
    return Path(base, _OF_A_USER, subject, state_file(Path(), url).name)
