"""`--notify` and `publisher notify`: receivers, events, repetitions, faults."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publisher.notify.parse import parse_notifications
from publisher.state.store import open_state
from tests.command import command, environment, publisher, succeed
from tests.components import require
from tests.cvmfs import is_running
from tests.layer_builder import file, image, layer, write_layout
from tests.processes import wait_until
from tests.receiver import NotificationReceiver, Received
from tests.registry import OwnRegistry
from tests.registry_auth import BasicAuth
from tests.schemas import ROOT, output_schema

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def server() -> Iterator[NotificationReceiver]:
    with NotificationReceiver() as running:
        yield running


class Site:
    """A repository, a wish list, and a configuration of notifications."""

    def __init__(self, folder: Path, server: NotificationReceiver) -> None:
        self.folder = folder
        self.server = server
        self.layout = folder / "layout"
        self.wishes = folder / "wishes.yaml"
        self.notify = folder / "notify.yaml"
        self.images = folder / "images"
        (folder / "key").write_text(f"{KEY}\n")
        self.configure(f"http://{server.host}/hook")

    def configure(self, *urls: str, more: str = "") -> None:
        receivers = "".join(
            f"  r{n}:\n    webhook: {url}\n    secret-file: {self.folder}/key\n{more}"
            for n, url in enumerate(urls)
        )
        self.notify.write_text(f"version: 1\ntimeout: 5\nreceivers:\n{receivers}")

    def add(self, tag: str) -> None:
        write_layout(image(layer(file(tag))), self.layout, tag)

    def request(self, *tags: str) -> None:
        items = "".join(f"  - {{image: 'oci:{self.layout}:{t}', owner: astro}}\n" for t in tags)
        self.wishes.write_text(f"version: 2\nrepository: dir:{self.images}\nimages:\n{items}")

    def run(self, *words: str | Path, code: int = 0) -> str:
        """Run a command with --notify, and return what it printed on stderr."""
        self.server.received.clear()
        repository = () if "ingest" in words else ("--repository", self.images)
        result = publisher(*words, *repository, "--notify", self.notify)
        assert result.code == code, result.err
        return result.err

    def events(self) -> list[tuple[str, str]]:
        """The kinds and subjects of the only message that arrived; none without a message."""
        if not self.server.received:
            return []
        [received] = self.server.received
        assert received.is_signed_by(KEY.encode())
        output_schema("notification/1").validate(received.json)
        return [(event["event"], event["subject"]) for event in received.json["events"]]


@pytest.fixture
def site(tmp_path: Path, server: NotificationReceiver) -> Site:
    return Site(tmp_path, server)


def test_a_failure_is_notified_once_then_the_recovery_the_withdrawal_and_the_collection(
    site: Site,
) -> None:
    site.add("1")
    site.request("1", "2")
    site.run("ingest", site.wishes, code=1)
    assert site.events() == [("published", "local/layout:1"), ("failed", "local/layout:2")]
    [received] = site.server.received
    value = received.json
    assert (value["command"], value["repository"]) == ("ingest", f"dir:{site.images}")
    assert value["counts"] == {"published": 1, "failed": 1}
    failed = value["events"][1]
    assert failed["owner"] == "astro" and failed["line"] == 5
    assert "no image 2 in" in failed["text"]
    for more in ((), ("--retry-failed",)):
        site.run("ingest", site.wishes, *more, code=1)
        assert site.events() == []

    site.add("2")
    site.run("ingest", site.wishes, "--retry-failed")
    assert site.events() == [("recovered", "local/layout:2"), ("published", "local/layout:2")]

    site.configure(f"http://{site.server.host}/", more="    owners: [astro]\n    lists: ['/*']\n")
    site.request("1")
    site.run("prune", site.wishes, "--at-most", "5")
    assert site.events() == [("withdrawn", "local/layout:2")]
    site.run("gc", "--now")
    assert site.events() == []  # what is removed has no owner any more
    site.configure(f"http://{site.server.host}/")
    site.request("3")
    site.run("prune", site.wishes, "--at-most", "0", code=1)
    assert site.events() == [("failed", "prune")]
    site.run("prune", site.wishes, "--at-most", "0", code=1)
    assert site.events() == []
    site.run("prune", site.wishes, "--yes-really")
    assert site.events()[0] == ("withdrawn", "local/layout:1")
    assert site.events()[1] == ("recovered", "prune")
    site.run("gc", "--now")
    assert site.events() == [("collected", "local/layout:1")]


def test_the_recovery_of_a_wish_whose_tags_were_unknown_is_notified(site: Site) -> None:
    site.add("1")
    item = f"{{image: 'oci:{site.layout}', name: tool, tags: ['2*'], owner: astro}}"
    site.wishes.write_text(f"version: 2\nrepository: dir:{site.images}\nimages: [{item}]\n")
    site.run("ingest", site.wishes, code=1)
    [(kind, subject)] = site.events()
    assert kind == "failed"
    site.add("2")
    site.run("ingest", site.wishes)
    assert site.events() == [("published", "local/tool:2"), ("recovered", subject)]
    recovered = site.server.received[0].json["events"][1]
    assert (recovered["owner"], recovered["line"]) == ("astro", 3)
    site.run("ingest", site.wishes)
    assert site.events() == []


def test_a_password_that_expires_is_notified_once_as_refused_and_when_it_is_replaced(
    site: Site,
) -> None:
    passwords = site.folder / "config.json"

    def log_in(registry: OwnRegistry, password: str) -> None:
        entry = {"auth": base64.b64encode(f"robot:{password}".encode()).decode()}
        passwords.write_text(json.dumps({"auths": {registry.host: entry}}))

    with OwnRegistry(BasicAuth({"robot": "first"})) as registry:
        registry.add("team/x", "1", image(layer(file("x"))))
        name = f"{registry.host}/team/x:1"
        site.wishes.write_text(
            f"version: 2\nrepository: dir:{site.images}\nimages: [{{image: 'http://{name}'}}]\n"
        )
        job = ("ingest", site.wishes, "--authfile", passwords, "--new-failures")
        log_in(registry, "first")
        site.run(*job)
        assert site.events() == [("published", name)]
        registry.auth = BasicAuth({"robot": "second"})
        site.run(*job, code=1)
        assert site.events() == [("failed", name)]
        assert "first" not in site.server.received[0].body.decode()
        registry.requests.clear()
        site.run(*job)
        assert (site.events(), registry.requests) == ([], [])
        result = publisher("status", name, "--output", "json", "--repository", site.images)
        [line] = result.json["wishes"]
        assert (line["published"], line["cause"]) == (True, "refused")
        log_in(registry, "second")
        site.run(*job, "--retry-failed")
        assert site.events() == [("recovered", name)]


def test_the_correction_of_a_list_and_of_a_wish_with_an_error_is_notified(site: Site) -> None:
    site.add("1")
    site.request("1")
    good = site.wishes.read_text()
    other = site.folder / "other.yaml"
    invalid = f"{good}  - {{image: 'A B', outputs: [none], owner: bio}}\n"
    for text, code, events in (
        ("images: [", 2, [("failed", str(other)), ("published", "local/layout:1")]),
        ("images: [", 2, []),
        (invalid, 1, [("failed", "A B"), ("failed", "A B"), ("recovered", str(other))]),
        (invalid, 1, []),
        (good, 0, [("recovered", "A B")]),
        (good, 0, []),
    ):
        other.write_text(text)
        site.run("ingest", site.wishes, other, code=code)
        assert sorted(site.events()) == sorted(events)


def test_findings_are_notified_until_they_are_known_and_when_they_are_repaired(site: Site) -> None:
    site.add("1")
    site.request("1")
    site.run("ingest", site.wishes)
    link = site.images / "local/layout:1"
    link.unlink()
    site.run("verify", code=1)
    assert site.events() == [("found", "local/layout:1")]
    site.run("verify", code=1)
    assert site.events() == []
    site.run("verify", "--repair")
    assert site.events() == [("recovered", "verify")]
    damaged = site.images / "local/layout:1/1"
    damaged.write_bytes(damaged.read_bytes() + b"!")
    site.run("verify", "--deep", code=1)
    assert ("found", "local/layout:1") in site.events()
    for options in ((), ("--repair", "--refetch")):  # which do not read the contents
        site.run("verify", *options)
        assert site.events() == []
    site.run("verify", "--deep", "--repair", "--refetch")
    assert site.events() == [("recovered", "verify")]
    (site.images / ".metadata/remove-schedule.json").write_text("damaged")
    for events in ([("found", "records")], []):
        site.run("doctor", code=1)
        assert site.events() == events


def test_an_error_that_ends_the_run_is_notified_once(site: Site) -> None:
    site.request("1")
    site.images.write_text("not a directory")
    for events in ([("failed", "ingest")], []):
        site.run("ingest", site.wishes, code=3)
        assert site.events() == events
    site.images.unlink()
    site.add("1")
    site.run("ingest", site.wishes)
    assert ("recovered", "ingest") in site.events()
    texts = [event.get("text") for event in site.server.received[0].json["events"]]
    assert f"nothing is wrong any more: {site.wishes}" in texts


def test_receivers_that_fail_change_no_result_and_get_their_messages_later(
    site: Site, server: NotificationReceiver
) -> None:
    with NotificationReceiver() as hanging:
        hanging.hangs = True
        site.configure(f"http://{hanging.host}/", f"http://{server.host}/")
        site.notify.write_text(site.notify.read_text().replace("timeout: 5", "timeout: 2"))
        site.add("1")
        site.request("1")
        err = site.run("ingest", site.wishes)
        assert err.splitlines()[-1] == (
            "publisher: cannot notify r0: it does not answer in time; 1 message for later"
        )
        assert site.events() == [("published", "local/layout:1")]
        [missed] = hanging.received
        server.status = 500
        site.add("2")
        site.request("1", "2")
        metrics = site.folder / "publisher.prom"
        err = site.run("ingest", site.wishes, "--metrics-file", metrics)
        assert "cannot notify r1: it answers with status 500" in err
        assert re.search("^publisher_undelivered_notifications{.*} 3.0$", metrics.read_text(), re.M)
    server.status = 200
    site.configure(f"http://{server.host}/0", f"http://{server.host}/1")
    site.run("ingest", site.wishes, "--metrics-file", metrics)
    assert re.search("^publisher_undelivered_notifications{.*} 0.0$", metrics.read_text(), re.M)
    arrived = [(each.path, each.headers["webhook-id"]) for each in server.received]
    assert ("/0", missed.headers["webhook-id"]) in arrived
    assert sorted(path for path, _ in arrived) == ["/0", "/0", "/1"]
    site.run("ingest", site.wishes)
    assert server.received == []


def test_an_interrupted_run_keeps_its_messages_for_the_next_one(site: Site) -> None:
    site.add("1")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a registry that never answers
        port = silent.getsockname()[1]
        site.request("1")
        with site.wishes.open("a") as wishes:
            wishes.write(f"  - http://127.0.0.1:{port}/team/x:1\n")
        words = command("ingest", site.wishes, "--notify", site.notify)
        state = os.environ["PUBLISHER_STATE"]
        with subprocess.Popen(
            words, stderr=subprocess.PIPE, text=True, env=environment(PUBLISHER_STATE=state)
        ) as run:
            assert run.stderr is not None
            for line in run.stderr:
                if line.startswith("local/layout:1: published"):
                    break
            run.send_signal(signal.SIGTERM)
            run.stderr.read()
        assert run.returncode == 130
    assert site.events() == []
    site.request("1")
    site.run("ingest", site.wishes)
    assert site.events() == [("published", "local/layout:1")]


def test_a_run_that_is_killed_before_it_sends_its_messages_loses_none(site: Site) -> None:
    site.add("1")
    site.request("1", "2")
    program = (
        "import os, publisher.notify.delivery as d; d.deliver = lambda *_: os._exit(9); "
        "from publisher.cli import main; main.main()"
    )
    paths = str(site.wishes), "--notify", str(site.notify)
    words = [sys.executable, "-c", program, "ingest", *paths]
    state = os.environ["PUBLISHER_STATE"]
    killed = subprocess.run(
        words, env=environment(PUBLISHER_STATE=state), stderr=subprocess.DEVNULL, timeout=120
    )
    assert (killed.returncode, site.server.received) == (9, [])
    outbox_is_free(site)
    site.run("ingest", site.wishes, code=1)
    assert site.events() == [("published", "local/layout:1"), ("failed", "local/layout:2")]


def outbox_is_free(site: Site) -> None:
    """End the claim of a killed process to its messages, as the passing of time would."""
    with open_state(
        Path(os.environ["PUBLISHER_STATE"]), f"dir:{site.images}", writable=True
    ) as state:
        connection = sqlite3.connect(state.path)
        with connection:
            connection.execute("UPDATE outbox SET claimed = NULL")
        connection.close()


def test_a_killed_publisher_leaves_no_process_that_still_notifies(site: Site) -> None:
    site.server.hangs = True
    site.notify.write_text(
        "version: 1\ntimeout: 200\nreceivers:\n"
        f"  r: {{service: 'json://{site.server.host}/?rto=200'}}\n"
    )
    words = command("notify", site.notify, "--test")
    with subprocess.Popen(words, env=environment()) as run:
        assert site.server.arrived.wait(60)
        [child] = [
            int(pid)
            for children in Path(f"/proc/{run.pid}/task").glob("*/children")
            for pid in children.read_text().split()
        ]
        run.kill()
    wait_until(lambda: not is_running(child))


def test_no_log_has_a_secret(site: Site, server: NotificationReceiver) -> None:
    server.status = 500
    site.configure(f"http://{server.host}/tok3n?key=hidden")
    site.add("1")
    site.request("1")
    result = publisher("ingest", site.wishes, "--debug", "--notify", site.notify)
    assert "cannot notify r0" in result.err
    tested = publisher("notify", site.notify, "--test", "--debug", "--output", "json")
    state = b"".join(path.read_bytes() for path in site.folder.rglob("*.sqlite"))
    for secret in (KEY, "tok3n", "hidden"):
        assert secret not in result.out + result.err + tested.out + tested.err
        assert secret.encode() not in state


def test_a_configuration_with_mistakes_is_a_usage_error_before_any_work(site: Site) -> None:
    site.add("1")
    site.request("1")
    site.notify.write_text("version: 1\nreceivers:\n  r: {webhook: 'http://h', secret-env: NONE}\n")
    err = site.run("ingest", site.wishes, code=2)
    assert f"{site.notify}:3:40: error: the environment variable NONE is not set" in err
    assert not site.images.exists()
    assert publisher("notify", site.notify).code == 2
    missing = publisher("ingest", site.wishes, "--notify", site.folder / "missing")
    assert missing.code == 2 and "correct the path, or make" in missing.err


def test_the_configuration_can_be_checked_and_tried(
    site: Site, server: NotificationReceiver
) -> None:
    site.configure(f"http://{server.host}/", "http://127.0.0.1:1/", more="    owners: ['a*']\n")
    listed = succeed("notify", site.notify).out.splitlines()
    assert listed[0].startswith("r0: webhook; events: collected, failed, found, published")
    assert listed[0].endswith("; owners: a*")
    assert server.received == []
    tested = publisher("notify", site.notify, "--test", "--output", "json")
    assert tested.code == 1
    output_schema("notify/1").validate(tested.json)
    assert [each["accepted"] for each in tested.json["receivers"]] == [True, False]
    assert [each["event"] for each in server.received[0].json["events"]] == ["test"]
    text = publisher("notify", site.notify, "--test")
    assert (text.out, text.code) == ("accepted: r0\n", 1)
    assert text.err == "failed: r1: it cannot be reached: Connection refused\n"


def example(language: str, containing: str) -> str:
    """The only example in the page with this text."""
    page = (ROOT / "docs/administration.md").read_text()
    blocks = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    [found] = [block for block in blocks if containing in block]
    return str(found)


def received_test(site: Site) -> Received:
    succeed("notify", site.notify, "--test")
    [received] = site.server.received
    return received


def test_the_documented_ways_to_verify_a_signature_work(site: Site) -> None:
    require("openssl")
    received = received_test(site)
    scope: dict[str, Any] = {}
    exec(example("python", "webhook-signature"), scope)
    verify = scope["is_authentic"]
    assert verify(received.headers, received.body, KEY)
    assert not verify(received.headers, received.body + b" ", KEY)
    assert not verify(received.headers, received.body, KEY[1:])
    assert not verify({**received.headers, "webhook-timestamp": "1"}, received.body, KEY)
    (site.folder / "body").write_bytes(received.body)
    variables = {
        "id": received.headers["webhook-id"],
        "timestamp": received.headers["webhook-timestamp"],
        "secret": KEY,
        "PATH": "/usr/bin:/bin",
    }
    printed = subprocess.run(
        ["sh", "-c", example("sh", "openssl dgst")],
        cwd=site.folder,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"v1,{printed.stdout.strip()}" == received.headers["webhook-signature"]


def test_the_documented_configuration_is_valid() -> None:
    found = parse_notifications(
        example("yaml", "receivers:"),
        "notify.yaml",
        {"CHAT_URL": "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"},
        lambda path: KEY.encode() if "secret" in path else b"mailtos://user:password@example.org",
    )
    assert len(found.receivers) == 3
