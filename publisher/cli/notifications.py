"""The option `--notify`, and the messages to the receivers that it configures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.cli.rendering import message
from publisher.cli.repositories import whole_url
from publisher.cli.state import open_state
from publisher.errors import failure_text
from publisher.sizes import plural
from publisher.times import format_time, utc_now

if TYPE_CHECKING:  # most runs have no receivers
    from publisher.notify import Event, Message, Notifications, Run
    from publisher.state.store import State


def read_notifications(path: str) -> Notifications:
    """Return the configuration in a file, with its secrets; raise InvalidNotifications."""
    import importlib.util

    from publisher.notify import InvalidNotifications
    from publisher.notify.model import Service
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
            hint=f"correct the path, or make {path} readable for this user",
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
        import socket

        from publisher.notify import Run

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
    import uuid

    from publisher.notify import Message

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
    import hashlib

    return hashlib.sha256("\n".join(texts).encode(errors="replace")).hexdigest()


def _news_of(problems: Sequence[Event], command: str, scope: Sequence[str]) -> Sequence[Event]:
    """Return the problems, or the event that there are none any more."""
    from publisher.notify import Event, Kind

    # The subject is that of the failure, so that receivers can find what it ends.
    text = ": ".join(filter(None, ["nothing is wrong any more", " ".join(scope)]))
    return problems or [Event(Kind.RECOVERED, command, text)]
