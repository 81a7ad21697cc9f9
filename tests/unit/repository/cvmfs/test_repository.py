"""A CVMFS repository: publications, moved tags, removals, refusals of the server, crashes."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from publisher.ingest.report import Status
from publisher.ingest.run import ingest
from publisher.layers.policy import Policy
from publisher.removal.gc import Choice, collect
from publisher.repository import RepositoryBusy, RepositoryError
from publisher.repository.cvmfs import execution, stream
from publisher.repository.cvmfs.configuration import load_configuration
from publisher.repository.cvmfs.repository import CvmfsRepository
from publisher.repository.cvmfs.sending import send
from publisher.repository.cvmfs.server import ServerRefused
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.verify.initialize import initialize
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.command import command, environment, publisher, succeed
from tests.components import program, require_mounts
from tests.cvmfs import Machine
from tests.layer_builder import directory, file, image, layer, symlink, whiteout, write_layout
from tests.trees import describe_tree

NAME = "images.test.org"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)

BASE = layer(directory("etc"), file("etc/motd", b"hello"), symlink("link", "etc/motd"))
MORE = [layer(file(f"more/{n}", b"%d" % n)) for n in range(3)]
FIRST = image(BASE)
SECOND = image(BASE, *MORE)
THIRD = image(layer(file("other", b"other"), whiteout("nothing")))


@pytest.fixture
def mount(machine: Machine) -> Path:
    """Where the new repository is read."""
    return machine.published(machine.make(NAME))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A layout with the tags 1 (two images may take it), 2 and 3."""
    folder = tmp_path / "layout"
    for tag, built in (("1", FIRST), ("2", SECOND), ("3", THIRD)):
        write_layout(built, folder, tag)
    return folder


@contextmanager
def opened(
    machine: Machine,
    wait: float = 0.0,
    *,
    writable: bool = True,
    verify: bool = False,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[CvmfsRepository]:
    repository = machine.open(NAME, wait=wait, writable=writable, verify=verify, on_wait=on_wait)
    try:
        yield repository
    finally:
        repository.close()


def publish(
    repository: CvmfsRepository, images: Path, *tags: str, now: datetime = NOW
) -> list[Status]:
    requests = [Request(wish_for(f"oci:{images}:{tag}", name="tool")) for tag in tags]
    with Sources() as sources:
        report = ingest(requests, repository, sources, now=lambda: now)
    assert not report.failed, [outcome.error for outcome in report.failed]
    return [outcome.status for outcome in report.outcomes]


def is_clean(machine: Machine) -> bool:
    """Whether no transaction is open, and the publisher left no temporary files."""
    state = machine.state / NAME / layout.STATE
    listed = machine.server("list").stdout.decode()
    leftovers = [*(state / "sessions").iterdir(), *(state / "blobs").iterdir()]
    return (
        "transaction" not in listed
        and not (state / "server-command.json").exists()
        and not leftovers
    )


# Revisions


def test_a_new_image_and_a_moved_tag_take_one_revision_and_no_change_takes_none(
    machine: Machine, mount: Path, images: Path
) -> None:
    with opened(machine, verify=True) as repository:
        assert publish(repository, images, "1") == [Status.PUBLISHED]
        assert machine.revision(NAME) == 2
        write_layout(SECOND, images, "1")
        assert publish(repository, images, "1") == [Status.UPDATED]
        assert machine.revision(NAME) == 3
        assert publish(repository, images, "1") == [Status.UNCHANGED]
        assert machine.revision(NAME) == 3
    assert (mount / "local/tool:1/more/2").read_bytes() == b"2"
    assert (mount / "local/tool:1/etc/motd").read_bytes() == b"hello"
    assert is_clean(machine)
    assert [c[0] for c in machine.calls()] == ["mkfs", "ingest", "ingest", "list"]


def test_deep_verification_reads_whiteouts_through_the_read_only_mount(
    machine: Machine, mount: Path, images: Path
) -> None:
    """Like an overlayfs, the union mount lists a whiteout and does not find it."""
    with opened(machine) as repository:
        publish(repository, images, "1", "2", "3")
    with opened(machine, writable=False) as repository:
        report = verify(repository, deep=True)
    assert not report.findings, report.findings


def test_init_prepares_the_top_directories_once(machine: Machine, mount: Path) -> None:
    with opened(machine) as repository:
        assert initialize(repository, Policy(readable=True))
        assert not initialize(repository, Policy(readable=True))
    assert machine.revision(NAME) == 2
    for top in (".layers", ".flat", ".metadata"):
        assert (mount / top / ".cvmfscatalog").is_file()
    assert {node.uid for node in describe_tree(mount).values()} == {os.geteuid()}


def test_collecting_a_batch_takes_two_revisions_and_leaves_a_sound_tree(
    machine: Machine, mount: Path, images: Path
) -> None:
    with opened(machine) as repository:
        publish(repository, images, "1", "2", "3")
        write_layout(SECOND, images, "1")
        write_layout(SECOND, images, "3")
        publish(repository, images, "1", "3")
        before = machine.revision(NAME)
        later = NOW + timedelta(days=400)
        collection = collect(repository, Choice(), lambda: later)
        assert len(collection.released) == 2
        assert machine.revision(NAME) - before <= 2
        digest = THIRD.layers[0].descriptor.digest
        assert not repository.exists(layout.layer_directory(digest))
        assert not verify(repository, deep=True).findings
    # Once more there is nothing to do.
    with opened(machine) as repository:
        revision = machine.revision(NAME)
        collect(repository, Choice(), lambda: later)
        assert machine.revision(NAME) == revision
    assert is_clean(machine)


# Reading


def test_without_a_mount_the_metadata_mirror_is_read(
    machine: Machine, mount: Path, images: Path
) -> None:
    with opened(machine) as repository:
        publish(repository, images, "1")
    with machine.nothing_mounted(NAME), opened(machine) as repository:
        assert list(repository.names()) == ["local/tool:1"]
        assert publish(repository, images, "1") == [Status.UNCHANGED]
        assert repository.has_layer(BASE.descriptor.digest)
        with repository.open_index(BASE.descriptor.digest) as index:
            assert index.read()
        with pytest.raises(RepositoryError, match="not mounted"):
            list(repository.walk(".flat"))


def test_without_a_mount_a_mirror_that_is_not_current_is_refused(
    machine: Machine, mount: Path, images: Path
) -> None:
    with opened(machine) as repository:
        publish(repository, images, "1")
    machine.server("transaction", NAME)
    machine.server("publish", NAME)
    with machine.nothing_mounted(NAME):
        with pytest.raises(RepositoryError, match="another publisher changed") as caught:
            machine.open(NAME)
    assert "cvmfs_server mount" in caught.value.hint


def test_an_open_index_keeps_no_file_of_the_mount_open(
    machine: Machine, mount: Path, images: Path
) -> None:
    with opened(machine) as repository:
        publish(repository, images, "1")
        with repository.open_index(BASE.descriptor.digest):
            links = [
                os.readlink(f"/proc/self/fd/{n}")
                for n in os.listdir("/proc/self/fd")
                if os.path.lexists(f"/proc/self/fd/{n}")
            ]
            assert not any(link.startswith(str(mount)) for link in links)


def test_nothing_in_the_mount_is_opened_while_content_is_sent(
    machine: Machine, mount: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server looks for open files meanwhile, and refuses to publish if it finds one."""
    opened_while_sending: list[str] = []
    sending: list[bool] = []

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if sending and event in ("open", "os.listdir", "os.scandir"):
            place = arguments[0]
            if isinstance(place, str | os.PathLike) and Path(place).is_relative_to(mount):
                opened_while_sending.append(f"{event} {place}")

    def watched(*arguments: object) -> None:
        sending.append(True)
        try:
            send(*arguments)  # type: ignore[arg-type]
        finally:
            sending.clear()
            sent.append(True)

    sent: list[bool] = []
    sys.addaudithook(audit)  # for good, but it looks at nothing after this test
    monkeypatch.setattr(execution, "send", watched)
    with opened(machine) as repository:
        publish(repository, images, "1")
        publish(repository, images, "2")
    assert len(sent) == 2
    assert not opened_while_sending


def test_a_mount_whose_client_has_died_is_an_error_and_not_an_empty_repository(
    machine: Machine, mount: Path, images: Path, tmp_path: Path
) -> None:
    require_mounts()
    fuse = program("fuse-overlayfs")
    with opened(machine) as repository:
        publish(repository, images, "1")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", mount, copy], check=True)
    client = subprocess.Popen([fuse, "-f", "-o", f"lowerdir={copy}", mount])
    try:
        deadline = time.monotonic() + 60
        while not os.path.ismount(mount):
            assert time.monotonic() < deadline and client.poll() is None
            time.sleep(0.01)
        reader = machine.open(NAME, writable=False)
        assert list(reader.names()) == ["local/tool:1"]
    finally:
        client.kill()
        client.wait()
    # What the kernel does not know yet.
    unknown = layout.layer_index(BASE.digest)
    for read in (reader.exists, reader.read, reader.children, reader.kind):
        with pytest.raises(RepositoryError, match="Transport endpoint is not connected") as caught:
            read(unknown)
        assert f"cvmfs_server mount {NAME}" in caught.value.hint
    with pytest.raises(RepositoryError, match="Transport endpoint is not connected"):
        reader.has_layer(BASE.digest)


# Refusals


def unchanged(machine: Machine, mount: Path, before: dict[str, object]) -> None:
    assert describe_tree(mount) == before
    assert machine.revision(NAME) == 1


def test_without_cvmfs_server_the_error_names_the_package(
    machine: Machine, mount: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(machine) as repository:
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        with pytest.raises(RepositoryError, match="cvmfs_server is not installed") as caught:
            publish(repository, images, "1")
    assert "cvmfs-server" in caught.value.hint
    assert machine.revision(NAME) == 1


def test_an_unknown_repository_is_refused_and_the_known_ones_are_named(
    machine: Machine, mount: Path
) -> None:
    with pytest.raises(RepositoryError, match="does not publish that repository") as caught:
        load_configuration("other.test.org", machine.configuration)
    assert NAME in caught.value.hint


def test_a_user_who_is_neither_owner_nor_root_gets_the_command_to_run(
    machine: Machine, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(RepositoryError, match="it belongs to user") as caught:
        machine.open(NAME)
    assert "sudo -u" in caught.value.hint


def test_an_expired_whitelist_is_explained(machine: Machine, mount: Path, images: Path) -> None:
    before = describe_tree(mount)
    (machine.root / "srv/cvmfs" / NAME / "whitelist-expired").touch()
    with opened(machine) as repository, pytest.raises(ServerRefused, match="expired") as caught:
        publish(repository, images, "1")
    assert f"cvmfs_server resign {NAME}" in caught.value.hint
    assert describe_tree(mount) == before


def test_a_transaction_of_another_user_is_waited_for_and_not_changed(
    machine: Machine, mount: Path, images: Path
) -> None:
    machine.server("transaction", NAME)
    (machine.mount(NAME) / "by-hand").write_text("other")
    with opened(machine, wait=0.3) as repository:
        with pytest.raises(RepositoryBusy, match="another transaction has been open") as caught:
            publish(repository, images, "1")
    assert f"cvmfs_server abort {NAME}" in caught.value.hint
    assert (machine.mount(NAME) / "by-hand").read_text() == "other"
    assert b"in transaction" in machine.server("list").stdout
    # It publishes once the other transaction is closed, here when its wait begins.
    waits: list[str] = []

    def close_the_other(message: str) -> None:
        waits.append(message)
        machine.server("publish", NAME)

    with opened(machine, wait=60, on_wait=close_the_other) as repository:
        assert publish(repository, images, "1") == [Status.PUBLISHED]
    assert len(waits) == 1 and "another transaction has been open" in waits[0]
    assert (mount / "by-hand").read_text() == "other"
    assert machine.revision(NAME) == 3


def test_a_file_open_in_this_process_does_not_count_as_a_user_of_the_mount(
    machine: Machine, mount: Path, images: Path
) -> None:
    with opened(machine) as repository:
        publish(repository, images, "1")
        with (machine.mount(NAME) / layout.manifest_file("local/tool:1")).open("rb"):
            repository.guard.wait_until_free()


def test_a_process_with_its_working_directory_in_the_mount_is_named(
    machine: Machine, mount: Path, images: Path
) -> None:
    before = describe_tree(mount)
    user = subprocess.Popen(["sleep", "60"], cwd=machine.mount(NAME))
    try:
        with opened(machine, wait=0.2) as repository:
            with pytest.raises(RepositoryBusy, match=rf"process {user.pid} \(sleep\)"):
                publish(repository, images, "1")
    finally:
        user.kill()
        user.wait()
    assert describe_tree(mount) == before
    with opened(machine) as repository:
        assert publish(repository, images, "1") == [Status.PUBLISHED]


def test_a_directory_at_an_images_public_name_fails_that_image_only(
    machine: Machine, mount: Path, images: Path
) -> None:
    machine.server("transaction", NAME)
    (machine.mount(NAME) / "local/tool:1").mkdir(parents=True)
    machine.server("publish", NAME)
    requests = [Request(wish_for(f"oci:{images}:{tag}", name="tool")) for tag in ("1", "2")]
    with opened(machine) as repository, Sources() as sources:
        report = ingest(requests, repository, sources, jobs=1)
    assert [outcome.status for outcome in report.outcomes] == [Status.FAILED, Status.PUBLISHED]
    assert "directory that the publisher did not create" in report.outcomes[0].error


def test_a_full_spool_fails_the_image_and_names_the_directory(
    machine: Machine, mount: Path, images: Path, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], check=True)
    try:
        write_layout(image(layer(file("large", os.urandom(4_000_000)))), images, "large")
        repository = CvmfsRepository(
            machine.open(NAME).url,
            writable=True,
            wait=0,
            state=small,
            configuration=machine.configuration,
        )
        with Sources() as sources:
            wish = wish_for(f"oci:{images}:large", name="tool")
            report = ingest([Request(wish)], repository, sources)
        repository.close()
        assert report.failed
        assert "space" in report.outcomes[0].error
        assert str(small) in report.outcomes[0].error or NAME in report.outcomes[0].error
    finally:
        subprocess.run(["umount", small], check=True)
    assert machine.revision(NAME) == 1


@pytest.mark.parametrize("step", ["write_plan", "pending.write", "DirectoryTransaction.commit"])
def test_a_state_directory_that_is_full_is_named_and_the_next_run_publishes(
    machine: Machine,
    mount: Path,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
) -> None:
    caplog.set_level(logging.INFO, logger="publisher")

    def full(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    requests = [Request(wish_for(f"oci:{images}:1", name="tool"))]
    with opened(machine) as repository, Sources() as sources:
        with monkeypatch.context() as patched:
            patched.setattr(f"publisher.repository.cvmfs.transaction.{step}", full)
            [outcome] = ingest(requests, repository, sources).outcomes
        # The last step follows the server's publication, which the next transaction completes.
        is_published = step == "DirectoryTransaction.commit"
        assert outcome.status is (Status.PUBLISHED if is_published else Status.FAILED)
        text = caplog.text if is_published else outcome.error
        assert f"state of cvmfs:{NAME} in {machine.state}" in text
        assert "No space left on device" in text and "[Errno" not in text
    with opened(machine) as repository:
        publish(repository, images, "1")
        assert not verify(repository, deep=True).findings


def test_no_space_for_temporary_files_while_sending_fails_the_image_and_keeps_its_layers(
    machine: Machine, mount: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = layer(*(file(f"{n:0200}") for n in range(1000)))
    write_layout(image(many), images, "many")
    monkeypatch.setattr(stream, "_SCHEMA", f"{stream._SCHEMA} PRAGMA max_page_count = 20;")
    monkeypatch.setattr(stream, "_IN_MEMORY", 10)
    requests = [Request(wish_for(f"oci:{images}:many", name="tool"))]
    with opened(machine) as repository, Sources() as sources:
        report = ingest(requests, repository, sources)
        [outcome] = report.outcomes
        assert outcome.status is Status.FAILED
        assert "full" in outcome.error and "TMPDIR" in outcome.error
        assert repository.has_layer(many.digest), "its blob is sound"
    assert b"in transaction" not in machine.server("list").stdout
    assert machine.revision(NAME) == 1


def test_a_server_that_reports_success_and_did_nothing_is_detected(
    machine: Machine, mount: Path, images: Path
) -> None:
    real = (machine.bin / "cvmfs_server").read_text()
    (machine.bin / "cvmfs_server").write_text("#!/bin/sh\ncat > /dev/null\n")
    with opened(machine) as repository:
        with pytest.raises(RepositoryError, match="reported success, but revision 1 became 1"):
            publish(repository, images, "1")
    (machine.bin / "cvmfs_server").write_text(real)
    with opened(machine) as repository:
        assert publish(repository, images, "1") == [Status.PUBLISHED]


def test_the_output_of_a_failed_server_command_is_shown(
    machine: Machine, mount: Path, images: Path
) -> None:
    (machine.bin / "cvmfs_server").write_text("#!/bin/sh\necho flux capacitor >&2\nexit 5\n")
    with opened(machine) as repository, pytest.raises(ServerRefused) as caught:
        publish(repository, images, "1")
    assert "flux capacitor" in caught.value.why and "5" in caught.value.why


# Crashes


@pytest.mark.parametrize("moment", ["opened", "streaming", "read", "applied"])
def test_after_a_server_is_killed_its_transaction_is_aborted_and_the_next_run_publishes(
    machine: Machine, mount: Path, images: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = describe_tree(mount)
    monkeypatch.setenv("CVMFS_STANDIN_KILL", moment)
    with opened(machine) as repository:
        if moment == "applied":
            assert publish(repository, images, "1") == [Status.PUBLISHED]
        else:
            with pytest.raises(AssertionError, match="killed by signal 9"):  # the image failed
                publish(repository, images, "1")
    assert b"transaction" not in machine.server("list").stdout
    if moment != "applied":
        assert describe_tree(mount) == before
    with opened(machine) as repository:
        publish(repository, images, "1")
        assert not verify(repository, deep=True).findings
    assert (mount / "local/tool:1/etc/motd").read_bytes() == b"hello"
    assert moment == "applied" or is_clean(machine)


def test_a_publisher_killed_while_it_streams_publishes_nothing(
    machine: Machine, mount: Path, images: Path, tmp_path: Path
) -> None:
    noise = [layer(file(f"part{n}", os.urandom(6_000_000))) for n in range(2)]
    write_layout(image(*noise), images, "large")
    arguments = (
        "ingest-image",
        f"oci:{images}:large",
        "--name",
        "tool",
        "--repository",
        f"cvmfs:{NAME}",
    )
    pausing = {**machine.environment, "CVMFS_STANDIN_PAUSE": str(tmp_path / "go")}
    process = subprocess.Popen(command(*arguments), env=environment() | pausing)
    deadline = time.monotonic() + 60
    while not (tmp_path / "go.paused").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    (tmp_path / "go").touch()

    again = succeed(*arguments, "--wait", "60", "--output", "json", env=machine.environment)

    outcome = again.json["outcomes"][0]
    assert outcome["status"] == "published"
    assert outcome["layersReused"] == 2, "verified blobs of the killed run are kept"
    assert machine.revision(NAME) == 2, "nothing of the first attempt was published"
    assert (mount / "local/tool:large/part1").stat().st_size == 6_000_000


def test_the_transaction_of_a_killed_run_is_aborted(
    machine: Machine, mount: Path, images: Path
) -> None:
    with opened(machine) as repository:
        publish(repository, images, "1")
        before = describe_tree(mount)
        note = machine.state / NAME / layout.STATE / "server-command.json"
    done = machine.server("transaction", NAME)
    assert done.returncode == 0
    (machine.mount(NAME) / "half-done").write_text("")
    pid = int((machine.spool(NAME) / "in_transaction.lock").read_text())
    note.write_text(json.dumps({"pids": [pid], "began": time.time()}))
    with opened(machine) as repository:
        assert publish(repository, images, "2") == [Status.PUBLISHED]
    assert not (mount / "half-done").exists()
    assert before.keys() <= describe_tree(mount).keys() | {""}


def test_an_interrupt_ends_the_wait_for_the_server_of_a_killed_run(
    machine: Machine, mount: Path, images: Path
) -> None:
    stop = threading.Event()  # which the first SIGINT or SIGTERM sets
    note = machine.state / NAME / layout.STATE / "server-command.json"
    request = Request(wish_for(f"oci:{images}:1", name="tool"))
    repository = machine.open(NAME, wait=10_000, on_wait=lambda _: stop.set(), stop=stop)
    server = subprocess.Popen(["sleep", "10000"], start_new_session=True)
    try:
        note.write_text(json.dumps({"pids": [server.pid], "began": time.time()}))
        with Sources() as sources:
            report = ingest([request], repository, sources, stop=stop)
        assert server.poll() is None
    finally:
        server.kill()
        server.wait()
    assert report.interrupted and not report.outcomes
    assert note.exists(), "another run waits for it, and aborts its transaction"
    repository.close()
    with opened(machine) as repository:
        assert publish(repository, images, "1") == [Status.PUBLISHED]
    assert is_clean(machine)


def test_a_stale_note_does_not_abort_a_transaction_of_another_user(
    machine: Machine, mount: Path, images: Path
) -> None:
    with opened(machine) as repository:
        publish(repository, images, "1")
    note = machine.state / NAME / layout.STATE / "server-command.json"
    note.write_text(json.dumps({"pids": [2**22 - 3], "began": time.time()}))
    machine.server("transaction", NAME)
    (machine.mount(NAME) / "by-hand").write_text("other")
    with opened(machine) as repository, pytest.raises(RepositoryBusy):
        publish(repository, images, "2")
    assert (machine.mount(NAME) / "by-hand").exists()


# Commands


def test_the_command_line_publishes_lists_and_collects(
    machine: Machine, mount: Path, images: Path
) -> None:
    repository = ("--repository", f"cvmfs:{NAME}")
    env = machine.environment
    succeed("init", f"cvmfs:{NAME}", env=env)
    succeed(
        "ingest-image",
        f"oci:{images}:1",
        "--name",
        "tool",
        *repository,
        "--verify-publish",
        env=env,
    )
    assert "local/tool:1" in succeed("list", *repository, env=env).out
    assert "motd" in succeed("ls", "local/tool:1", "etc", *repository, env=env).out
    succeed("remove", "local/tool:1", *repository, env=env)
    revision = machine.revision(NAME)
    succeed("gc", "--now", *repository, env=env)
    assert machine.revision(NAME) - revision <= 2
    assert not os.path.lexists(mount / "local/tool:1")
    assert "local" not in succeed("list", *repository, env=env).out
    busy = machine.server("transaction", NAME)
    assert busy.returncode == 0
    refused = publisher(
        "ingest-image", f"oci:{images}:2", "--name", "tool", *repository, "--wait", "0", env=env
    )
    assert refused.code == 3 and "another transaction has been open" in refused.err
