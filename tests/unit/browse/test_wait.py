"""`publisher wait` ends when an image is published, and when replicas serve it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from publisher.browse.wait import LONGEST_PAUSE, ImageWait, WaitResult
from publisher.cli.repositories import open_repository
from publisher.repository import RepositoryError
from publisher.repository.disk import write_new_file
from publisher.sources.replicas import Replicas, read_public_keys
from publisher.sources.settings import Settings
from publisher.state import Cause, Tries
from publisher.state.store import open_state
from publisher.tree import layout
from tests.clocks import SkippingClock
from tests.command import TIMEOUT, Result, command, environment, run_here
from tests.cvmfs import Machine, make_machine
from tests.layer_builder import file, image, layer, write_layout
from tests.processes import wait_until
from tests.schemas import output_schema, strict
from tests.stratum1 import NAME, Files, Stratum1, signer, stratum1

IMAGE = "local/tool:1"


class EventfulClock(SkippingClock):
    """Instead of each wait, the next of `events` happens."""

    def __init__(self, *events: Callable[[], object]) -> None:
        super().__init__()
        self._events = list(events)

    def wait(self, seconds: float, ended: threading.Event) -> None:
        if self._events:
            self._events.pop(0)()
        super().wait(seconds, ended)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_layout(image(layer(file("motd", b"hi"))), tmp_path / "tool", "1")


def publish(source: Path, repository: str | Path) -> str:
    """Publish the image, and return its digest."""
    result = run_here("ingest-image", f"oci:{source}:1", "--repository", repository)
    assert result.code == 0, result.err
    shown = run_here("show", IMAGE, "--repository", repository, "--output", "json")
    return str(shown.json["manifestDigest"])


def wait(*arguments: str | Path, timeout: str = "0s") -> Result:
    return run_here("wait", *arguments, "--timeout", timeout)


def document(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    result = wait(*arguments, "--output", "json")
    assert result.code == code, result.err
    strict(output_schema("wait/1")).validate(result.json)
    value: dict[str, Any] = result.json
    return value


def await_image(
    place: Path, clock: SkippingClock, digest: str = "", seconds: float = 600
) -> tuple[WaitResult, list[str]]:
    reports: list[str] = []
    awaited = ImageWait(
        lambda: open_repository(str(place), may_be_new=True),
        IMAGE,
        digest,
        lambda name: "",
        None,
        reports.append,
        clock,
    )
    return awaited.run(seconds), reports


def test_the_wait_ends_when_the_image_is_published(tmp_path: Path, source: Path) -> None:
    place = tmp_path / "images"
    clock = EventfulClock(*[lambda: None] * 8, lambda: publish(source, place))
    result, reports = await_image(place, clock)
    assert result.missing == ""
    assert result.image is not None and result.image.name == IMAGE
    assert reports == [f"waiting: {IMAGE} is not published"]
    assert len(clock.waits) == 9
    assert clock.waits[0] <= 1 and 20 < clock.waits[-1] <= LONGEST_PAUSE
    # The last look is at the end of the time.
    clock = EventfulClock()
    result, _ = await_image(tmp_path / "other", clock, seconds=100)
    assert result.missing == f"{IMAGE} is not published"
    assert sum(clock.waits) == pytest.approx(100)


def test_the_image_must_have_the_wanted_digest(tmp_path: Path, source: Path) -> None:
    place = tmp_path / "images"
    first = publish(source, place)
    write_layout(image(layer(file("motd", b"new"))), source, "1")
    clock = EventfulClock(lambda: publish(source, place))
    assert document(IMAGE, "--repository", place, "--digest", first)["manifestDigest"] == first
    wanted = "sha256:" + 64 * "0"
    late = document(IMAGE, "--repository", place, "--digest", wanted, code=6)
    assert late["missing"] == f"{IMAGE} is published with another digest, {first}"
    assert (late["published"], late["manifestDigest"], late["replicas"]) == (False, None, [])
    second = run_here("inspect", f"oci:{source}:1", "--output", "json").json["digest"]
    result, reports = await_image(place, clock, second)
    assert result.image is not None and result.image.manifest_digest == second
    assert reports == [f"waiting: {IMAGE} is published with another digest, {first}"]
    usage = wait(IMAGE, "--repository", place, "--digest", "latest")
    assert usage.code == 2 and "'latest' is not a digest" in usage.err


def test_the_reason_of_a_failure_is_what_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBLISHER_STATE", str(tmp_path / "state"))
    place = tmp_path / "images"
    with open_state(tmp_path / "state", f"dir:{place}", writable=True) as state:
        tries = Tries("/lists/a.yaml", IMAGE, IMAGE, first_seen=datetime.now(UTC))
        state.record_failure(tries, datetime.now(UTC), Cause.IMAGE_MISSING, "no such tag")
    late = document(IMAGE, "--repository", place, code=6)
    assert late["missing"].startswith(f"{IMAGE} is not published; failing since 20")
    assert f"try: publisher status {IMAGE}, or" in wait(IMAGE, "--repository", place).err
    assert ": no such tag (image-missing)" in late["missing"]


def test_the_digest_may_be_that_of_an_index_or_part_of_the_reference(
    tmp_path: Path, source: Path
) -> None:
    place = tmp_path / "images"
    publish(source, place)
    record = place / layout.publication_file(IMAGE)
    text = record.read_text()
    index = "sha256:" + 64 * "1"
    at = text.index("sha256:", text.index("source"))
    record.write_text(text[:at] + index + text[at + 71 :])
    found = document(IMAGE, "--repository", place, "--digest", index)
    assert found["sourceDigest"] == index
    other = f"registry.example.org/tool:1@{index}"
    late = document(other, "--repository", place, code=6)
    assert late["name"] == "registry.example.org/tool:1"


def test_a_damaged_record_and_a_missing_link_do_not_count_as_published(
    tmp_path: Path, source: Path
) -> None:
    place = tmp_path / "images"
    publish(source, place)
    link = place / IMAGE
    target = link.readlink()
    link.unlink()
    late = document(IMAGE, "--repository", place, code=6)
    assert late["missing"] == f"the public link of {IMAGE} is missing"
    link.symlink_to(target)
    record = place / layout.publication_file(IMAGE)
    sound = record.read_bytes()
    record.write_bytes(b"{")
    clock = EventfulClock(
        lambda: record.write_bytes(sound),
    )
    result, reports = await_image(place, clock)
    assert result.missing == ""
    assert "is unreadable" in reports[0]


def test_a_repository_that_cannot_be_read_for_a_while_is_read_again(
    tmp_path: Path, source: Path
) -> None:
    place, away = tmp_path / "images", tmp_path / "away"
    place.mkdir()
    clock = EventfulClock(
        lambda: write_new_file(place / "foreign", b""),
        (place / "foreign").unlink,
        lambda: publish(source, place),
    )
    result, reports = await_image(place, clock)
    assert result.missing == ""
    assert len(reports) == 3 and "cannot read repository" in reports[1]
    # An error at the first look is that of the command line.
    place.rename(away)
    write_new_file(place, b"")
    with pytest.raises(RepositoryError):
        await_image(place, EventfulClock())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = make_machine(tmp_path / "machine")
    for key, value in made.environment.items():
        monkeypatch.setenv(key, value)
    made.make(NAME)
    return made


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[list[Stratum1]]:
    with ExitStack() as stack:
        yield [stack.enter_context(stratum1(tmp_path / name)) for name in ("near", "far")]


def options(replicas: list[Stratum1], key: str = "master") -> list[str | Path]:
    addresses = [word for each in replicas for word in ("--replica", each.url)]
    return [*addresses, "--public-key", signer(key).public]


def test_replicas_are_awaited_until_each_serves_the_revision_of_the_image(
    machine: Machine, replicas: list[Stratum1], source: Path
) -> None:
    near, far = replicas
    publish(source, f"cvmfs:{NAME}")
    revision = machine.revision(NAME)
    assert revision > 1
    near.serve_revision(revision + 5)
    arguments = (IMAGE, "--repository", f"cvmfs:{NAME}", *options(replicas))
    late = document(*arguments, code=6)
    assert late["published"] and late["revision"] == revision
    assert [
        (each["url"], each["revision"], each["hasImage"], each["verified"], each["problem"])
        for each in late["replicas"]
    ] == [(near.url, revision + 5, True, True, ""), (far.url, 1, False, True, "")]
    text = wait(*arguments)
    assert f"{far.url}: revision 1 of " in text.out and f"{revision - 1} revision" in text.out
    assert f"{far.url} serves revision 1" in text.err and near.url not in text.err
    assert "try: cvmfs_server snapshot there, or" in text.err

    # Only the one that is behind is read again.
    count = len(near.requests)
    keys = read_public_keys(NAME, signer("master").public, Path())
    clock = EventfulClock(lambda: None, lambda: far.serve_revision(revision))
    with Replicas([near.url, far.url], NAME, keys, Settings()) as opened:
        awaited = ImageWait(
            lambda: open_repository(f"cvmfs:{NAME}"),
            IMAGE,
            "",
            lambda name: "",
            opened,
            lambda text: None,
            clock,
        )
        result = awaited.run(60)
    assert result.missing == ""
    assert [state.has_image for state in result.replicas] == [True, True]
    assert len(near.requests) == count + 3
    assert document(*arguments)["missing"] == ""


def test_a_replica_that_cannot_be_trusted_ends_the_wait(
    machine: Machine, replicas: list[Stratum1], source: Path
) -> None:
    publish(source, f"cvmfs:{NAME}")
    near, far = replicas
    near.serve_revision(9)
    arguments = (IMAGE, "--repository", f"cvmfs:{NAME}")
    far.serve(Files(revision=9, signer="other"))
    result = wait(*arguments, *options(replicas), "--output", "json", timeout="1h")
    assert result.code == 1
    assert result.json["error"]["kind"] == "untrusted-replica"
    assert result.json["error"]["data"] == {"url": far.url}
    assert result.json["error"]["why"] == "its certificate is not in the whitelist"
    result = wait(*arguments, *options([near], "other"), timeout="1h")
    assert result.code == 1 and "is not signed by the key of the repository" in result.err
    # The key is also found where CVMFS keeps it; without a key, the result states that.
    unchecked = wait(*arguments, "--replica", near.url)
    assert unchecked.code == 0 and "signature not checked: no public key" in unchecked.out
    keys = machine.configuration.parent / "keys"
    keys.mkdir()
    (keys / f"{NAME}.pub").write_bytes(signer("other").public.read_bytes())
    assert wait(*arguments, "--replica", near.url).code == 1
    (keys / f"{NAME}.pub").write_bytes(signer("master").public.read_bytes())
    assert "not checked" not in wait(*arguments, "--replica", near.url).out


def test_replicas_can_be_awaited_on_a_client_and_not_without_cvmfs(
    tmp_path: Path, source: Path, replicas: list[Stratum1]
) -> None:
    place = tmp_path / "images"
    publish(source, place)
    arguments = (IMAGE, "--repository", place, "--replica", replicas[0].url)
    refused = wait(*arguments)
    assert refused.code == 2 and "neither a CVMFS repository that this machine" in refused.err
    assert "--repository /cvmfs/NAME" in refused.err
    # Its client shows the mounted revision in these attributes.
    os.setxattr(place, "user.fqrn", NAME.encode())
    os.setxattr(place, "user.revision", b"2")
    assert wait(*arguments).code == 6
    replicas[0].serve_revision(2)
    assert document(*arguments)["revision"] == 2
    for address, reason in (("s1.example.org", "not an http"), ("http://a:b@s1", "password")):
        refused = wait(IMAGE, "--repository", place, "--replica", address)
        assert refused.code == 2 and reason in refused.err


def test_an_interrupt_ends_the_wait_while_a_replica_hangs(
    machine: Machine, replicas: list[Stratum1], source: Path
) -> None:
    publish(source, f"cvmfs:{NAME}")
    replicas[1].hangs.set()
    arguments = (IMAGE, "--repository", f"cvmfs:{NAME}", *options(replicas))
    waiting = subprocess.Popen(
        command("wait", *arguments),
        env=environment(None, **machine.environment),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: bool(replicas[1].requests) or waiting.poll() is not None, TIMEOUT)
    waiting.send_signal(signal.SIGINT)
    _, errors = waiting.communicate(timeout=TIMEOUT)
    assert waiting.returncode == 130
    assert "interrupted" in errors and "Traceback" not in errors
