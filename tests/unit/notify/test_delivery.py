"""Messages arrive signed, in order and once; a receiver that misbehaves affects no other one."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from publisher.notify.delivery import Delivery, deliver, keep
from publisher.notify.model import (
    Event,
    Kind,
    Message,
    Notifications,
    Receiver,
    Run,
    Secret,
    Service,
    Webhook,
)
from publisher.notify.service import without_secrets
from tests.certificates import Authority, server_context
from tests.receiver import NotificationReceiver
from tests.schemas import output_schema

KEY = "0123456789abcdef0123456789abcdef"
RUN = Run("ingest", "dir:/srv/images", "build3", "2026-11-26T12:00:00Z")
HOSTILE = "a\r\nX-Injected: 1\x1b[2J \udcff"


def message(name: str, *events: Event) -> Message:
    return Message.of(name, RUN, events or (Event(Kind.FAILED, f"local/{name}:1", HOSTILE),))


def hook(name: str, url: str, key: str = KEY) -> Receiver:
    return Receiver(name, Webhook(Secret(url), Secret(key)), frozenset(Kind))


def configured(*receivers: Receiver, timeout: float = 60.0) -> Notifications:
    return Notifications("notify.yaml", receivers, timeout)


@dataclass
class MemoryOutbox:
    """An outbox without a database."""

    kept: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    claimed: set[tuple[str, str]] = field(default_factory=set)

    def claim(self, receiver: str, seconds: float) -> list[tuple[str, str]]:
        found = self.kept.get(receiver, [])
        return [pair for pair in found if (receiver, pair[0]) not in self.claimed]

    def add(self, receiver: str, identity: str, text: str, seconds: float) -> None:
        if seconds:
            self.claimed.add((receiver, identity))
        self.kept.setdefault(receiver, []).append((identity, text))

    def remove(self, receiver: str, identity: str) -> None:
        self.kept[receiver] = [pair for pair in self.kept[receiver] if pair[0] != identity]

    def release(self, receiver: str, identity: str) -> None:
        self.claimed.discard((receiver, identity))

    def identities(self, receiver: str) -> list[str]:
        return [identity for identity, _ in self.kept.get(receiver, [])]


@pytest.fixture
def server() -> Iterator[NotificationReceiver]:
    with NotificationReceiver() as running:
        yield running


def test_a_message_arrives_signed_and_matches_its_schema(server: NotificationReceiver) -> None:
    url = f"http://{server.host}/hooks/1?token=abc"
    encoded = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
    deliver(configured(hook("r", url, encoded)), {"r": message("one")}, None)
    assert server.received.pop().is_signed_by(bytes(range(32)))
    [done] = deliver(configured(hook("r", url)), {"r": message("one")}, None)
    assert (done.sent, done.why, done.is_new) == (1, "", True)
    [received] = server.received
    assert received.path == "/hooks/1?token=abc"
    assert received.headers["webhook-id"] == "one"
    assert received.headers["content-type"] == "application/json"
    assert "x-injected" not in received.headers and "authorization" not in received.headers
    assert received.is_signed_by(KEY.encode())
    assert not received.is_signed_by(KEY.upper().encode())
    output_schema("notification/1").validate(received.json)
    [event] = received.json["events"]
    assert event["text"] == r"a\r\nX-Injected: 1\x1b[2J \udcff"


def keep_and_deliver(
    receivers: Notifications, messages: Mapping[str, Message], outbox: MemoryOutbox
) -> list[Delivery]:
    keep(messages, outbox, receivers.timeout)
    return deliver(receivers, messages, outbox)


def test_undelivered_messages_are_sent_by_later_runs_in_order_and_once(
    server: NotificationReceiver,
) -> None:
    outbox = MemoryOutbox()
    receivers = configured(hook("r", f"http://{server.host}/"))
    server.status = 500
    for name in ("one", "two"):
        [done] = keep_and_deliver(receivers, {"r": message(name)}, outbox)
        assert (done.sent, done.why) == (0, "it answers with status 500")
    assert outbox.identities("r") == ["one", "two"]
    assert [each.headers["webhook-id"] for each in server.received] == ["one", "one"]
    keep({"r": message("three")}, outbox)
    server.status = 204
    server.received.clear()
    [done] = keep_and_deliver(receivers, {"r": message("four")}, outbox)
    assert (done.sent, done.why) == (4, "")
    sent = [each.headers["webhook-id"] for each in server.received]
    assert sent == ["one", "two", "three", "four"]
    assert all(each.is_signed_by(KEY.encode()) for each in server.received)
    assert not outbox.identities("r")
    assert deliver(receivers, {}, outbox) == []


def test_the_shortest_time_out_suffices_for_a_receiver_that_answers(
    server: NotificationReceiver,
) -> None:
    hooks = configured(hook("r", f"http://{server.host}/"), timeout=1)
    [done] = deliver(hooks, {"r": message("m")}, None)
    assert (done.sent, done.why) == (1, "")


def test_redirects_are_not_followed(server: NotificationReceiver) -> None:
    with NotificationReceiver() as other:
        server.status, server.headers = 307, {"Location": f"http://{other.host}/"}
        [done] = deliver(configured(hook("r", f"http://{server.host}/")), {"r": message("m")}, None)
        assert done.why == "it answers with status 307; redirects are not followed"
        assert other.received == []


def test_a_receiver_that_hangs_drips_or_closes_delays_no_other_one(
    server: NotificationReceiver,
) -> None:
    with (
        NotificationReceiver() as hanging,
        NotificationReceiver() as dripping,
        NotificationReceiver() as closing,
    ):
        hanging.hangs = dripping.drips = closing.closes = True
        urls = {
            "hanging": f"http://{hanging.host}/",
            "dripping": f"http://{dripping.host}/",
            "closing": f"http://{closing.host}/",
            "refusing": "http://127.0.0.1:1/",
            "unknown": "http://unknown.invalid/",
            "good": f"http://{server.host}/",
        }
        outbox = MemoryOutbox()
        receivers = [hook(name, f"{url}tok3n") for name, url in urls.items()]
        messages = {name: message(name) for name in urls}
        done = {
            each.receiver: each
            for each in keep_and_deliver(configured(*receivers, timeout=2), messages, outbox)
        }
    assert done["good"].sent == 1 and not done["good"].why
    assert done["hanging"].why == done["dripping"].why == "it does not answer in time"
    assert done["closing"].why.startswith(("it cannot be reached", "the connection failed"))
    assert done["refusing"].why == "it cannot be reached: Connection refused"
    assert done["unknown"].why == "its host name is unknown"
    assert {name for name in urls if outbox.identities(name)} == set(urls) - {"good"}
    assert not [each for each in done.values() if "tok3n" in each.why]


def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority.create(tmp_path)
    with NotificationReceiver(server_context(authority.issue("server"))) as server:
        receivers = configured(hook("r", f"https://{server.host}/tok3n"))
        [done] = deliver(receivers, {"r": message("m")}, None)
        assert done.why.startswith("its certificate is not accepted: ")
        assert server.received == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.own.certificate))
        [done] = deliver(receivers, {"r": message("m")}, None)
        assert done.why == "" and len(server.received) == 1
        plain = configured(hook("r", f"https://{server.host.replace('127.0.0.1', 'localhost')}/"))
        [done] = deliver(plain, {"r": message("m")}, None)
        assert "certificate is not accepted" in done.why


def test_services_get_a_text_by_apprise_and_never_a_redirect(
    server: NotificationReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="publisher")
    with NotificationReceiver() as other, NotificationReceiver() as moved:
        other.status = 403
        moved.status, moved.headers = 302, {"Location": f"http://{server.host}/stolen"}
        urls = {
            "good": f"json://user:pa55word@{server.host}/tok3n",
            "bad": f"json://user:pa55word@{other.host}/tok3n",
            "moved": f"json://{moved.host}/tok3n",
        }
        receivers = [Receiver(n, Service(Secret(u)), frozenset(Kind)) for n, u in urls.items()]
        done = deliver(configured(*receivers), {name: message(name) for name in urls}, None)
    assert [each.sent for each in done] == [1, 0, 0]
    [received] = server.received
    assert received.path == "/tok3n"
    assert received.json["title"] == "publisher ingest: 1 failed (dir:/srv/images)"
    lines = received.json["message"].split("\n")
    assert lines[0] == r"failed: local/good:1: a\r\nX-Injected: 1\x1b(2J \udcff"
    assert received.json["type"] == "failure"
    assert "error=403" in done[1].why and done[2].why
    for secret in ("pa55word", "tok3n"):
        assert secret not in repr(done) + caplog.text


def test_no_part_of_an_address_is_in_the_reason_of_a_failure() -> None:
    url = "slack://T1JJ3T3L2/A1BRTD4JD/Tiiajk%2Fdnla?to=%23General"
    text = "cannot reach t1jj3t3l2 or A1BRTD4JD by Tiiajk/dnla for #general (slack)"
    hidden = without_secrets(text, url)
    assert hidden == "cannot reach … or … by …/… for #… (slack)"
