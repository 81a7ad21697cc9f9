"""Send messages to all receivers side by side, within the seconds that the configuration allows.

No receiver affects another one, or the run. A message that is not delivered is kept in the outbox
and sent by a later run under the same identity, after those that are older.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from publisher.lazy import dataclass
from publisher.notify import service, webhook
from publisher.notify.model import Message, Notifications, Receiver, Webhook

_MARGIN_SECONDS = 1.0
"""How much earlier a sender ends than the main thread, so that no process outlives the run.

Of a short time-out, it is at most a quarter.
"""


class Outbox(Protocol):
    """Keeps messages until they are delivered: see publisher.state.outbox."""

    def claim(self, receiver: str, seconds: float) -> list[tuple[str, str]]:
        """Return identity and text of kept messages, the oldest first, for this process alone."""

    def add(self, receiver: str, identity: str, text: str, seconds: float) -> None:
        """Keep a message that this process has claimed for some seconds."""

    def remove(self, receiver: str, identity: str) -> None:
        """Forget a message that was delivered."""

    def release(self, receiver: str, identity: str) -> None:
        """End the claim to a message that was not delivered."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of the messages to a receiver.

    `sent` were delivered. `why` is the reason if the receiver
    did not accept a message, or "". `is_new` is whether there was a message of this run.
    """

    receiver: str
    sent: int
    why: str
    is_new: bool


def deliver(
    configuration: Notifications, messages: Mapping[str, Message], outbox: Outbox | None
) -> list[Delivery]:
    """Send the kept messages, and then those of this run.

    Args:
        configuration: The receivers.
        messages: The messages of this run, by the names of their receivers. With an outbox, it has
            them already, claimed by `keep`.
        outbox: Where undelivered messages are kept; None if they are not.

    Returns:
        One value for each receiver that had a message.
    """
    seconds = configuration.timeout
    waiting = {
        receiver: found
        for receiver in configuration.receivers
        if (found := _queue(receiver, messages.get(receiver.name), outbox, seconds))
    }
    if not waiting:
        return []
    results = _send(waiting, seconds, outbox)
    deliveries = []
    for receiver, queued in waiting.items():
        sent, why = results[receiver.name]
        if outbox is not None:
            for message in queued[sent:]:
                outbox.release(receiver.name, message.id)
        is_new = receiver.name in messages
        deliveries.append(Delivery(receiver.name, sent, why, is_new))
    return deliveries


def keep(messages: Mapping[str, Message], outbox: Outbox, seconds: float = 0.0) -> None:
    """Keep the messages of a run, claimed by this process for some seconds.

    With 0, a later run sends them, since this one is to end at once.
    """
    for receiver, message in messages.items():
        outbox.add(receiver, message.id, json.dumps(message.value), seconds)


def _queue(
    receiver: Receiver, message: Message | None, outbox: Outbox | None, seconds: float
) -> list[Message]:
    """Return all messages for a receiver, the oldest first."""
    if outbox is None:
        return [] if message is None else [message]
    kept = outbox.claim(receiver.name, seconds)
    queued = [Message(identity, json.loads(text)) for identity, text in kept]
    if message is not None:
        queued.append(message)
    return queued


def _send(
    waiting: Mapping[Receiver, Sequence[Message]], seconds: float, outbox: Outbox | None
) -> dict[str, tuple[int, str]]:
    """Send everything; return for each receiver how many were sent, and why no more."""
    end = time.monotonic() + seconds
    senders_end = end - min(_MARGIN_SECONDS, seconds / 4)
    results: queue.SimpleQueue[_Result] = queue.SimpleQueue()
    for receiver, queued in waiting.items():
        # A daemon: the run does not wait for a receiver that hangs in spite of all time-outs.
        threading.Thread(
            target=_send_to, args=(receiver, queued, senders_end, results), daemon=True
        ).start()
    found = {receiver.name: (0, "it does not answer in time") for receiver in waiting}
    working = set(found)
    while working:
        try:
            result = results.get(timeout=max(end - time.monotonic(), 0.0))
        except queue.Empty:
            break
        sent, _ = found[result.receiver]
        if result.is_last:
            working.discard(result.receiver)
            found[result.receiver] = sent, result.why
        else:
            found[result.receiver] = sent + 1, found[result.receiver][1]
            if outbox is not None:
                outbox.remove(result.receiver, result.identity)
    return found


@dataclass(frozen=True, slots=True)
class _Result:
    """A message was delivered, or it is the last result for the receiver, with a failure if any."""

    receiver: str
    identity: str = ""
    why: str = ""
    is_last: bool = False


def _send_to(
    receiver: Receiver,
    queued: Sequence[Message],
    end: float,
    results: queue.SimpleQueue[_Result],
) -> None:
    """Send messages in order, until one fails or the time is over."""
    why = ""
    try:
        for message in queued:
            left = end - time.monotonic()
            why = _send_one(receiver, message, left) if left > 0 else "it does not answer in time"
            if why:
                break
            results.put(_Result(receiver.name, message.id))
    except Exception as error:  # noqa: BLE001  # its text may have the address of the receiver
        why = f"unexpected error: {type(error).__name__}"
    results.put(_Result(receiver.name, why=why, is_last=True))


def _send_one(receiver: Receiver, message: Message, seconds: float) -> str:
    if isinstance(receiver.address, Webhook):
        return webhook.post(receiver.address, message, int(time.time()), seconds)
    return service.send(receiver.address, message, seconds)
