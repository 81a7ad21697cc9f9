"""Each engine of `make test-engines` starts, and runs an ordinary image of a registry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components import containerd, docker_registry, dockerd, podman, run
from tests.engines.releases import HERE
from tests.layer_builder import write_layout
from tests.probe import Report, probe_image, read_report

EXPECTED = "1234:3456"
"""The user and group that the config of the probe names."""


@pytest.fixture
def image(tmp_path: Path) -> Iterator[str]:
    """The reference of an image in a registry: "127.0.0.1:PORT/probe:1"."""
    layout = write_layout(probe_image(), tmp_path / "layout", "1")
    with docker_registry(tmp_path / "registry") as registry:
        yield registry.push(f"oci:{layout}:1", "probe:1")


def check(report: Report) -> None:
    assert (report.id, report.directory) == (EXPECTED, "/work dir")


@pytest.mark.parametrize("storage", ["overlay2", "vfs"])
def test_docker_runs_an_image_from_a_graph_driver(image: str, storage: str, tmp_path: Path) -> None:
    registry = image.partition("/")[0]
    with dockerd(
        tmp_path / "docker", insecure_registries=[registry], storage_driver=storage
    ) as docker:
        assert docker("version", "--format", "{{.Server.Version}}").startswith(HERE.docker)
        assert f"Storage Driver: {storage}" in docker("info")
        check(read_report(docker.run(image)))


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
def test_docker_runs_an_image_from_its_containerd_image_store(
    image: str, snapshotter: str, tmp_path: Path
) -> None:
    settings = tmp_path / "daemon.json"
    settings.write_text(
        json.dumps({"features": {"containerd-snapshotter": True}, "storage-driver": snapshotter})
    )
    registry = image.partition("/")[0]
    with dockerd(
        tmp_path / "docker",
        insecure_registries=[registry],
        options=("--config-file", str(settings)),
    ) as docker:
        assert "driver-type: io.containerd.snapshotter.v1" in docker("info")
        check(read_report(docker.run(image)))


def test_containerd_pulls_an_image_and_runs_it(image: str, tmp_path: Path) -> None:
    with containerd(tmp_path / "containerd") as ctr:
        assert re.search(rf"^Server:\n +Version: +v?{HERE.containerd}", ctr("version"), re.M)
        ctr("images", "pull", "--plain-http", image)
        found = read_report(ctr.output_of(image, "probe"))
        assert found.directory == "/work dir"


def test_podman_pulls_an_image_and_runs_it(image: str, tmp_path: Path) -> None:
    with podman(tmp_path / "podman") as engine:
        assert engine("--version").startswith(f"podman version {HERE.podman}")
        engine("pull", "--quiet", "--tls-verify=false", image)
        check(read_report(engine.run(image)))


def test_apptainer_pulls_an_image_and_runs_it(image: str, tmp_path: Path) -> None:
    # A machine may refuse root the capability to raise limits.
    words = ("--no-privs", "--cleanenv", "--no-home", "--no-mount", "tmp,home,cwd")
    run(
        "apptainer",
        "build",
        "--sandbox",
        tmp_path / "sandbox",
        f"docker://{image}",
        env={
            "APPTAINER_NOHTTPS": "1",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(tmp_path),
        },
    )
    found = run("apptainer", "run", *words, tmp_path / "sandbox")
    assert read_report(found).arguments[0] == "from the entrypoint"
