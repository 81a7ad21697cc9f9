"""What the pod of docs/runtimes/kubernetes.md starts works in today's containerd."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from tests.command import succeed
from tests.components import containerd, docker_registry
from tests.probe import read_report, write_probe

MANIFEST = Path(__file__).parents[2] / "deploy/kubernetes/flat-image.yaml"


def test_the_container_of_the_pod_runs_the_flat_image_of_its_volume(tmp_path: Path) -> None:
    pod: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())["spec"]
    [container], [volume] = pod["containers"], pod["volumes"]
    [mount] = container["volumeMounts"]
    assert mount["name"] == volume["name"] and mount["readOnly"]
    assert container["command"][0] == "chroot", "a program of the pod's own image"
    source, tree = write_probe(tmp_path / "layout"), tmp_path / "tree"
    succeed("ingest-image", source, "--name", "probe", "--repository", tree)
    flat = os.path.realpath(tree / "local/probe:1")
    assert "/.flat/" in volume["hostPath"]["path"] and "/.flat/" in flat
    with (
        docker_registry(tmp_path / "registry") as registry,
        containerd(tmp_path / "containerd") as ctr,
    ):
        own = registry.push(source, "busybox:stable")
        ctr("images", "pull", "--plain-http", own)
        bind = f"type=bind,src={flat},dst={mount['mountPath']},options=rbind:ro"
        drop = [
            word
            for name in ("NET_RAW", "SETUID", "SETGID", "DAC_OVERRIDE", "MKNOD", "CHOWN", "FOWNER")
            for word in ("--cap-drop", f"CAP_{name}")
        ]
        words = ("/bin/busybox", *container["command"], *container["args"])
        options = ("--rm", "--user", "0", *drop, "--mount", bind)
        found = read_report(ctr("run", *options, own, "pod", *words))
    assert found.id == "0:0" and found.directory == "/"
    assert found.arguments[-2:] == tuple(container["args"])
    assert ("V1", "a b") in found.environment
