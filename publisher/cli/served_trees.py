"""The repositories that `publisher serve` shows, opened as other commands open them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from publisher.cli.repositories import open_repository
from publisher.service.configuration import ServiceConfiguration
from publisher.service.jobs.command import job_environment
from publisher.service.lists import projects_by_list
from publisher.service.projects import SERVICE
from publisher.service.web.context import PublishedTree
from publisher.site.survey import Remembered
from publisher.state.store import open_state

_log = logging.getLogger(__name__)


class ServedTrees:
    """Returns the repositories of the present configuration, the same ones until it changes."""

    def __init__(self, configuration: Callable[[], ServiceConfiguration]) -> None:
        self._configuration = configuration
        self._known: dict[tuple[str, str], PublishedTree] = {}

    def __call__(self) -> Sequence[PublishedTree]:
        """Return the repositories."""
        configuration = self._configuration()
        keys = [(each.name, each.url) for each in configuration.repositories]
        if keys != list(self._known):
            state = Path(job_environment(configuration, os.environ)["PUBLISHER_STATE"])
            self._known = {key: self._known.get(key) or _tree(*key, state) for key in keys}
        return list(self._known.values())

    def project_of(self, repository: str, wish_list: str) -> str:
        """Return the project of a wish list from its identity in records; "" if it has none."""
        configuration = self._configuration()
        found = configuration.repository(repository)
        if found is None:
            return SERVICE
        return projects_by_list(found, configuration.access.projects).get(wish_list, SERVICE)


def _tree(name: str, url: str, state: Path) -> PublishedTree:
    remember = _StateOf(url, state)
    return PublishedTree(name, f"Images of {name}", lambda: open_repository(url), remember)


class _StateOf:
    """Returns what is remembered of a repository, read again when its file has changed."""

    def __init__(self, url: str, directory: Path) -> None:
        self._url = url
        self._directory = directory
        self._read: tuple[object, Remembered] | None = None

    def __call__(self) -> Remembered:
        with open_state(self._directory, self._url, writable=False, note=_log.warning) as state:
            stamp = _stamp(state.path)
            if self._read is None or self._read[0] != stamp:
                runs = state.last_runs()[:1]
                found = Remembered(state.wishes(), runs[0] if runs else None, stamp is not None)
                self._read = stamp, found
            return self._read[1]


def _stamp(path: str | os.PathLike[str]) -> object:
    """Return a value that changes with the file; None if it is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
