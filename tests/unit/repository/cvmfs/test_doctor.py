"""`publisher doctor` names what will fail before it does, with what to do about it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.command import Result, publisher, succeed
from tests.components import require_mounts
from tests.cvmfs import Machine
from tests.layer_builder import file, image, layer, write_layout
from tests.registry import OwnRegistry
from tests.schemas import output_schema, strict

NAME = "images.test.org"


@pytest.fixture
def ready(machine: Machine) -> Machine:
    machine.make(NAME)
    succeed("init", f"cvmfs:{NAME}", env=machine.environment)
    return machine


def doctor(machine: Machine, *more: str) -> Result:
    arguments = ("--repository", f"cvmfs:{NAME}", "--output", "json", *more)
    return publisher("doctor", *arguments, env=machine.environment)


def finding(result: Result, subject: str) -> dict[str, Any]:
    [found] = [check for check in result.json["checks"] if check["subject"] == subject]
    assert isinstance(found, dict)
    return found


def test_a_healthy_repository_has_no_problem(ready: Machine) -> None:
    result = doctor(ready)
    assert result.code == 0
    assert {check["verdict"] for check in result.json["checks"]} <= {"good", "warning"}
    assert all(check["cure"] for check in result.json["checks"] if check["verdict"] != "good")
    strict(output_schema("doctor/1")).validate(result.json)
    assert "2.12" in finding(result, "cvmfs_server")["finding"]


def test_a_repository_without_records_is_examined(
    machine: Machine,
) -> None:
    machine.make(NAME)
    result = doctor(machine)
    assert result.code == 0
    assert finding(result, "records")["verdict"] == "warning"


def test_an_open_transaction_an_unhealthy_one_and_an_expired_whitelist_are_distinguished(
    ready: Machine,
) -> None:
    ready.server("transaction", NAME)
    found = finding(doctor(ready), "server")
    assert found["verdict"] == "warning" and "cvmfs_server abort" in found["cure"]
    ready.server("abort", "-f", NAME)
    ready.server("ingest", "-d", "x", NAME, env={"CVMFS_STANDIN_KILL": "opened"})
    result = doctor(ready)
    assert result.code == 1
    assert "unhealthy" in finding(result, "server")["finding"]
    ready.server("abort", "-f", NAME)
    (ready.root / "srv/cvmfs" / NAME / "whitelist-expired").touch()
    assert "resign" in finding(doctor(ready), "server")["cure"]


def test_a_whitelist_that_ends_soon_is_a_warning(ready: Machine) -> None:
    file = ready.root / "srv/cvmfs" / NAME / ".cvmfswhitelist"
    for days, verdict in ((3, "warning"), (-1, "problem"), (30, "good")):
        until = time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time() + days * 86400))
        file.write_text(f"20260101000000\nE{until}\nN{NAME}\n00:00\n--\n")
        assert finding(doctor(ready), "whitelist")["verdict"] == verdict


def test_a_process_that_uses_the_mount_is_named(ready: Machine) -> None:
    user = subprocess.Popen(["sleep", "60"], cwd=ready.mount(NAME))
    try:
        assert (
            f"process {user.pid} (sleep)" in finding(doctor(ready), "users of the mount")["finding"]
        )
    finally:
        user.kill()
        user.wait()


def test_another_mount_namespace_that_has_the_repository_mounted_is_named(ready: Machine) -> None:
    require_mounts()
    assert finding(doctor(ready), "mount namespaces")["verdict"] == "good"
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", "echo ready; exec sleep 60"], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
        found = finding(doctor(ready), "mount namespaces")
        assert found["verdict"] == "warning"
        assert f"the mount namespace of process {holder.pid} (sleep) has" in found["finding"]
    finally:
        holder.kill()
        holder.communicate()


def test_an_old_server_and_a_missing_one_are_problems(ready: Machine) -> None:
    command = ready.bin / "cvmfs_server"
    command.write_text("#!/bin/sh\necho 'CernVM-FS Server Tool 2.9.4'\nexit 1\n")
    found = finding(doctor(ready), "cvmfs_server")
    assert found["verdict"] == "problem" and "upgrade" in found["cure"]
    command.unlink()
    found = finding(doctor(ready), "cvmfs_server")
    assert found["verdict"] == "problem" and "install" in found["cure"]


def test_an_unmounted_repository_is_a_warning(ready: Machine) -> None:
    with ready.nothing_mounted(NAME):
        found = finding(doctor(ready), "mount")
    assert found["verdict"] == "warning" and "cvmfs_server mount" in found["cure"]


def test_for_an_unknown_repository_the_known_ones_are_named(ready: Machine) -> None:
    result = publisher("doctor", "--repository", "cvmfs:other.test.org", env=ready.environment)
    assert result.code == 1
    assert NAME in result.out and "server.conf" in result.out


def test_a_directory_repository_is_examined(tmp_path: Path) -> None:
    layout = write_layout(image(layer(file("f", b"1"))), tmp_path / "layout", "1")
    repository = tmp_path / "images"
    succeed("ingest-image", f"oci:{layout}:1", "--name", "tool", "--repository", repository)
    result = publisher("doctor", "--repository", repository, "--output", "json")
    assert result.code == 0
    assert finding(result, "records")["finding"].startswith("1 image, 0 scheduled")
    (repository / ".metadata/pins.json").write_text("{")
    assert (
        finding(publisher("doctor", "--repository", repository, "--output", "json"), "records")[
            "verdict"
        ]
        == "problem"
    )


def test_registries_are_checked(tmp_path: Path) -> None:
    with OwnRegistry() as registry:
        result = publisher(
            "doctor", f"http://{registry.host}", "http://127.0.0.1:9", "--output", "json"
        )
    verdicts = [check["verdict"] for check in result.json["checks"]]
    assert verdicts == ["good", "problem"]
    assert result.code == 1


def test_neither_repository_nor_registry_is_a_usage_error() -> None:
    assert publisher("doctor").code == 2
