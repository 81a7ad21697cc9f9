"""What the pods of docs/runtimes/kubernetes.md start works in today's containerd."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command import succeed
from tests.components import Containerd, containerd, docker_registry, program
from tests.layer_builder import Image, directory, file, image, layer, write_layout
from tests.probe import Report, read_report, write_probe

MANIFESTS = Path(__file__).parents[2] / "deploy/kubernetes"
DEFAULT_CAPABILITIES = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_RAW"),
    *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)


@dataclass(frozen=True, slots=True)
class Node:
    """A containerd, and a flat image of the probe in a tree that is mounted beside it."""

    ctr: Containerd
    flat: str
    images: dict[str, str]

    def start(self, manifest: str, *options: str) -> Report:
        """Run the container of the manifest's pod as the kubelet has containerd run it."""
        *_, pod = yaml.safe_load_all((MANIFESTS / manifest).read_text())
        [container] = pod["spec"]["containers"]
        [mount] = container["volumeMounts"]
        assert mount["readOnly"] and "/.flat/" in self.flat
        kept = container["securityContext"]["capabilities"].get("add", [])
        drop = [
            word
            for name in DEFAULT_CAPABILITIES
            if name not in kept
            for word in ("--cap-drop", f"CAP_{name}")
        ]
        bind = f"type=bind,src={self.flat},dst={mount['mountPath']},options=rbind:ro"
        words = (*container["command"], *container["args"])
        flags = (*drop, *options, "--mount", bind)
        program = words if words[0] != "chroot" else ("/bin/busybox", *words)
        found = read_report(self.ctr.output_of(*flags, self.images[manifest], manifest, *program))
        assert found.arguments[-2:] == tuple(container["args"])
        assert ("V1", "a b") in found.environment and found.directory == "/"
        return found


def bubblewrap_image() -> Image:
    """This machine's bubblewrap with its libraries, as user 1000."""
    path = program("bwrap")
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    places = [path, *re.findall(r"(/\S+) \(", listed)]
    files = [file(each.lstrip("/"), Path(each).read_bytes(), mode=0o755) for each in places]
    mount_points = [directory(name) for name in ("image", "proc", "dev", "sys", "tmp")]
    config = {"Env": ["PATH=/usr/bin"], "User": "1000:1000"}
    return image(layer(*files, *mount_points), config=config)


@contextmanager
def node(folder: Path) -> Iterator[Node]:
    source, tree = write_probe(folder / "layout", User="0"), folder / "tree"
    succeed("ingest-image", source, "--name", "probe", "--repository", tree)
    own = f"oci:{write_layout(bubblewrap_image(), folder / 'own', '1')}:1"
    with (
        docker_registry(folder / "registry") as registry,
        containerd(folder / "containerd") as ctr,
    ):
        images = {
            "flat-image.yaml": registry.push(source, "busybox:stable"),
            "flat-image-user.yaml": registry.push(own, "tools/bubblewrap:1"),
        }
        for reference in images.values():
            ctr("images", "pull", "--plain-http", reference)
        yield Node(ctr, os.path.realpath(tree / "local/probe:1"), images)


def test_the_containers_of_the_pods_run_the_flat_image_of_their_volume(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    manifest: dict[str, Any] = yaml.safe_load((MANIFESTS / "flat-image.yaml").read_text())
    assert "/.flat/" in manifest["spec"]["volumes"][0]["hostPath"]["path"]
    with node(tmp_path) as here:
        assert here.start("flat-image.yaml").id == "0:0"
        assert here.start("flat-image-user.yaml").id == "1000:1000"
        with pytest.raises(AssertionError, match="No permissions to create"):
            here.start("flat-image-user.yaml", "--seccomp")  # containerd's default profile
