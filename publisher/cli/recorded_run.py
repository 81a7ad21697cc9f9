"""The record of a run, in the state of each of its repositories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import TracebackType

from publisher.cli.failures import DONE, code_of
from publisher.cli.rendering import message
from publisher.cli.repositories import parse_repository
from publisher.cli.state import open_state, state_directory
from publisher.errors import PublisherError, presentable
from publisher.ingest.report import Report
from publisher.sources.wish_lists import list_identity
from publisher.state import RunRecord, State
from publisher.state.overlap import only_run


class RecordedRun:
    """A run of a command, which at its end is recorded in the state of each of its repositories.

    Args:
        command: The name of the command.
        lists: The wish lists, as they are named on the command line.
    """

    def __init__(self, command: str, lists: Sequence[str] = ()) -> None:
        self._command = command
        self._lists = tuple(map(_identity, lists))
        self._started = datetime.now(UTC)
        self._states: dict[str | None, State] = {}
        self._reports: dict[str | None, Report] = {}
        self._lists_of: dict[str | None, tuple[str, ...]] = {}
        self.exit_code = DONE

    @property
    def lists(self) -> tuple[str, ...]:
        """The identities of the wish lists."""
        return self._lists

    @property
    def states(self) -> Mapping[str | None, State]:
        """The states that the run has opened, by the URLs of their repositories."""
        return self._states

    def state(self, url: str | None) -> State:
        """Return the state of a repository, opened for writing."""
        if url not in self._states:
            self._states[url] = open_state(url, writable=True)
        return self._states[url]

    def done(self, url: str | None, report: Report, lists: Sequence[str]) -> None:
        """Add the report on a repository, and the identities of the lists that name it."""
        self._reports[url] = report
        self._lists_of[url] = tuple(dict.fromkeys(lists))

    def alone(self, works: Iterable[tuple[str | None, str]]) -> AbstractContextManager[None]:
        """Exclude other runs of the same lists for the same repositories.

        Raises:
            OtherRun: There is one.
        """
        named = [(parse_repository(url), identity) for url, identity in works if identity]
        return only_run(state_directory(), named, message)

    def __enter__(self) -> RecordedRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        code = self.exit_code if error is None else code_of(error)
        text = "" if error is None else " ".join(str(error).split()) or type(error).__name__
        for url, state in self._states.items():
            report = self._reports.get(url) or Report((), 0.0)
            state.add_run(
                RunRecord(
                    self._started,
                    datetime.now(UTC),
                    self._command,
                    self._lists_of.get(url, self._lists),
                    code,
                    Counter(str(outcome.status) for outcome in report.outcomes),
                    sum(outcome.bytes_fetched for outcome in report.outcomes),
                    report.steps,
                    text,
                )
            )
            state.close()


def _identity(path: str) -> str:
    try:
        return list_identity(path)
    except PublisherError:
        return presentable(path)  # it cannot be read, and may contain a password
