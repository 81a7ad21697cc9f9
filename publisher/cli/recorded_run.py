"""The record of a run: in the state of each of its repositories, in messages, and in metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import field
from types import TracebackType
from typing import TYPE_CHECKING

import click

from publisher.cli.failures import DONE, OTHER_RUN, code_of
from publisher.cli.metrics import MetricsFile
from publisher.cli.notifications import Notifier
from publisher.cli.rendering import message
from publisher.cli.repositories import parse_repository
from publisher.cli.state import keeps_state, open_state, state_directory
from publisher.error_values import error_kind
from publisher.errors import PublisherError, failure_text, presentable
from publisher.lazy import dataclass
from publisher.state import RunRecord
from publisher.times import utc_now

if TYPE_CHECKING:  # most runs have neither receivers nor a file with metrics
    from publisher.metrics.families import Update
    from publisher.notify import Event
    from publisher.state.store import State

Updates = Callable[[str, float], "Iterable[Update]"]
"""Returns metrics, from the URL with the whole path and the seconds since the command began."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run did in one repository.

    Attributes:
        counts: How many images, or findings, had each outcome.
        lists: The identities of the wish lists that name the repository; by default those of the
            run.
        bytes_fetched: The layers as downloaded, in bytes.
        seconds: The time of each step, summed over all images.
        codes: The exit codes of lists that differ from that of the run.
    """

    counts: Mapping[str, int]
    lists: tuple[str, ...] | None = None
    bytes_fetched: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    codes: Mapping[str, int] = field(default_factory=dict)


class RecordedRun:
    """A run of a command, which is recorded at its end, also if an error ends it.

    The error is in the state, receivers are notified of it once, and the metrics have the exit
    code.

    Args:
        command: The name of the command.
        lists: The wish lists, as they are named on the command line.
        notifier: Sends the messages; by default there are none.
        metrics: Where the metrics go; by default nowhere.
        scope: What problems are about alone, such as an option; by default the wish lists.
        only_reads: The command changes nothing. Its runs are then recorded if this user keeps a
            state already: otherwise that would replace the state of the scheduled jobs, which
            `publisher status` shows.
        dry_run: Record nothing, and send nothing.
    """

    def __init__(
        self,
        command: str,
        lists: Sequence[str] = (),
        *,
        notifier: Notifier | None = None,
        metrics: MetricsFile | None = None,
        scope: Sequence[str] | None = None,
        only_reads: bool = False,
        dry_run: bool = False,
    ) -> None:
        self._command = command
        self._lists = tuple(map(identity_of, lists))
        self._notifier = notifier or Notifier(None)
        self._metrics = metrics or MetricsFile(None)
        self._scope = self._lists if scope is None else tuple(scope)
        self._only_reads = only_reads
        self._dry_run = dry_run
        self._started = utc_now()
        self._states: dict[str | None, State | None] = {}
        self._results: dict[str | None, Result] = {}
        self._updates: dict[str | None, Updates] = {}
        self._error: Exception | None = None
        self.exit_code = DONE

    @property
    def lists(self) -> tuple[str, ...]:
        """The identities of the wish lists."""
        return self._lists

    @property
    def notifies(self) -> bool:
        """Whether there are receivers of notifications."""
        return self._notifier.is_active

    def begin(self, url: str | None) -> None:
        """Name a repository that the run works on, before anything can fail because of it."""
        if url in self._states or self._dry_run:
            return
        is_kept = not self._only_reads or self._notifier.is_active or keeps_state(url)
        self._states[url] = open_state(url, writable=True) if is_kept else None

    def state(self, url: str | None) -> State:
        """Return the state of a repository, opened for writing, for a command that changes it."""
        self.begin(url)
        state = self._states[url]
        assert state is not None
        return state

    def done(self, url: str | None, result: Result, updates: Updates | None = None) -> None:
        """Add what the run did in a repository, and its metrics, which are written at the end."""
        self.begin(url)
        if self._dry_run:
            return
        self._results[url] = result
        if updates is not None:
            self._updates[url] = updates

    def end_by(self, error: Exception) -> None:
        """Name the error that ends the run, if it is not raised: the command prints it itself."""
        self._error = error

    def notify(
        self,
        url: str | None,
        events: Iterable[Event],
        problems: Sequence[Event],
        *,
        at_end: bool = False,
    ) -> None:
        """Notify the receivers of the changes, and of problems that they do not know yet.

        With `at_end`, the messages are only kept, for example since the run was interrupted.
        """
        if self._dry_run:
            return
        self._notifier.send(
            url,
            self._command,
            events,
            problems=problems,
            scope=self._scope,
            state=self._states.get(url),
            at_end=at_end,
        )

    def alone(self, works: Iterable[tuple[str | None, str]]) -> AbstractContextManager[None]:
        """Exclude other runs of the same lists for the same repositories.

        Raises:
            OtherRun: There is one.
        """
        from publisher.state.overlap import only_run

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
        error = error or self._error
        if error is not None:
            self.exit_code = code_of(error)
        is_other_run = error is not None and self.exit_code == OTHER_RUN
        if isinstance(error, Exception) and not (
            is_other_run or isinstance(error, click.ClickException)
        ):
            self._notify_of(error)
        for url, state in self._states.items():
            if state is not None:
                state.add_run(self._record(url, error))
        if not is_other_run:  # that one writes its own
            for url, state in self._states.items():
                self._write_metrics(url, state)
        for state in self._states.values():
            if state is not None:
                state.close()

    def _notify_of(self, error: Exception) -> None:
        from publisher.notify import Event, Kind

        text = " ".join(failure_text(error, self._command).split())
        for url in self._states:
            self._notifier.send(
                url,
                self._command,
                (),
                problems=[Event(Kind.FAILED, self._command, text)],
                scope=self._scope,
                state=self._states[url],
                cause=error_kind(type(error)),
            )

    def _record(self, url: str | None, error: BaseException | None) -> RunRecord:
        result = self._results.get(url) or Result({})
        text = "" if error is None else " ".join(str(error).split()) or type(error).__name__
        return RunRecord(
            started=self._started,
            ended=utc_now(),
            command=self._command,
            lists=self._lists if result.lists is None else result.lists,
            exit_code=self.exit_code,
            counts={name: count for name, count in result.counts.items() if count},
            bytes_fetched=result.bytes_fetched,
            seconds=result.seconds,
            error=text,
        )

    def _write_metrics(self, url: str | None, state: State | None) -> None:
        result = self._results.get(url) or Result({})
        lists = self._lists if result.lists is None else result.lists
        codes = dict.fromkeys(lists or ("",), self.exit_code) | dict(result.codes)
        self._metrics.write(url, self._command, codes, self._updates.get(url), state)


def identity_of(path: str) -> str:
    """Return the identity of a wish list, also of one whose address is malformed."""
    from publisher.sources.wish_lists import list_identity

    try:
        return list_identity(path)
    except PublisherError:
        return presentable(path)  # it cannot be read, and may contain a password
