"""Several publishers of one repository, through the leases of a gateway."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publisher.cli.main import main
from publisher.ingest.report import Status
from publisher.ingest.run import ingest
from publisher.repository import history
from publisher.repository.cvmfs.execution import Execution
from publisher.repository.cvmfs.repository import CvmfsRepository
from publisher.repository.cvmfs.transaction import CvmfsTransaction
from publisher.repository.history import History
from publisher.runtimes.podman import format as podman
from publisher.runtimes.squashfs_file import PROGRAM
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.tree.history import Record
from publisher.verify.findings import Kind
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.command import command, environment, publisher, succeed
from tests.components import require
from tests.cvmfs import Machine, die_around_calls, make_machine
from tests.gathering import gathered_commits
from tests.layer_builder import (
    directory,
    file,
    hardlink,
    image,
    layer,
    whiteout,
    write_layout,
)

NAME = "images.test.org"
BASE = layer(directory("etc"), file("etc/os", b"base"))


@pytest.fixture
def publishers(machine: Machine, tmp_path: Path) -> Iterator[list[Machine]]:
    """Two machines with a gateway key each; what one publishes, the other sees when it looks."""
    machine.make(NAME, "-u", "gw,/srv/cvmfs,http://gateway")
    other = make_machine(tmp_path / "other", overlay=machine.overlay)
    (other.root / "srv").symlink_to(machine.root / "srv")
    other.make(NAME, "-u", "gw,/srv/cvmfs,http://gateway")
    succeed("init", f"cvmfs:{NAME}", env=machine.environment)
    yield [machine, other]
    other.unmount()


def tag(tmp_path: Path, name: str, content: bytes) -> str:
    borrowing = layer(file("own", content), hardlink("again", "etc/os"))
    write_layout(image(BASE, layer(file("plain", content)), borrowing), tmp_path / "layout", name)
    return f"oci:{tmp_path}/layout:{name}"


def renewed(machine: Machine) -> CvmfsRepository:
    """The repository as it is now, as any client sees it."""
    for words in (("transaction", NAME), ("abort", "-f", NAME)):
        assert machine.server(*words).returncode == 0
    return machine.open(NAME, writable=False)


def arguments(reference: str, wait: int = 120) -> tuple[str, ...]:
    repository = ("--repository", f"cvmfs:{NAME}", "--wait", str(wait))
    return ("ingest-image", reference, "--name", "tool", *repository)


def test_an_image_is_published_in_calls_that_a_gateway_accepts(
    publishers: list[Machine], tmp_path: Path
) -> None:
    machine = publishers[0]
    succeed(*arguments(tag(tmp_path, "1", b"1")), env=machine.environment)
    renewed(machine)
    mount = machine.published(NAME)
    assert (mount / "local/tool:1/own").read_bytes() == b"1"
    assert (mount / "local/tool:1/again").read_bytes() == b"base"
    assert (mount / ".layers/00/.cvmfscatalog").is_file(), "init makes the shards, for leases"
    ingests = [call for call in machine.calls() if call[0] == "ingest"]
    for call in ingests:
        assert call.count("-d") == 0
    bases = [call[call.index("-b") + 1] for call in ingests]
    assert bases == [".layers", "/"]
    assert [node.stat().st_uid for node in mount.rglob("*")] == [os.geteuid()] * len(
        list(mount.rglob("*"))
    )
    repository = renewed(machine)
    assert not verify(repository, deep=True).findings


def test_images_that_are_ready_together_take_as_many_revisions_as_one(
    publishers: list[Machine], tmp_path: Path
) -> None:
    machine, other = publishers
    tags = [str(number) for number in range(4)]
    for name in tags:
        tag(tmp_path, name, name.encode())
    before = machine.revision(NAME)
    requests = [Request(wish_for(f"oci:{tmp_path}/layout:{n}", name="tool")) for n in tags[:3]]
    with pytest.MonkeyPatch.context() as patch:
        for key, value in machine.environment.items():
            patch.setenv(key, value)
        repository = machine.open(NAME, wait=120)
        with Sources() as sources, gathered_commits(3):
            report = ingest(requests, repository, sources, jobs=3)
        repository.close()
    assert [each.status for each in report.outcomes] == [Status.PUBLISHED] * 3
    assert machine.revision(NAME) - before <= 3
    for name in tags[:3]:
        mount = machine.published(NAME)
        renewed(machine)
        assert (mount / f"local/tool:{name}/own").read_bytes() == name.encode()
        assert (mount / f"local/tool:{name}/again").read_bytes() == b"base"
    succeed(*arguments(f"oci:{tmp_path}/layout:3"), env=other.environment)
    assert not verify(renewed(machine), deep=True).findings


def test_a_new_image_of_many_layers_and_a_moved_tag_take_at_most_three_revisions(
    publishers: list[Machine], tmp_path: Path
) -> None:
    machine = publishers[0]
    before = machine.revision(NAME)
    for content in (b"1", b"2"):
        layers = [layer(file(f"{n}", content)) for n in range(5)]
        borrowing = layer(file("own", content), hardlink("again", "etc/os"))
        write_layout(image(BASE, *layers, borrowing), tmp_path / "layout", "1")
        succeed(*arguments(f"oci:{tmp_path}/layout:1"), env=machine.environment)
        assert machine.revision(NAME) - before <= 3
        before = machine.revision(NAME)
    assert not verify(renewed(machine), deep=True).findings


def test_a_collection_is_one_revision_decided_under_the_lease(
    publishers: list[Machine], tmp_path: Path
) -> None:
    machine = publishers[0]
    succeed(*arguments(tag(tmp_path, "1", b"1")), env=machine.environment)
    repository = ("--repository", f"cvmfs:{NAME}")
    succeed("remove", "local/tool:1", *repository, env=machine.environment)
    before = machine.revision(NAME)
    succeed("gc", "--now", *repository, env=machine.environment)
    assert machine.revision(NAME) == before + 1
    left = renewed(machine)
    assert not left.exists("local") and not list(left.names())
    assert not verify(left, deep=True).findings


def test_a_collection_removes_trees_with_directories_and_whiteouts_from_the_union_mount(
    publishers: list[Machine], tmp_path: Path
) -> None:
    """Directories of the published tree cannot be renamed there, nor whiteouts be looked up."""
    machine = publishers[0]
    deep = "/".join("d" * 200 for _ in range(12))
    base = layer(directory("a"), directory("a/b"), file("a/b/f", b"1"), file(f"{deep}/f", b"2"))
    upper = layer(whiteout("a/b/f"), whiteout("etc"), file("own", b"own"))
    write_layout(image(base, upper), tmp_path / "layout", "1")
    succeed(*arguments(f"oci:{tmp_path}/layout:1"), env=machine.environment)
    repository = ("--repository", f"cvmfs:{NAME}")
    succeed("remove", "local/tool:1", *repository, env=machine.environment)
    succeed("gc", "--now", *repository, env=machine.environment)
    left = renewed(machine)
    assert not verify(left, deep=True).findings
    assert not left.children(".layers/" + base.digest.removeprefix("sha256:")[:2])


def test_a_collection_sees_what_another_publisher_published_before_it(
    publishers: list[Machine], tmp_path: Path
) -> None:
    one, other = publishers
    repository = ("--repository", f"cvmfs:{NAME}")
    succeed(*arguments(tag(tmp_path, "1", b"1")), env=one.environment)
    succeed("remove", "local/tool:1", *repository, env=one.environment)
    succeed(*arguments(tag(tmp_path, "2", b"1")), env=other.environment)  # of the same layers
    assert not (one.published(NAME) / "local/tool:2").exists(), "it does not know yet"
    succeed("gc", "--now", *repository, env=one.environment)
    now = renewed(one)
    assert list(now.names()) == ["local/tool:2"]
    assert not verify(now, deep=True).findings


def test_an_image_requested_again_elsewhere_during_its_collection_is_published_in_the_end(
    publishers: list[Machine], tmp_path: Path
) -> None:
    one, other = publishers
    repository = ("--repository", f"cvmfs:{NAME}")
    reference = tag(tmp_path, "1", b"1")
    succeed(*arguments(reference), env=one.environment)
    succeed("remove", "local/tool:1", *repository, env=one.environment)
    commands = [(("gc", "--now", *repository), one), (arguments(reference), other)]
    processes = [
        subprocess.Popen(command(*words), env=environment() | m.environment, stderr=subprocess.PIPE)
        for words, m in commands
    ]
    for process in processes:
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err.decode()
    now = renewed(other)
    assert not verify(now, deep=True).findings
    # It was published anew, or had been there when it was looked for, and was then collected.
    succeed(*arguments(reference), env=other.environment)
    assert list(renewed(one).names()) == ["local/tool:1"]


def test_no_link_is_published_if_the_server_did_not_publish_the_content(
    publishers: list[Machine], tmp_path: Path
) -> None:
    one, _ = publishers
    real = (one.bin / "cvmfs_server").read_text()
    lie = '#!/bin/sh\ncase "$*" in "ingest -t - -b / "*) cat > /dev/null; exit 0;; esac\n'
    fake = lie + real.partition("\n")[2]
    (one.bin / "cvmfs_server").write_text(fake)
    result = publisher(*arguments(tag(tmp_path, "1", b"1")), env=one.environment)
    assert result.code == 3 and "cannot verify the publication to" in result.err
    (one.bin / "cvmfs_server").write_text(real)
    assert not list(renewed(one).names())
    succeed(*arguments(tag(tmp_path, "1", b"1")), env=one.environment)
    assert not verify(renewed(one), deep=True).findings


def test_a_lease_of_another_publisher_is_waited_for_and_its_layer_is_used(
    publishers: list[Machine], tmp_path: Path
) -> None:
    """The lease of its shard excludes a lease of all layers."""
    one, other = publishers
    reference = tag(tmp_path, "1", b"1")
    shard = layout.layer_directory(BASE.descriptor.digest).rpartition("/")[0]
    assert other.server("transaction", f"{NAME}/{shard}").returncode == 0
    process = subprocess.Popen(command(*arguments(reference)), env=environment() | one.environment)
    deadline = time.monotonic() + 60
    while sum(call[0] == "ingest" and ".layers" in call for call in one.calls()) < 2:
        assert time.monotonic() < deadline and process.poll() is None, "it asks again"
        time.sleep(0.02)
    assert other.server("abort", "-f", NAME).returncode == 0
    assert process.wait(120) == 0
    assert not verify(renewed(other), deep=True).findings


def test_concurrent_publishers_keep_each_others_records(
    publishers: list[Machine], tmp_path: Path
) -> None:
    running = []
    for number, machine in enumerate(publishers):
        for each in range(2):
            reference = tag(tmp_path, f"{number}-{each}", b"%d%d" % (number, each))
            running.append((machine, reference))
    processes = [
        subprocess.Popen(
            command(*arguments(reference)),
            env=environment() | machine.environment,
            stderr=subprocess.PIPE,
        )
        for machine, reference in running
    ]
    for process in processes:
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err.decode()
    repository = renewed(publishers[1])
    mount = publishers[1].published(NAME)
    hexadecimal = BASE.descriptor.digest.removeprefix("sha256:")
    origin = mount / ".layers" / hexadecimal[:2] / hexadecimal / ".metadata/origin.json"
    assert len(json.loads(origin.read_bytes())["origin"]) == 4
    assert not verify(repository, deep=True).findings


@pytest.mark.parametrize("what", ["ingest", "gc"])
def test_a_publisher_killed_around_any_server_call_leaves_a_valid_repository(
    publishers: list[Machine], tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, other = publishers
    repository = ("--repository", f"cvmfs:{NAME}")
    one, two = (tag(tmp_path, name, name.encode()) for name in "12")
    succeed(*arguments(one), env=machine.environment)
    words: tuple[str, ...] = arguments(two)
    if what == "gc":
        succeed("remove", "local/tool:1", *repository, env=machine.environment)
        words = ("gc", "--now", *repository)
    monkeypatch.setattr("sys.argv", ["publisher", *words])
    kills = 0
    while True:
        pid = os.fork()
        if pid == 0:
            try:
                die_around_calls(kills)
                main()
            finally:
                os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
            break
        kills += 1
        machine.open(NAME).close()  # what it left open is aborted
        assert_whole(renewed(other))
    assert kills >= 2
    succeed(*words, env=machine.environment)
    now = renewed(other)
    assert list(now.names()) == (["local/tool:1", "local/tool:2"] if what == "ingest" else [])
    assert not verify(now, deep=True).findings


@pytest.mark.parametrize("step", ["before the records", "after the records", "in the history"])
def test_the_history_has_what_a_killed_publisher_published_once(
    publishers: list[Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Also if another publisher changes the same records before the killed one is started again."""
    machine, other = publishers
    words = arguments(tag(tmp_path, "1", b"1"))
    monkeypatch.setattr("sys.argv", ["publisher", *words])
    pid = os.fork()
    if pid == 0:
        try:
            die_at(step)
            main()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    succeed(*arguments(tag(tmp_path, "2", b"1")), env=other.environment)  # of the same layers
    is_published = step != "before the records"
    for _ in range(2):
        machine.open(NAME).close()
        found = published_in(machine.open(NAME, writable=False).history())
        assert found == (["local/tool:1"] if is_published else [])
    succeed(*words, env=machine.environment)
    assert published_in(machine.open(NAME, writable=False).history()) == ["local/tool:1"]
    assert published_in(other.open(NAME, writable=False).history()) == ["local/tool:2"]
    assert not verify(renewed(machine), deep=True).findings


def published_in(records: Iterator[Record]) -> list[str]:
    """The names of published images in a history."""
    changes = itertools.chain.from_iterable(record.changes for record in records)
    return [change.name for change in changes if change.what == "published"]


def die_at(step: str) -> None:
    """Kill this process before or after the call that publishes records, or in its history."""
    if step == "before the records":
        die_before_edit(0)
        return

    def dying(*arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if step == "after the records":
        CvmfsTransaction._update_mirror = dying  # type: ignore[method-assign]
    else:
        History._rotate = dying  # type: ignore[method-assign]
        history.MAX_BYTES = 0


def test_content_that_a_killed_publisher_left_without_records_is_not_visible_and_is_used_later(
    publishers: list[Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content of an image and of its squashfs file is sent before the call with the records."""
    require(PROGRAM)
    machine, other = publishers
    for edit, step in enumerate(("before the records", "before the record of the file")):
        name = step.replace(" ", "-")
        wish = {"image": tag(tmp_path, name, step.encode()), "name": "tool"}
        wishes = tmp_path / f"{name}.yaml"
        outputs = ["flat", "layers", "podman", "squashfs"]
        wishes.write_text(json.dumps({"version": 2, "images": [{**wish, "outputs": outputs}]}))
        words = ("ingest", wishes, "--repository", f"cvmfs:{NAME}", "--wait", "120")
        monkeypatch.setattr("sys.argv", ["publisher", *map(str, words)])
        pid = os.fork()
        if pid == 0:
            try:
                die_before_edit(edit)
                main()
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        seen = renewed(other)
        found = {finding.kind for finding in verify(seen).findings}
        public = f"local/tool:{name}"
        if step == "before the records":
            assert found == {Kind.ORPHAN_LAYER, Kind.ORPHAN_FLAT}
            paths = (public, layout.manifest_file(public), layout.squashfs_link(public))
            assert not any(map(seen.exists, paths))
            assert name not in (seen.read(podman.IMAGES_FILE) or b"").decode()
        else:
            assert found == {Kind.SQUASHFS_MISSING, Kind.LINK_MISSING}
            assert (other.published(NAME) / public / "own").read_bytes() == step.encode()
            assert not seen.exists(layout.squashfs_link(public))
        succeed(*words, env=other.environment)
        now = renewed(machine)
        assert not verify(now, deep=True).findings
        assert now.exists(layout.squashfs_link(public))


def die_before_edit(number: int) -> None:
    """Kill this process before one of the calls (0, 1, …) that publish records at a gateway."""
    edits = itertools.count()
    edit = Execution._edit

    def dying(self: Execution, *arguments: Any) -> None:
        if next(edits) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        edit(self, *arguments)

    Execution._edit = dying  # type: ignore[assignment, method-assign]


def assert_whole(repository: CvmfsRepository) -> None:
    """Readers see whole images; content that nothing leads to yet is nothing to them."""
    found = verify(repository, deep=True).findings
    superfluous = (Kind.ORPHAN_LAYER, Kind.ORPHAN_FLAT)
    assert not [finding for finding in found if finding.kind not in superfluous], found


def test_a_lease_that_is_not_returned_is_reported(
    publishers: list[Machine], tmp_path: Path
) -> None:
    one, other = publishers
    assert other.server("transaction", NAME).returncode == 0
    result = publisher(*arguments(tag(tmp_path, "1", b"1"), wait=1), env=one.environment)
    assert result.code == 3
    assert "lease" in result.err
    assert other.server("abort", "-f", NAME).returncode == 0
    succeed(*arguments(tag(tmp_path, "1", b"1")), env=one.environment)
