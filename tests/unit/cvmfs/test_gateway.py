"""Several publishers of one repository, through the leases of a gateway."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from publisher.verify import verify
from tests.command import command, environment, publisher, succeed
from tests.cvmfs import Machine, make_machine
from tests.layer_builder import directory, file, hardlink, image, layer, write_layout

NAME = "images.test.org"
BASE = layer(directory("etc"), file("etc/os", b"base"))


@pytest.fixture
def publishers(machine: Machine, tmp_path: Path) -> list[Machine]:
    """Two machines with a gateway key each; what one publishes, both can read."""
    machine.make(NAME, "-u", "gw,/srv/cvmfs,http://gateway")
    other = make_machine(tmp_path / "other")
    (other.root / "srv").symlink_to(machine.root / "srv")
    (other.root / "cvmfs").symlink_to(machine.root / "cvmfs")
    other.make(NAME, "-u", "gw,/srv/cvmfs,http://gateway")
    succeed("init", f"cvmfs:{NAME}", env=machine.environment)
    return [machine, other]


def tag(tmp_path: Path, name: str, content: bytes) -> str:
    borrowing = layer(file("own", content), hardlink("again", "etc/os"))
    write_layout(image(BASE, layer(file("plain", content)), borrowing), tmp_path / "layout", name)
    return f"oci:{tmp_path}/layout:{name}"


def arguments(reference: str, wait: int = 120) -> tuple[str, ...]:
    repository = ("--repository", f"cvmfs:{NAME}", "--wait", str(wait))
    return ("ingest-image", reference, "--name", "tool", *repository)


def test_an_image_is_published_in_calls_that_a_gateway_takes(
    publishers: list[Machine], tmp_path: Path
) -> None:
    machine = publishers[0]
    succeed(*arguments(tag(tmp_path, "1", b"1")), env=machine.environment)
    mount = machine.mount(NAME)
    assert (mount / "local/tool:1/own").read_bytes() == b"1"
    assert (mount / "local/tool:1/again").read_bytes() == b"base"
    assert (mount / ".layers/00/.cvmfscatalog").is_file(), "init makes the shards, for leases"
    ingests = [call for call in machine.calls() if call[0] == "ingest"]
    for call in ingests:
        assert call.count("-d") == 0
    bases = [call[call.index("-b") + 1] for call in ingests]
    assert sum(base.startswith(".layers/") for base in bases) == 2
    assert [node.stat().st_uid for node in mount.rglob("*")] == [os.geteuid()] * len(
        list(mount.rglob("*"))
    )
    repository = machine.open(NAME, writable=False)
    assert not verify(repository, deep=True).findings


def test_removal_deletes_one_path_a_call_after_the_names_are_gone(
    publishers: list[Machine], tmp_path: Path
) -> None:
    machine = publishers[0]
    succeed(*arguments(tag(tmp_path, "1", b"1")), env=machine.environment)
    repository = ("--repository", f"cvmfs:{NAME}")
    succeed("remove", "local/tool:1", *repository, env=machine.environment)
    before = len(machine.calls())
    succeed("gc", "--now", *repository, env=machine.environment)
    calls = [call for call in machine.calls()[before:] if call[0] in ("ingest", "transaction")]
    assert calls[0][0] == "transaction"
    assert all(call.count("-d") == 1 and "-t" not in call for call in calls[1:])
    assert len(calls) > 2
    assert not (machine.mount(NAME) / "local").exists()


def test_two_publishers_at_once_lose_no_record_of_each_other(
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
    mount = publishers[0].mount(NAME)
    hexadecimal = BASE.descriptor.digest.removeprefix("sha256:")
    origin = mount / ".layers" / hexadecimal[:2] / hexadecimal / ".metadata/origin.json"
    assert len(json.loads(origin.read_bytes())["origin"]) == 4
    repository = publishers[1].open(NAME, writable=False)
    assert not verify(repository, deep=True).findings


def test_a_lease_that_stays_is_reported(publishers: list[Machine], tmp_path: Path) -> None:
    one, other = publishers
    assert other.server("transaction", NAME).returncode == 0
    result = publisher(*arguments(tag(tmp_path, "1", b"1"), wait=1), env=one.environment)
    assert result.code == 3
    assert "lease" in result.err
    assert other.server("abort", "-f", NAME).returncode == 0
    succeed(*arguments(tag(tmp_path, "1", b"1")), env=one.environment)
