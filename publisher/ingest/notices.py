"""Notices about what the file system of a repository cannot store: one per kind and run."""

from __future__ import annotations

import threading

from publisher.ingest.report import Progress
from publisher.tree.layout import RepositoryURL

_CONSEQUENCES = {
    "hard link": "such files of flat images are copies of those in the layers, and take "
    "additional space",
    "whiteout": "runtimes that mount layers will see files that upper layers deleted; flat images "
    "are complete",
    "opaque": "runtimes that mount layers will see files that upper layers deleted; flat images "
    "are complete",
    "xattr": "published files do not have it",
}


class Notices:
    """Passes one notice per kind to `progress`. Safe to use from several threads."""

    def __init__(self, url: RepositoryURL, progress: Progress) -> None:
        self._url = url
        self._progress = progress
        self._noticed: set[str] = set()
        self._lock = threading.Lock()

    def refused(self, kind: str) -> None:
        """Report that the file system cannot store this kind, such as "hard link (EMLINK)"."""
        with self._lock:
            if kind in self._noticed:
                return
            self._noticed.add(kind)
        for word, consequence in _CONSEQUENCES.items():
            if kind.startswith(word):
                self._progress.notice(
                    f"the file system of {self._url} refused a {kind}: {consequence}"
                )
