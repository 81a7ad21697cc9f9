"""What a filesystem would not store as it should be, said once a run and in words."""

from __future__ import annotations

import threading

from publisher.ingest.report import Progress
from publisher.tree.layout import RepositoryURL

_CONSEQUENCES = {
    "hard link": "such files of flat images are copies of those in the layers, and take space of "
    "their own",
    "whiteout": "runtimes that mount layers will see files that upper layers deleted; flat images "
    "are right",
    "opaque": "runtimes that mount layers will see files that upper layers deleted; flat images "
    "are right",
    "xattr": "published files are without it",
}


class Notices:
    """Tells `progress` of each kind once. Safe to use from several threads."""

    def __init__(self, url: RepositoryURL, progress: Progress) -> None:
        self._url = url
        self._progress = progress
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def refused(self, kind: str) -> None:
        """The filesystem refused something of this kind, such as "hard link (EMLINK)"."""
        with self._lock:
            if kind in self._said:
                return
            self._said.add(kind)
        for word, consequence in _CONSEQUENCES.items():
            if kind.startswith(word):
                self._progress.notice(
                    f"the filesystem of {self._url} refused a {kind}: {consequence}"
                )
