"""The option `--notify`, and the events that follow from the report of each command."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.cli.removal import utc_now
from publisher.cli.rendering import message, plural
from publisher.cli.repositories import open_repository, whole_url
from publisher.cli.state import open_state
from publisher.errors import PublisherError, failure_text
from publisher.notify import Event, InvalidNotifications, Kind, Message, Notifications, Run
from publisher.notify.model import Service
from publisher.repository import Repository
from publisher.repository.checks import Check, Verdict
from publisher.repository.reading import load_publication
from publisher.sizes import human_size
from publisher.state import News
from publisher.state.store import State
from publisher.times import format_time
from publisher.tree.publication import Publication
from publisher.verify.findings import Severity

if TYPE_CHECKING:  # a command does not import what the others need
    from publisher.ingest.report import Outcome
    from publisher.ingest.report import Report as IngestReport
    from publisher.removal.gc import Report as GcReport
    from publisher.removal.prune import Report as PruneReport
    from publisher.verify.run import Report as VerifyReport
    from publisher.wishlist.model import Request


def read_notifications(path: str) -> Notifications:
    """Return the configuration in a file, with its secrets; raise InvalidNotifications."""
    from publisher.notify.parse import MAX_BYTES, parse_notifications
    from publisher.notify.service import INSTALL

    def read(path: str) -> bytes:
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)

    try:
        data = read(path)
    except OSError as error:
        raise InvalidNotifications(
            f"cannot read {path}",
            why=error.strerror or str(error),
            hint="correct --notify, or make the file readable for this user",
        ) from error
    found = parse_notifications(data, path, os.environ, read)
    services = [each for each in found.receivers if isinstance(each.address, Service)]
    if services and importlib.util.find_spec("apprise") is None:
        raise InvalidNotifications(
            f"cannot notify {services[0].name}", why="apprise is not installed", hint=INSTALL
        )
    return found


class Notifier:
    """Sends the events of one command to the receivers that `--notify` configures, if any."""

    def __init__(self, path: str | None) -> None:
        """Read the configuration in the file `path`, if any; raise InvalidNotifications."""
        self._configuration = None if path is None else read_notifications(path)

    @property
    def is_active(self) -> bool:
        """Whether there are receivers."""
        return self._configuration is not None

    def send(
        self,
        url: str | None,
        command: str,
        events: Iterable[Event],
        *,
        problems: Sequence[Event] | None = None,
        scope: Sequence[str] = (),
        state: State | None = None,
        at_end: bool = False,
        cause: str = "",
    ) -> None:
        """Notify the receivers, after the work of a run; this never changes its result.

        Args:
            url: The repository as the user named it; None if the command has none.
            command: The name of the command.
            events: What the run changed.
            problems: What is wrong now, which receivers are notified of if it is not what they
                know already; None if the run does not know it.
            scope: What the problems are about alone: the wish lists, or an option of the command.
            state: The state of the repository, if it is open.
            at_end: Only keep the messages, for example since the run was interrupted.
            cause: The kind of the error that ended the run, if one did: another one is new.
        """
        if self._configuration is None:
            return
        opened = None
        try:
            if state is None and url is not None:
                state = opened = open_state(url, writable=True)
            about = " ".join([command, *scope])
            before = "" if state is None else state.outbox().known(about)
            now = before if problems is None else _digest_of(problems, cause)
            found = [*events, *(_news_of(problems or (), command, scope) if now != before else ())]
            run = Run(command, _name(url), socket.gethostname(), format_time(utc_now()))
            messages = _messages(self._configuration, run, found)
            if state is not None:
                seconds = 0.0 if at_end else self._configuration.timeout
                self._keep(messages, state, about, now, seconds)
            if not at_end:
                _deliver(self._configuration, messages, state)
        except KeyboardInterrupt:
            message("undelivered notifications are sent by the next run")
        except Exception as error:  # noqa: BLE001  # the work of the run is done
            message(failure_text(error, self._configuration.name))
        finally:
            if opened is not None:
                opened.close()

    def _keep(
        self, messages: Mapping[str, Message], state: State, about: str, known: str, seconds: float
    ) -> None:
        """Store the messages, and that they are known, at once: a kill loses both or none."""
        from publisher.notify.delivery import keep

        outbox = state.outbox()

        def store() -> None:
            if known != outbox.known(about):
                outbox.learn(about, known)
            keep(messages, outbox, seconds)

        state.flush(store)


def _messages(
    configuration: Notifications, run: Run, events: Sequence[Event]
) -> dict[str, Message]:
    """Return the message to each receiver that wants some of the events."""
    found = {}
    for receiver in configuration.receivers:
        wanted = [event for event in events if receiver.wants(event)]
        if wanted:
            found[receiver.name] = Message.of(f"msg_{uuid.uuid4().hex}", run, wanted)
    return found


def _deliver(
    configuration: Notifications, messages: Mapping[str, Message], state: State | None
) -> None:
    from publisher.notify.delivery import deliver

    outbox = None if state is None else state.outbox()
    for delivery in deliver(configuration, messages, outbox):
        if delivery.why and delivery.is_new:
            kept = 0 if outbox is None else outbox.count(delivery.receiver)
            later = f"; {plural(kept, 'message')} for later" if kept else ""
            message(f"cannot notify {delivery.receiver}: {delivery.why}{later}")


notify_option = click.option(
    "--notify",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    envvar="PUBLISHER_NOTIFY",
    show_envvar=True,
    help="Notify the receivers in FILE of what this run changed. See docs/administration.md.",
)


def _name(url: str | None) -> str:
    return "" if url is None else whole_url(url)


def _digest_of(problems: Sequence[Event], cause: str) -> str:
    """Return a digest of problems; "" if there are none.

    Each problem counts by its subject, so that one whose text has a number is not always new.
    """
    texts = sorted({f"{each.kind} {each.subject} {cause}".rstrip() for each in problems})
    if not texts:
        return ""
    return hashlib.sha256("\n".join(texts).encode(errors="replace")).hexdigest()


def _news_of(problems: Sequence[Event], command: str, scope: Sequence[str]) -> Sequence[Event]:
    """Return the problems, or the event that there are none any more."""
    # The subject is that of the failure, so that receivers can find what it ends.
    text = ": ".join(filter(None, ["nothing is wrong any more", " ".join(scope)]))
    return problems or [Event(Kind.RECOVERED, command, text)]


def ingest_events(report: IngestReport, requests: Iterable[Request]) -> Iterator[Event]:
    """Yield what an ingest changed, the failures that are news, and those that are over."""
    from publisher.ingest.report import Status

    owners = {(r.wish_list, r.wish.line, r.wish.column): r.wish.owner for r in requests}
    for outcome in report.outcomes:
        owner = owners.get((outcome.wish_list, outcome.line, outcome.column), "")
        if outcome.is_new_failure:
            text = outcome.error
            if outcome.news is News.LASTING and outcome.failing_since is not None:
                text = f"since {format_time(outcome.failing_since)}: {text}"
            yield _of(Kind.FAILED, outcome, owner, text)
        elif outcome.news is News.RECOVERED:
            yield _of(Kind.RECOVERED, outcome, owner)
        if outcome.status in (Status.PUBLISHED, Status.UPDATED):
            text = "its tag has moved" if outcome.status is Status.UPDATED else ""
            yield _of(Kind.PUBLISHED, outcome, owner, text)
    for outcome in report.recovered:
        owner = owners.get((outcome.wish_list, outcome.line, outcome.column), "")
        yield _of(Kind.RECOVERED, outcome, owner)


def _of(kind: Kind, outcome: Outcome, owner: str, text: str = "") -> Event:
    return Event(
        kind,
        outcome.name,
        text,
        outcome.reference,
        outcome.digest,
        owner,
        outcome.wish_list,
        outcome.line,
    )


def prune_events(url: str | None, report: PruneReport) -> Iterator[Event]:
    """Yield the images that were scheduled, with the owners of their wishes."""
    if not report.scheduled:
        return
    with closing(open_repository(url)) as repository:
        publications = {each.name: _publication(repository, each.name) for each in report.scheduled}
    for entry in report.scheduled:
        publication = publications[entry.name]
        lists = sorted(publication.wish_lists) if publication else []
        yield Event(
            Kind.WITHDRAWN,
            entry.name,
            f"no wish list requests it; it may be removed from {format_time(entry.not_before)}",
            entry.reference,
            entry.manifest_digest,
            publication.owner if publication else "",
            lists[0] if lists else "",
        )


def _publication(repository: Repository, name: str) -> Publication | None:
    with suppress(PublisherError):  # the image is scheduled, whatever its record contains
        return load_publication(repository, name)
    return None


def prune_problems(report: PruneReport) -> list[Event]:
    """Return why nothing was scheduled, and which images were kept for lack of records."""
    why = [report.refused] if report.refused else report.uncertain
    return [
        *(Event(Kind.FAILED, "prune", text) for text in why),
        *(Event(Kind.FAILED, name, text) for name, text in report.unreadable.items()),
    ]


def gc_events(report: GcReport) -> Iterator[Event]:
    """Yield the images that were collected."""
    for each in report.released:
        entry, freed = each.entry, f"{human_size(each.size)} freed"
        yield Event(Kind.COLLECTED, entry.name, freed, entry.reference, entry.manifest_digest)


def gc_problems(report: GcReport) -> list[Event]:
    """Return the images that were kept because their records are uncertain."""
    return [Event(Kind.FOUND, each.entry.name, each.why) for each in report.kept]


def verify_problems(report: VerifyReport) -> list[Event]:
    """Return the findings that need a repair."""
    return [
        Event(Kind.FOUND, finding.image or finding.path or ".", f"{finding.kind}: {finding.what}")
        for finding in report.findings
        if finding.severity is not Severity.NOTE
    ]


def doctor_problems(checks: Iterable[Check]) -> list[Event]:
    """Return the checks that found a problem."""
    return [
        Event(Kind.FOUND, check.subject, f"{check.finding} (try: {check.cure})")
        for check in checks
        if check.verdict is Verdict.PROBLEM
    ]
