"""The roles of deploy/ansible set up two Debian machines: one publishes, one uses the images."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from tests.ansible import Controller, Recap
from tests.components import program, run
from tests.debian import cached
from tests.layer_builder import Image, directory, file, image, layer, symlink
from tests.machines import machine
from tests.registry import OwnRegistry
from tests.registry_auth import BasicAuth
from tests.schemas import ROOT

pytestmark = pytest.mark.system

PODMAN_STORAGE = "--tmpfs=/var/lib/containers"  # the machine's own file system is an overlay
METRICS = "/var/lib/prometheus/node-exporter/publisher.prom"
UNITS = ("publisher", "publisher-prune", "publisher-gc", "publisher-verify")

STARTED = 'systemctl start "$0" || { journalctl --unit "$0" --output cat >&2; exit 1; }'


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """Where the collection is installed."""
    made = Controller(tmp_path_factory.mktemp("controller"))
    made.install_collection()
    return made


def test_ansible_lint_accepts_the_collection_for_production(controller: Controller) -> None:
    assert controller.lint() == []


@pytest.mark.timeout(1800)
def test_the_roles_set_up_a_publisher_and_a_client_once(
    controller: Controller, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    run(*PIP, "wheel", "--no-deps", "--wheel-dir", tmp_path / "dist", ROOT)
    [wheel] = (tmp_path / "dist").glob("publisher-*.whl")
    wheels = dependencies(wheel)
    offline = "--no-index --find-links /wheels"
    mounted = f"--bind-ro={wheels}:/wheels"
    wish_list = tmp_path / "astro.yaml"
    with (
        OwnRegistry(BasicAuth({"robot": "secret"})) as registry,
        machine(tmp_path / "publisher", mounted, f"--bind={tree}:/srv/images") as publisher,
        machine(tmp_path / "client", f"--bind-ro={tree}:/export", PODMAN_STORAGE) as client,
    ):
        registry.add("team/x", "1", runnable_image())
        image_name = f"{registry.host}/team/x:1"
        wish = f"{{image: '{registry.url}/team/x:1', outputs: [flat, layers, podman]}}"
        wish_list.write_text(f"version: 2\nimages:\n- {wish}\n")
        of_publisher = {
            "publisher_host_package": str(wheel),
            "publisher_host_pip_arguments": offline,
            "publisher_host_wish_list_files": [str(wish_list)],
            "publisher_host_credentials": {
                registry.host: {"username": "robot", "password": "secret"}
            },
            "publisher_host_doctor_registries": [registry.url],
            "publisher_host_metrics_file": METRICS,
        }
        of_client = {
            "client_host_mount_type": "none",
            "client_host_mount_source": "/export",
            "client_host_mount_options": "bind,ro,nosuid,nodev",
            "client_host_runtimes": ["apptainer", "podman"],
            "client_host_install_packages": False,  # Debian 12 has no Apptainer
        }
        controller.write_inventory(
            {"publishers": (publisher, of_publisher), "clients": (client, of_client)}
        )

        would = controller.play("--check")
        assert min(each.changed for each in would.values()) > 0
        assert not (publisher.root / "opt/publisher").exists()
        assert not (client.root / "etc/systemd/system/srv-images.mount").exists()
        first = controller.play()
        assert min(each.changed for each in first.values()) > 0
        again = controller.play()
        assert again == {
            name: Recap(ok=each.ok, changed=0, failed=0, unreachable=0)
            for name, each in first.items()
        }

        timers = publisher.run("systemctl", "list-timers", "--no-legend", "publisher*")
        assert timers.count(".timer") == len(UNITS)
        for unit in UNITS:
            publisher.run("sh", "-c", STARTED, unit)
        journal = publisher.run("journalctl", "--unit", "publisher", "--output", "cat")
        assert f"published: {image_name}" in journal
        metrics = publisher.run("cat", METRICS).splitlines()
        codes = [line for line in metrics if line.startswith("publisher_last_exit_code{")]
        assert len(codes) == len(UNITS) and all(line.endswith(" 0.0") for line in codes)
        config = publisher.run("stat", "--format=%U %a", "/etc/publisher/config.json")
        assert config == "publisher 600\n"
        state = publisher.run("stat", "--format=%U %a", "/var/lib/publisher")
        assert state == "publisher 755\n"

        options = client.run("findmnt", "--noheadings", "--output=OPTIONS", "/srv/images")
        assert {"ro", "nosuid", "nodev"} <= set(options.strip().split(","))
        assert client.run("chroot", f"/srv/images/{image_name}", "/.run") == "a b\n"
        podman = ("podman", "run", "--rm", "--pull=never", "--network=none", "--cgroups=disabled")
        assert client.run(*podman, image_name) == "a b\n"


PIP = (sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "--no-input")


def dependencies(wheel: Path) -> Path:
    """The packages that the publisher needs, as wheels for the machines' Python."""
    sources = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()

    def download(folder: Path) -> None:
        constraints = ("--constraint", ROOT / "constraints.txt")
        options = ("--only-binary=:all:", "--python-version=3.11", "--dest", folder)
        run(*PIP, "download", *options, *constraints, wheel)
        (folder / wheel.name).unlink()

    return cached("deploy-wheels", int(state[:12], 16), download)


def runnable_image() -> Image:
    busybox = Path(program("busybox")).read_bytes()
    entries = [directory("bin"), file("bin/busybox", busybox, mode=0o755)]
    entries += [symlink(f"bin/{name}", "busybox") for name in ("sh", "echo")]
    return image(layer(*entries), config={"Entrypoint": ["/bin/echo"], "Cmd": ["a b"]})
