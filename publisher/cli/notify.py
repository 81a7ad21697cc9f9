"""`publisher notify`."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Sequence

import click

from publisher.cli.failures import DONE, SOME_FAILED
from publisher.cli.logs import log_options
from publisher.cli.notifications import read_notifications
from publisher.cli.options import output_option
from publisher.cli.rendering import echo, print_json
from publisher.notify import Event, Kind, Message, Notifications, Run
from publisher.notify.delivery import Delivery, deliver
from publisher.notify.model import Receiver, Webhook
from publisher.times import format_time, utc_now


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--test", is_flag=True, help="Send each receiver a test message.")
@output_option
@log_options
def notify(file: str, test: bool, output: str) -> int:
    """Check the configuration of notifications in FILE, and with --test its receivers.

    FILE is what --notify of `publisher ingest`, `prune`, `gc`, `verify` and `doctor` names. Secrets
    that it refers to, by files or environment variables, are read, and never printed. With --test,
    the exit code is 1 if a receiver does not accept the message. Test messages are not sent again.

    \b
    publisher notify /etc/publisher/notify.yaml
    publisher notify /etc/publisher/notify.yaml --test
    """
    configuration = read_notifications(file)
    deliveries = _test(configuration) if test else ()
    failed = {each.receiver: each.why for each in deliveries if each.why}
    if output == "json":
        values = [_value(each, test, failed) for each in configuration.receivers]
        print_json("notify/1", {"tested": test, "receivers": values})
    else:
        for receiver in configuration.receivers:
            echo(_describe(receiver, test, failed), err=receiver.name in failed)
    return SOME_FAILED if failed else DONE


def _test(configuration: Notifications) -> Sequence[Delivery]:
    now = format_time(utc_now())
    run = Run("notify", "", socket.gethostname(), now)
    event = Event(Kind.TEST, "test", "a message of publisher notify --test")
    messages = {
        each.name: Message.of(f"msg_{uuid.uuid4().hex}", run, [event])
        for each in configuration.receivers
    }
    return deliver(configuration, messages, None)


def _value(receiver: Receiver, test: bool, failed: dict[str, str]) -> dict[str, object]:
    return {
        "name": receiver.name,
        "kind": _kind(receiver),
        "events": sorted(each for each in receiver.kinds if each is not Kind.TEST),
        "owners": None if receiver.owners is None else list(receiver.owners),
        "lists": None if receiver.lists is None else list(receiver.lists),
        "accepted": receiver.name not in failed if test else None,
        "why": failed.get(receiver.name, ""),
    }


def _describe(receiver: Receiver, test: bool, failed: dict[str, str]) -> str:
    if receiver.name in failed:
        return f"failed: {receiver.name}: {failed[receiver.name]}"
    if test:
        return f"accepted: {receiver.name}"
    kinds = ", ".join(sorted(each for each in receiver.kinds if each is not Kind.TEST))
    text = f"{receiver.name}: {_kind(receiver)}; events: {kinds}"
    for what, patterns in (("owners", receiver.owners), ("lists", receiver.lists)):
        if patterns is not None:
            text += f"; {what}: {', '.join(patterns)}"
    return text


def _kind(receiver: Receiver) -> str:
    if isinstance(receiver.address, Webhook):
        return "webhook"
    return f"service ({receiver.address.url.value.partition('://')[0].lower()})"
