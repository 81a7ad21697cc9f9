"""The configuration of notifications: its values, and every mistake with its place."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from publisher.notify import InvalidNotifications, Kind, Notifications
from publisher.notify.model import Event, Service, Webhook
from publisher.notify.parse import parse_notifications
from tests.schemas import ROOT

SECRET = "0123456789abcdef-secret"
SCHEMA = json.loads((ROOT / "publisher/schemas/notifications-1.schema.json").read_text())
GOOD = """\
version: 1
timeout: 5
receivers:
  operators:
    service-env: MAIL_URL
    events: [failed, recovered]
  tickets:
    webhook: https://hooks.example.org/publisher?token=hidden
    secret-file: /etc/publisher/webhook.secret
    owners: [astro, 'group-*']
    lists: ['*/astro.yaml']
"""


def parse(text: str) -> Notifications:
    def read(path: str) -> bytes:
        if path in ("/etc/publisher/webhook.secret", "/srv/.secret"):
            return f"{SECRET}\n".encode()
        raise FileNotFoundError(2, "No such file or directory", path)

    variables = {
        "MAIL_URL": "mailtos://user:password@example.org",
        "SHORT": "short",
        "LINES": "a" * 20 + "\nb",
        "BASE64": "whsec_%%%",
        "EMPTY": "",
    }
    return parse_notifications(text, "/srv/notify.yaml", variables, read)


def test_receivers_have_addresses_from_files_and_variables_and_never_show_them() -> None:
    found = parse(GOOD)
    operators, tickets = found.receivers
    assert isinstance(operators.address, Service) and isinstance(tickets.address, Webhook)
    assert operators.address.url.value == "mailtos://user:password@example.org"
    assert tickets.address.key.value == SECRET
    assert found.timeout == 5
    for secret in ("password", "hidden", SECRET):
        assert secret not in repr(found) + str(found) + f"{found}"
    failed = Event(Kind.FAILED, "a", owner="group-1", wish_list="/srv/astro.yaml")
    assert operators.wants(failed) and tickets.wants(failed)
    assert not operators.wants(Event(Kind.PUBLISHED, "a"))
    assert not tickets.wants(Event(Kind.FAILED, "a", owner="", wish_list="/srv/astro.yaml"))
    assert not tickets.wants(Event(Kind.FAILED, "a", owner="astro", wish_list="/srv/bio.yaml"))
    jsonschema.validate(yaml.safe_load(GOOD), SCHEMA)


HEAD = "version: 1\nreceivers:\n  r:\n"
HOOK = "    webhook: https://h.example\n"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", ["1:1: error: notifications must be a mapping, but the file is empty"]),
        ("[]", ["notifications must be a mapping, but this is a list"]),
        ("receivers: {}", ["1:1: error: no version", "1:12: error: receivers must be a mapping"]),
        ("version: 2\nreceivers: []", ["1:10: error: notifications have version 1 only"]),
        ("version: 1", ["no receivers are named"]),
        ("version: 1\ntimeout: 0\nreciever: 1", ["2:10", "3:1: error: unknown key 'reciever'"]),
        (f"{HEAD}    {{}}", ["4:5: error: it has neither a service nor a webhook"]),
        (f"{HEAD}    service: a://b\n    webhook: c", ["it has service and webhook"]),
        (f"{HEAD}    service: nonsense", ["4:14: error: the service is not an URL of apprise"]),
        (f"{HEAD}    service-env: NONE", ["4:18: error: the environment variable NONE is not set"]),
        (f"{HEAD}    service-file: /a", ["cannot read /a: No such file or directory"]),
        (f"{HEAD}    service-env: EMPTY", ["EMPTY is empty, or has more than one line"]),
        (f"{HEAD}    webhook: https://h.example", ["4:5: error: a webhook needs one secret"]),
        (f"{HEAD}{HOOK}    secret: x", ["5:5: error: unknown key 'secret'", "name it by secret-"]),
        (f"{HEAD}{HOOK}    secret-env: SHORT", ["5:17: error: the secret has less than 16 bytes"]),
        (f"{HEAD}{HOOK}    secret-env: BASE64", ["whsec_ is not followed by base64"]),
        (f"{HEAD}{HOOK}    secret-env: LINES", ["LINES is empty, or has more than one line"]),
        (
            f"{HEAD}    webhook: https://u:pw123@h\n    secret-file: .secret",
            ["4:14: error: the webhook is not an address"],
        ),
        (f"{HEAD}    webhook: ftp://h\n    secret-file: .secret", ["not an address of http"]),
        (f"{HEAD}    service: a1://b\n    secret-env: X", ["5:17: error: secret-env is for webh"]),
        (
            f"{HEAD}    service: a1://b\n    events: [failing]",
            ["5:14", "'failing' is not an event"],
        ),
        (f"{HEAD}    service: a1://b\n    owners: x", ["owners must be a list"]),
        ("version: 1\nreceivers:\n  'a b': {service: 'a1://b'}", ["is not a name for a receiver"]),
        ("version: 1\nreceivers:\n  r: x", ["a receiver must be a mapping"]),
    ],
)
def test_mistakes_are_reported_with_their_places_and_without_secrets(
    text: str, messages: list[str]
) -> None:
    with pytest.raises(InvalidNotifications) as caught:
        parse(text)
    for message in messages:
        assert message in str(caught.value)
    for secret in ("short", "pw123", "%%%", SECRET, "aaaa"):
        assert secret not in str(caught.value)


def test_the_schema_knows_the_keys_and_events_of_the_parser() -> None:
    receiver = SCHEMA["$defs"]["receiver"]["properties"]
    for key in receiver:
        assert f"unknown key {key!r}" not in _complaint(f"{HEAD}    {key}: x")
    kinds = receiver["events"]["items"]["enum"]
    assert set(kinds) == {str(kind) for kind in Kind} - {"test"}
    wrong = yaml.safe_load(f"{HEAD}{HOOK}")
    assert list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(wrong))


def _complaint(text: str) -> str:
    with pytest.raises(InvalidNotifications) as caught:
        parse(text)
    return str(caught.value)
