"""A host ends the transactions of CVMFS that its commands left open when they were killed.

The next command that writes to the repository on this host does so, too. But it may run on another
host, which the lease of such a transaction keeps waiting.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from publisher.repository.cvmfs.mirror import command_note
from publisher.service.configuration import ServiceConfiguration
from publisher.service.jobs.child import Child
from publisher.service.jobs.command import job_environment
from publisher.service.jobs.output import Output

_log = logging.getLogger(__name__)

_LINES = 100


class Interrupted:
    """Looks for interrupted commands on this host, whose environment is `environment`."""

    def __init__(self, environment: Mapping[str, str], stopping: threading.Event) -> None:
        self._environment = environment
        self._stopping = stopping
        self._seen: dict[str, int] = {}
        self._is_first = True

    def recover(self, configuration: ServiceConfiguration) -> None:
        """End what was left open: by an earlier process of the host, or since the last call.

        A note that is new since the last call is that of a command which may still run.
        """
        variables = job_environment(configuration, self._environment)
        notes = {
            each.url: command_note(Path(variables["PUBLISHER_STATE"]) / each.cvmfs_name)
            for each in configuration.repositories
            if each.cvmfs_name
        }
        present = {url: found for url, path in notes.items() if (found := _written(path))}
        for url, written in present.items():
            if self._is_first or self._seen.get(url) == written:
                self._run(url, variables, configuration.state)
        self._seen, self._is_first = present, False

    def _run(self, url: str, variables: Mapping[str, str], directory: Path) -> None:
        # A process of its own: it has the signals of commands, and ends if this one dies.
        program = [sys.executable, "-P", "-m", "publisher.cli.recovery", url]
        output = Output("recovery", _LINES)
        code = Child(program, variables, directory, output).wait(self._stopping.is_set)
        if code:
            lines = " ".join(str(each["message"]) for each in output.take())
            _log.warning("a transaction of %s may still be open: %s", url, lines)


def _written(note: Path) -> int:
    """Return when a note was written; 0 without one."""
    try:
        return note.stat().st_mtime_ns
    except OSError:
        return 0
