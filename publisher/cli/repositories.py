"""Opening the repository that a command works on."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.cli.failures import UsageError
from publisher.cli.rendering import message
from publisher.durations import DEFAULT_WAIT
from publisher.errors import PublisherError
from publisher.repository import Repository
from publisher.sizes import parse_size
from publisher.tree.layout import RepositoryURL

if TYPE_CHECKING:
    from publisher.workers.pool import Workers

MANY_WORKERS = 4
"""With so many workers, this process would be slower than they are if it linked all images."""


def open_repository(
    text: str | None,
    *,
    writable: bool = False,
    may_be_new: bool = False,
    wait: float = DEFAULT_WAIT,
    verify: bool = False,
    workers: Workers | None = None,
    stop: threading.Event | None = None,
) -> Repository:
    """Return the repository that a URL names; raise UsageError if none was given.

    `may_be_new`: accept a directory in which publishing creates a repository, or would create one.
    `verify` asks a CVMFS repository to read back what it publishes. `workers` read the staged
    layers that are published, or link flat images; without them, this process does. `stop` ends
    waiting for others.
    """
    url = parse_repository(text)
    if url.kind == "cvmfs":
        # Each backend is loaded if it is used: both are long to load.
        from publisher.repository.cvmfs.kept import default_limit
        from publisher.repository.cvmfs.places import CONFIGURATION, STATE
        from publisher.repository.cvmfs.repository import CvmfsRepository
        from publisher.repository.cvmfs.spool import DEFAULT_LIMIT

        return CvmfsRepository(
            url,
            writable=writable,
            wait=wait,
            on_wait=message,
            stop=stop,
            verify=verify,
            spool=_size("PUBLISHER_SPOOL_LIMIT", DEFAULT_LIMIT),
            memory=_size("PUBLISHER_SPOOL_MEMORY", default_limit()),
            state=Path(os.environ.get("PUBLISHER_STATE", STATE)),
            configuration=Path(os.environ.get("PUBLISHER_CVMFS_CONFIGURATION", CONFIGURATION)),
            read_contents=workers.read_contents if workers is not None else None,
        )
    from publisher.repository.directory.repository import DirectoryRepository

    return DirectoryRepository(
        url,
        writable=writable,
        may_be_new=may_be_new,
        wait=wait,
        on_wait=message,
        stop=stop,
        link=workers.link if workers is not None and workers.count >= MANY_WORKERS else None,
    )


def whole_url(text: str) -> str:
    """Return the URL of a repository, the same for every way to write the path of a directory."""
    url = parse_repository(text)
    return f"dir:{os.path.abspath(url.location)}" if url.kind == "dir" else str(url)


def parse_repository(text: str | None) -> RepositoryURL:
    """Return the URL of a repository; raise UsageError if it is missing or malformed."""
    if not text:
        raise UsageError(
            "no repository was given",
            hint="use --repository dir:/srv/images, or set PUBLISHER_REPOSITORY",
        )
    try:
        return RepositoryURL.parse(text)
    except PublisherError as error:
        raise UsageError(error.what, why=error.why, hint=error.hint) from error


def _size(variable: str, default: int) -> int:
    """Return the size in bytes that an environment variable has."""
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    try:
        return int(text) if text.isdecimal() else parse_size(f"{text.removesuffix('B')}B")
    except ValueError as error:
        raise UsageError(
            f"cannot use {variable}",
            why=f"{text!r} is not a size",
            hint="write bytes, or 500M, 20GB, 256MiB",
        ) from error
