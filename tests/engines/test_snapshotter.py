"""Kubernetes' containerd and Docker run published images without downloading their layers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import succeed
from tests.components import Containerd, Engine, containerd, dockerd, require_mounts
from tests.engines.releases import HERE
from tests.snapshotter import Client, Running, running
from tests.snapshotter_images import Scene, cri_pull, scene

TOOL = ["base", "tool"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    require_mounts()
    with scene(tmp_path_factory.mktemp("scene")) as made:
        yield made


@pytest.fixture
def service(images: Scene, tmp_path: Path) -> Iterator[tuple[Running, Client]]:
    images.forget()
    with running(tmp_path, images.tree) as started:
        yield started


@pytest.fixture
def ctr(service: tuple[Running, Client], tmp_path: Path) -> Iterator[Containerd]:
    """Containerd with the configuration that the command prints."""
    socket = service[0].socket
    printed = succeed("snapshotter", "--config", HERE.configuration, "--socket", socket).out
    with containerd(tmp_path / "containerd", configuration=printed, cri=True) as engine:
        assert re.search(rf"^Server:\n +Version: +v?{HERE.containerd}", engine("version"), re.M)
        yield engine


def run(ctr: Containerd, reference: str, name: str) -> list[str]:
    return ctr.output_of("--snapshotter", "publisher", reference, name).split()


def test_kubernetes_pulls_a_published_image_without_its_layers(
    images: Scene, ctr: Containerd
) -> None:
    cri_pull(ctr.socket, images.reference("tool"))
    assert images.fetched() == set()
    assert run(ctr.in_namespace("k8s.io"), images.reference("tool"), "one") == TOOL


@pytest.fixture
def docker(images: Scene, service: tuple[Running, Client], tmp_path: Path) -> Iterator[Engine]:
    """Docker, whose own containerd has the plugin, with the configuration of the command."""
    socket = service[0].socket
    settings = succeed("snapshotter", "--config", "docker", "--socket", socket).out
    (tmp_path / "daemon.json").write_text(settings)
    assert json.loads(settings)["storage-driver"] == "publisher"
    printed = succeed("snapshotter", "--config", HERE.configuration, "--socket", socket).out
    with (
        containerd(tmp_path / "containerd", configuration=printed) as engine,
        dockerd(
            tmp_path / "docker",
            insecure_registries=[images.registry.host],
            options=(
                *("--config-file", str(tmp_path / "daemon.json")),
                *("--containerd", engine.socket),
            ),
        ) as docker,
    ):
        yield docker


def test_docker_runs_a_published_image_and_fetches_none_of_its_layers(
    images: Scene, docker: Engine
) -> None:
    assert docker("version", "--format", "{{.Server.Version}}").startswith(HERE.docker)
    assert docker.run(images.reference("tool")).split() == TOOL
    assert images.fetched() == set()
    docker("rmi", "--force", images.reference("tool"))
    assert docker.run(images.reference("tool")).split() == TOOL
    assert images.fetched() == set()
    assert docker.run(images.reference("child")).split() == ["child", "tool"]
    assert images.fetched() == {"child 2"}


def test_docker_builds_upon_a_published_image_and_pushes_the_result(
    images: Scene, docker: Engine, tmp_path: Path
) -> None:
    reference = images.reference("tool")
    docker.run(reference, "touch", "/made", options=("--name", "made", "--rm=false"))
    docker("commit", "made", f"{images.registry.host}/tool:made")
    docker("rm", "made")
    found = docker.run(f"{images.registry.host}/tool:made", "ls", "/made", "/opt/tool")
    assert found.split() == ["/made", "/opt/tool"]
    docker("push", f"{images.registry.host}/tool:made")
    assert images.fetched() == set()
