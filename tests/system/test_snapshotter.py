"""Debian's containerd runs published images without downloading their layers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.tree import layout
from tests.command import succeed
from tests.components import Containerd, containerd, require_mounts
from tests.processes import wait_until
from tests.snapshotter import Client, Running, running
from tests.snapshotter_images import Scene, background, cri_pull, scene

pytestmark = pytest.mark.system

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
    """Containerd with the configuration that the command prints; ctr in Kubernetes' namespace."""
    socket = service[0].socket
    printed = succeed("snapshotter", "--config", "containerd-2", "--socket", socket).out
    with containerd(tmp_path / "containerd", configuration=printed, cri=True) as engine:
        yield engine.in_namespace("k8s.io")


def run(ctr: Containerd, reference: str, name: str, *command: str) -> list[str]:
    return ctr.output_of("--snapshotter", "publisher", reference, name, *command).split()


def answers(ctr: Containerd) -> bool:
    try:
        ctr("snapshots", "--snapshotter", "publisher", "ls")
    except AssertionError:
        return False
    return True


def test_a_published_image_is_run_and_none_of_its_layers_fetched(
    images: Scene, ctr: Containerd
) -> None:
    cri_pull(ctr.socket, images.reference("tool"))
    assert images.fetched() == set()
    assert run(ctr, images.reference("tool"), "one") == TOOL
    # What a container writes is its own.
    script = "echo changed > /opt/tool; cat /opt/tool"
    assert run(ctr, images.reference("tool"), "two", "sh", "-c", script) == ["changed"]
    assert run(ctr, images.reference("tool"), "three") == TOOL


def test_of_a_child_of_a_published_image_its_own_layer_is_fetched(
    images: Scene, ctr: Containerd
) -> None:
    cri_pull(ctr.socket, images.reference("child"))
    assert images.fetched() == {"child 2"}
    assert run(ctr, images.reference("child"), "one") == ["child", "tool"]


def test_layers_that_no_tree_has_are_fetched_also_between_published_ones(
    images: Scene, ctr: Containerd
) -> None:
    cri_pull(ctr.socket, images.reference("mixed"))
    assert images.fetched() >= {"mixed 1"}
    assert not images.fetched() & {"mixed 0", "tool 0"}
    found = run(ctr, images.reference("mixed"), "one")
    assert found == ["base", "middle", "old", "top", "gone"]


def test_an_image_that_is_not_published_is_pulled_as_usual(images: Scene, ctr: Containerd) -> None:
    cri_pull(ctr.socket, images.reference("other"))
    assert images.fetched() == {"other 0"}
    assert run(ctr, images.reference("other"), "one") == ["other"]


def test_a_layer_that_was_published_without_root_is_fetched_and_shown_as_it_is(
    images: Scene, ctr: Containerd
) -> None:
    layer = images.images["tool"].layers[1].digest
    opt = images.tree / layout.layer_tree(layer) / "opt"
    os.removexattr(opt, "trusted.overlay.opaque")
    try:
        cri_pull(ctr.socket, images.reference("tool"))
    finally:
        os.setxattr(opt, "trusted.overlay.opaque", b"y")
    assert images.fetched() == {"child 1", "tool 1"}, "two names of one layer"
    assert run(ctr, images.reference("tool"), "one") == TOOL


def test_containers_go_on_while_the_snapshotter_is_killed_and_started_again(
    images: Scene, service: tuple[Running, Client], ctr: Containerd
) -> None:
    cri_pull(ctr.socket, images.reference("tool"))
    reference = images.reference("tool")
    with background(ctr, reference) as name:
        service[0].kill()
        # The exit code tells: ctr may lose the output of a command that ends at once.
        script = '[ "$(cat /opt/tool)" = tool ] && touch /written && ls /written'
        execute = ("task", "exec", "--exec-id", "e", name, "sh", "-c", script)
        ctr(*execute)
        service[0].start()
        wait_until(lambda: answers(ctr))  # containerd waits for some seconds between its attempts
        ctr(*execute)
        assert run(ctr, reference, "two") == TOOL


def test_containerd_collects_the_snapshots_of_a_removed_image(
    images: Scene, service: tuple[Running, Client], ctr: Containerd
) -> None:
    for name in ("child", "other"):
        cri_pull(ctr.socket, images.reference(name))
    assert run(ctr, images.reference("child"), "one")
    wait_until(lambda: len(service[1].list()) == 4)
    for name in ctr("images", "ls", "-q").split():
        ctr("images", "rm", "--sync", name)
    wait_until(lambda: service[1].list() == {})
    assert service[0].directories() == set()
    assert images.tree.is_dir()
    images.forget()
    cri_pull(ctr.socket, images.reference("tool"))
    assert images.fetched() == set()
    assert run(ctr, images.reference("tool"), "two") == TOOL
