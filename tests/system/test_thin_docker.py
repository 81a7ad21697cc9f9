"""A Docker engine runs thin images: a plugin mounts what their recipes name."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import succeed
from tests.components import docker_registry, dockerd, podman, require_root, run, unmount_below
from tests.probe import read_report, run_original, write_probe
from tests.real_image import CHECK_NUMPY, RealImages
from tests.thin_plugin import thin_plugin
from tests.trees import tree_identity

pytestmark = pytest.mark.system


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a short name: the options of one mount hold the paths of many layers."""
    require_root()
    # Part of an image reference, in which not every "_" of a temporary name is valid.
    folder = Path(f"/tmp/pd{secrets.token_hex(4)}")
    folder.mkdir(mode=0o700)
    yield folder
    unmount_below(folder)
    shutil.rmtree(folder)


def test_docker_runs_thin_images_as_podman_runs_the_originals(
    short: Path, real_images: RealImages
) -> None:
    source = write_probe(short / "layout")
    with podman(short / "podman") as engine:
        expected = run_original(engine, source)
    tree, wishes = short / "tree", short / "wishes.yaml"
    with docker_registry(short / "registry") as registry:
        wishes.write_text(
            f"version: 2\nthin: 'http://{registry.host}/thin/$(repository):$(tag)'\n"
            "defaults: {outputs: [flat, layers, thin]}\nimages:\n"
            f"  - {{image: '{source}', name: probe}}\n"
            f"  - {{image: '{real_images.source('numpy')}', name: numpy}}\n"
        )
        succeed("ingest", wishes, "--repository", tree)
        flat = f"http://{registry.host}/thin/flat:1"
        succeed("thin", "local/probe:1", "--repository", tree, "--flat", "--push", flat)
        before = tree_identity(tree)
        with (
            thin_plugin(short) as (name, driver),
            dockerd(
                short / "docker",
                insecure_registries=[registry.host],
                experimental=True,
                storage_driver=name,
            ) as docker,
        ):
            assert f"Storage Driver: {name}" in docker("info")
            for image in ("thin/probe:1", "thin/flat:1"):
                found = read_report(docker.run(f"{registry.host}/{image}"))
                assert ("CVMFS_IMAGE", "true") in found.environment
                others = tuple(p for p in found.environment if p != ("CVMFS_IMAGE", "true"))
                assert (found.id, found.directory) == (expected.id, expected.directory)
                assert (found.arguments, others) == (expected.arguments, expected.environment)
            numpy = f"{registry.host}/thin/numpy:numpy"
            assert docker.run(numpy, "python3", "-c", CHECK_NUMPY).strip() == "45"
            script = "ls / /etc; touch /etc/new && rm /etc/profile && ls /etc"
            seen = docker.run(numpy, "sh", "-c", script).split()
            assert "thin.json" not in seen and "new" in seen
            assert set(driver.recipes) <= {
                *tree.glob(".layers/??/*/layerfs"),
                *tree.glob(".flat/??/*"),
            }
            pulled = run("du", "-s", "--block-size=1", short / "docker/data/image").split()[0]
            assert int(pulled) < 2_000_000, "nothing was pulled but recipes"
        assert tree_identity(tree) == before


def test_the_commands_of_the_docker_page_work(short: Path, real_images: RealImages) -> None:
    page = (Path(__file__).parents[2] / "docs/runtimes/docker.md").read_text()
    [wishes] = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    commands = re.findall(r"^\$ (.*)$", page, re.M)
    commands = [command for command in commands if "--runtime" not in command]
    assert len(commands) == 5, "those with the plugin"
    tree = short / "tree"
    with docker_registry(short / "registry") as registry:
        registry.push(real_images.source("base"), "library/debian:stable")
        config = short / "config.yaml"
        config.write_text(f"registries: {{docker.io: {{mirror: 'http://{registry.host}'}}}}\n")
        wishes = wishes.replace("/srv/images", str(tree))
        wishes = wishes.replace("registry.example.org", f"http://{registry.host}")
        (short / "wishlist.yaml").write_text(wishes)
        with (
            thin_plugin(short) as (name, _),
            dockerd(
                short / "docker",
                insecure_registries=[registry.host],
                experimental=True,
                storage_driver=name,
            ) as docker,
        ):
            variables = {
                **os.environ,
                # Debian's client and daemon have the same version.
                "PATH": f"/usr/bin:/usr/sbin:/bin:/sbin:{Path(sys.executable).parent}",
                "DOCKER_HOST": docker.socket,
                "DOCKER_CONFIG": str(short / "client"),
                "PUBLISHER_REPOSITORY": f"dir:{tree}",
            }
            for command in commands:
                command = command.replace("registry.example.org", registry.host)
                command = command.replace("publisher ingest", f"publisher ingest --config {config}")
                # this engine has no network
                command = command.replace("docker run", "docker run --network none")
                printed = run("sh", "-c", command, cwd=short, env=variables)
                if command.startswith("docker run"):
                    assert "Debian" in printed
            recipe = docker.run("thin/debian:stable", "cat", "/etc/os-release")
            assert "Debian" in recipe
