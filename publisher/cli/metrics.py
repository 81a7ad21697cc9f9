"""The option `--metrics-file`, and the metrics that follow from the report of each command."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.cli.rendering import message
from publisher.cli.repositories import open_repository, whole_url
from publisher.cli.state import open_state
from publisher.errors import failure_text
from publisher.metrics import families
from publisher.metrics.families import Update, value
from publisher.repository import RepositoryError
from publisher.state import Cause
from publisher.times import utc_now

if TYPE_CHECKING:  # a command does not import what the others need
    from publisher.ingest.report import Outcome
    from publisher.ingest.report import Report as IngestReport
    from publisher.removal.gc import Report as GcReport
    from publisher.state.store import State
    from publisher.verify.run import Report as VerifyReport

_SUFFIX = ".prom"

_STATES = ("current", "pinned", "expired", "failing")
"""The states of requested images, as metrics have them."""


class MetricsFile:
    """The file that `--metrics-file` names, if any, and when the command began."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._began = time.monotonic()

    def write(
        self,
        url: str | None,
        command: str,
        codes: Mapping[str, int],
        updates: Callable[[str, float], Iterable[Update]] | None,
        state: State | None,
    ) -> None:
        """Write how a run ended, and if it came to its end, its metrics and its repository's.

        A failure is printed, and never changes the result of the run.

        Args:
            url: The URL of the repository, as the user wrote it.
            command: The name of the command.
            codes: The exit code for each wish list; a command without wish lists has the list "".
            updates: Receives the URL with the whole path, and the seconds since the command began.
                None if the run did not come to its end.
            state: The state of the repository, if it is open.
        """
        if self._path is None:
            return
        from publisher.metrics.textfile import update_file  # prometheus_client is slow to import

        try:
            label = whole_url(url or "")
            found = [
                value(families.EXIT_CODE, (label, command, each), code)
                for each, code in codes.items()
            ]
            if updates is not None:
                found += updates(label, time.monotonic() - self._began)
                found += _repository_updates(url, label)
            undelivered = _undelivered(url, state)
            found.append(value(families.UNDELIVERED, (label,), undelivered))
            update_file(Path(self._path), found)
        except Exception as error:  # noqa: BLE001  # the work of the run is done
            message(failure_text(error, self._path))


def _repository_updates(url: str | None, label: str) -> Sequence[Update]:
    """Return the values about the repository itself; none if `doctor` could not open it."""
    from publisher.metrics.repository import repository_updates

    try:
        repository = open_repository(url)
    except RepositoryError:
        return ()
    with closing(repository):
        return tuple(repository_updates(repository, label, utc_now()))


def _undelivered(url: str | None, state: State | None) -> int:
    if state is not None:
        return state.outbox().count()
    with open_state(url, note=lambda _: None) as opened:
        return opened.outbox().count()


def _metrics_file(
    context: click.Context, parameter: click.Parameter, path: str | None
) -> MetricsFile:
    if path is not None and not path.endswith(_SUFFIX):
        raise click.BadParameter(f"the node exporter reads only files with the ending {_SUFFIX}")
    return MetricsFile(path)


metrics_option = click.option(
    "--metrics-file",
    metavar="FILE.prom",
    type=click.Path(dir_okay=False),
    callback=_metrics_file,
    envvar="PUBLISHER_METRICS_FILE",
    show_envvar=True,
    help="Write metrics there at the end of the run, for the textfile collector of Prometheus' "
    "node exporter. All jobs of a machine can share the file. See docs/administration.md.",
)


def ingest_updates(
    url: str, seconds: float, *, report: IngestReport, lists: Iterable[str]
) -> Iterator[Update]:
    """Yield the metrics of an ingest of `lists`, whose outcomes are all in `report`.

    The values of a list that cannot be read stay, so that the time of its last run ages.
    """
    by_list: dict[str, list[Outcome]] = {each: [] for each in lists}
    for outcome in _one_for_each_image(report.of_images):
        by_list.setdefault(outcome.wish_list, []).append(outcome)
    good = {
        each: not (report.interrupted or any(outcome.error for outcome in outcomes))
        for each, outcomes in by_list.items()
    }
    yield from run_updates(url, seconds, command="ingest", lists=good)
    steps: dict[tuple[str, ...], float] = {(step,): spent for step, spent in report.steps.items()}
    yield Update(families.STEP_SECONDS, (url, "ingest"), steps)
    for each, outcomes in by_list.items():
        fetched = sum(outcome.bytes_fetched for outcome in outcomes)
        yield value(families.FETCHED, (url, each), fetched)
        if not report.interrupted:
            yield _wishes((url, each), outcomes)
            yield from _failures((url, each), outcomes)


def _one_for_each_image(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Yield the outcomes without those of further errors in the same wish."""
    invalid = set()
    for outcome in outcomes:
        key = outcome.wish_list, outcome.name
        if outcome.cause != Cause.WISH_LIST or key not in invalid:
            yield outcome
        if outcome.cause == Cause.WISH_LIST:
            invalid.add(key)


def _wishes(scope: tuple[str, str], outcomes: Iterable[Outcome]) -> Update:
    counts: dict[tuple[str, ...], float] = {(state,): 0.0 for state in _STATES}
    for outcome in outcomes:
        counts[(_state(outcome),)] += 1
    return Update(families.WISHES, scope, counts)


def _state(outcome: Outcome) -> str:
    """Return which of _STATES an image has."""
    from publisher.ingest.report import Status

    if outcome.status in (Status.WAITING, Status.FAILED):
        return "failing"
    return str(outcome.status) if outcome.status in (Status.PINNED, Status.EXPIRED) else "current"


def _failures(scope: tuple[str, str], outcomes: Iterable[Outcome]) -> Iterator[Update]:
    counts: dict[tuple[str, ...], float] = {}
    for outcome in outcomes:
        if outcome.error:
            cause = (outcome.cause or Cause.OTHER,)
            counts[cause] = counts.get(cause, 0) + 1
    yield Update(families.FAILING, scope, counts)
    since = [each.failing_since.timestamp() for each in outcomes if each.failing_since]
    yield value(families.OLDEST, scope, min(since, default=None))


def run_updates(
    url: str, seconds: float, *, command: str, lists: Mapping[str, bool]
) -> Iterator[Update]:
    """Yield when and how long `command` ran. `lists` has whether it succeeded for each list.

    A command without wish lists has one "list", which is "".
    """
    now = utc_now().timestamp()
    yield value(families.RUN_SECONDS, (url, command), seconds)
    for each, good in lists.items():
        yield value(families.LAST_RUN, (url, command, each), now)
        if good:
            yield value(families.LAST_SUCCESS, (url, command, each), now)


def gc_updates(url: str, seconds: float, *, report: GcReport, good: bool) -> Iterator[Update]:
    """Yield the metrics of a collection."""
    yield from run_updates(url, seconds, command="gc", lists={"": good})
    yield value(families.COLLECTED, (url,), len(report.released))
    yield value(families.FREED, (url,), report.size)


def verify_updates(url: str, seconds: float, *, report: VerifyReport) -> Iterator[Update]:
    """Yield the metrics of a verification."""
    from publisher.verify.findings import Severity

    yield from run_updates(url, seconds, command="verify", lists={"": report.sound})
    by_subject = {"records": [each for each in report.findings if each not in report.of_contents]}
    if report.deep:  # otherwise it is unknown whether damaged contents are repaired
        by_subject["contents"] = list(report.of_contents)
    for subject, findings in by_subject.items():
        counts = Counter(str(finding.severity) for finding in findings)
        values: dict[tuple[str, ...], float] = {
            (str(severity),): counts[severity] for severity in Severity
        }
        yield Update(families.FINDINGS, (url, subject), values)
    yield value(families.STORED, (url,), report.size)
