"""Today's containerd and Docker run published images without downloading their layers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.command import succeed
from tests.components import Engine, containerd, dockerd, require_mounts
from tests.cri import Cri
from tests.layer_builder import image, write_layout
from tests.processes import wait_until
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
def ctr(service: tuple[Running, Client], tmp_path: Path) -> Iterator[Engine]:
    """Containerd 2 with the configuration that the command prints."""
    socket = service[0].socket
    printed = succeed("snapshotter", "--config", "containerd-3", "--socket", socket).out
    with containerd(tmp_path / "containerd", configuration=printed, cri=True) as engine:
        assert re.search(r"^Server:\n +Version: +v?2\.", engine("version"), re.M)
        yield engine


def run(ctr: Engine, reference: str, name: str, *namespace: str) -> list[str]:
    options = ("run", "--rm", "--snapshotter", "publisher")
    return ctr(*namespace, *options, reference, name).split()


def pull(ctr: Engine, reference: str) -> None:
    ctr("images", "pull", "--plain-http", "--snapshotter", "publisher", reference)


def test_a_plain_pull_of_a_published_image_fetches_none_of_its_layers(
    images: Scene, ctr: Engine
) -> None:
    pull(ctr, images.reference("tool"))
    assert images.fetched() == set()
    assert run(ctr, images.reference("tool"), "one") == TOOL
    pull(ctr, images.reference("child"))
    assert images.fetched() == {"child 2"}
    assert run(ctr, images.reference("child"), "two") == ["child", "tool"]


def test_layers_that_no_tree_has_are_fetched(images: Scene, ctr: Engine) -> None:
    pull(ctr, images.reference("mixed"))
    assert images.fetched() >= {"mixed 1"}
    assert not images.fetched() & {"mixed 0", "tool 0"}
    found = run(ctr, images.reference("mixed"), "one")
    assert found == ["base", "middle", "old", "top", "gone"]
    images.forget()
    pull(ctr, images.reference("other"))
    assert images.fetched() == {"other 0"}
    assert run(ctr, images.reference("other"), "two") == ["other"]


def test_kubernetes_pulls_a_published_image_without_its_layers(images: Scene, ctr: Engine) -> None:
    cri_pull(ctr.socket, images.reference("tool"))
    assert images.fetched() == set()
    assert run(ctr, images.reference("tool"), "one", "--namespace", "k8s.io") == TOOL


def test_images_are_volumes_of_pods_without_being_downloaded(
    images: Scene, service: tuple[Running, Client], tmp_path: Path
) -> None:
    process, client = service
    tool, child = images.reference("tool"), images.reference("child")
    pause = image(images.images["tool"].layers[0], config={"Cmd": ["/bin/sleep", "6000"]})
    layout = write_layout(pause, tmp_path / "pause", "1")
    own = images.registry.push(f"oci:{layout}:1", "pause:1")
    images.forget()
    printed = succeed("snapshotter", "--config", "containerd-3", "--socket", process.socket).out
    # No image is reachable here but those of the registry; this machine refuses to change scores.
    printed += (
        f'[plugins."io.containerd.cri.v1.images".pinned_images]\n  sandbox = "{own}"\n'
        '[plugins."io.containerd.cri.v1.runtime"]\n  restrict_oom_score_adj = true\n'
    )
    with (
        containerd(tmp_path / "containerd", configuration=printed, cri=True) as engine,
        closing(Cri(engine.socket)) as cri,
    ):
        for reference in (own, tool, child):
            cri.pull(reference)
        assert images.fetched() == {"child 2"}
        pod = cri.start_pod("pod")
        volumes = {"/data": tool, "/child": child}
        container = cri.start_container(pod, "pod", own, ["/bin/sleep", "6000"], volumes)
        files = ("/data/opt/tool", "/child/etc/motd", "/child/opt/tool", "/etc/motd")
        found = cri.execute(container, "cat", *files)
        assert found.split() == ["tool", "child", "tool", "base"]
        assert cri.execute(container, "ls", "/data/opt").split() == ["tool"]
        with pytest.raises(AssertionError, match="Read-only file system"):
            cri.execute(container, "touch", "/data/new")
        cri.remove_pod(pod)
        # containerd collects what the pod no longer uses, with those that unpacked images.
        wait_until(lambda: client.list("kind==view", "kind==active") == {})
        used = {client.usage(name) for name, info in client.list().items()}
        assert len(used) == 2, "the layer of the child alone uses space"


@pytest.fixture
def docker(images: Scene, service: tuple[Running, Client], tmp_path: Path) -> Iterator[Engine]:
    """Docker 28, whose own containerd has the plugin, with the configuration of the command."""
    socket = service[0].socket
    settings = succeed("snapshotter", "--config", "docker", "--socket", socket).out
    (tmp_path / "daemon.json").write_text(settings)
    assert json.loads(settings)["storage-driver"] == "publisher"
    printed = succeed("snapshotter", "--config", "containerd-3", "--socket", socket).out
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


def test_docker_28_runs_a_published_image_and_fetches_none_of_its_layers(
    images: Scene, docker: Engine
) -> None:
    assert docker("version", "--format", "{{.Server.Version}}").startswith("28.")
    assert docker.run(images.reference("tool")).split() == TOOL
    assert images.fetched() == set()
    docker("rmi", "--force", images.reference("tool"))
    assert docker.run(images.reference("tool")).split() == TOOL
    assert images.fetched() == set()
    assert docker.run(images.reference("child")).split() == ["child", "tool"]
    assert images.fetched() == {"child 2"}


def test_docker_28_builds_upon_a_published_image_and_pushes_the_result(
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
