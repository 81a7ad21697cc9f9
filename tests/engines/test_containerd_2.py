"""What containerd 2 adds: ctr asks the snapshotter before it pulls; images are volumes of pods."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.command import succeed
from tests.components import Containerd, containerd
from tests.cri import Cri
from tests.engines.test_snapshotter import TOOL, ctr, images, run, service
from tests.layer_builder import image, write_layout
from tests.processes import wait_until
from tests.snapshotter import Client, Running
from tests.snapshotter_images import Scene

__all__ = ["ctr", "images", "service"]


def pull(ctr: Containerd, reference: str) -> None:
    ctr("images", "pull", "--plain-http", "--snapshotter", "publisher", reference)


def test_a_plain_pull_of_a_published_image_fetches_none_of_its_layers(
    images: Scene, ctr: Containerd
) -> None:
    pull(ctr, images.reference("tool"))
    assert images.fetched() == set()
    assert run(ctr, images.reference("tool"), "one") == TOOL
    pull(ctr, images.reference("child"))
    assert images.fetched() == {"child 2"}
    assert run(ctr, images.reference("child"), "two") == ["child", "tool"]


def test_layers_that_no_tree_has_are_fetched(images: Scene, ctr: Containerd) -> None:
    pull(ctr, images.reference("mixed"))
    assert images.fetched() >= {"mixed 1"}
    assert not images.fetched() & {"mixed 0", "tool 0"}
    found = run(ctr, images.reference("mixed"), "one")
    assert found == ["base", "middle", "old", "top", "gone"]
    images.forget()
    pull(ctr, images.reference("other"))
    assert images.fetched() == {"other 0"}
    assert run(ctr, images.reference("other"), "two") == ["other"]


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
