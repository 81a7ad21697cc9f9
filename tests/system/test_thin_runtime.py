"""Engines without plugins run thin images with the runtime `publisher-oci-runtime`.

These tests run with the engines of this machine, and with today's (`make test-engines`).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from publisher.runtimes import oci_runtime
from tests.command import succeed
from tests.components import (
    Engine,
    Registry,
    docker_registry,
    dockerd,
    podman,
    program,
    require,
    require_root,
    run,
    unmount_below,
)
from tests.layer_builder import Layer, directory, file, image, layer, write_layout
from tests.probe import Report, probe_image, read_report, run_original, write_probe
from tests.processes import wait_until
from tests.trees import tree_identity

pytestmark = pytest.mark.system

PAGE = Path(__file__).parents[2] / "docs/runtimes/docker.md"
RUNTIME = Path(oci_runtime.__file__)
SHELL = ("--user", "0", "--entrypoint", "/bin/sh")


@dataclass(frozen=True, slots=True)
class World:
    """A published tree, a registry with its thin images, and an engine for them."""

    place: Path
    tree: Path
    registry: Registry
    docker: Engine
    expected: Report

    def thin(self, name: str) -> str:
        return f"{self.registry.host}/thin/{name}:1"

    def try_run(self, image: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*self.docker.command, "run", "--rm", *self.docker.run_options, image, *words]
        return subprocess.run(command, capture_output=True, text=True)

    def push_recipe(self, name: str, url: str, version: str = "1.0") -> str:
        """Push an image that any user could have made: a recipe, and nothing else."""
        recipe = {"version": version, "min_version": version, "layers": [{"url": url}]}
        made = layer(file("thin.json", json.dumps(recipe).encode()))
        layout = write_layout(image(made, config={"Cmd": ["/x"]}), self.place / name, "1")
        return self.registry.push(f"oci:{layout}:1", f"{name}:1")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    yield from make_world(docker_settings)


def make_world(daemon_settings: Callable[[Path], str]) -> Iterator[World]:
    require_root()
    place = Path("/tmp", f"publisher-thin-{secrets.token_hex(4)}")
    place.mkdir(mode=0o755)
    try:
        tree = place / "tree"
        settings = place / "daemon.json"
        settings.write_text(daemon_settings(tree))
        with docker_registry(place / "registry") as registry:
            source = write_probe(place / "layout")
            with podman(place / "podman") as engine:
                expected = run_original(engine, source)
            publish(place, tree, registry, probe=source, many=f"oci:{many_layers(place)}:1")
            with dockerd(
                place / "docker",
                insecure_registries=[registry.host],
                options=("--config-file", str(settings)),
            ) as docker:
                options = (*docker.run_options, "--runtime", "thin")
                docker = replace(docker, run_options=options)
                yield World(place, tree, registry, docker, expected)
    finally:
        unmount_below(place)
        shutil.rmtree(place)


def docker_settings(tree: Path) -> str:
    """The daemon's settings on the page, for this checkout and this tree."""
    settings = str(re.findall(r"^```json\n(.*?)^```", PAGE.read_text(), re.M | re.S)[1])
    settings = settings.replace("/usr/local/bin/publisher-oci-runtime", str(RUNTIME))
    return settings.replace("/srv/images", str(tree))


def publish(place: Path, tree: Path, registry: Registry, **sources: str) -> None:
    wishes = place / "wishes.yaml"
    lines = [f"  - {{image: '{source}', name: {name}}}" for name, source in sources.items()]
    wishes.write_text(
        f"version: 2\nthin: 'http://{registry.host}/thin/$(repository):1'\n"
        "defaults: {outputs: [flat, layers, thin]}\nimages:\n" + "\n".join(lines) + "\n"
    )
    succeed("ingest", wishes, "--repository", tree)


def many_layers(place: Path) -> Path:
    """An image whose layers' paths exceed the page that the options of a mount have."""
    layers: list[Layer] = [layer(directory("n"), file(f"n/{number}")) for number in range(60)]
    built = image(*probe_image().layers, *layers, config={"Cmd": ["/bin/ls", "/n"]})
    return write_layout(built, place / "many", "1")


def without_mark(report: Report) -> Report:
    """The report without the variable that only thin images have."""
    kept = tuple(pair for pair in report.environment if pair != ("CVMFS_IMAGE", "true"))
    assert len(kept) == len(report.environment) - 1
    return replace(report, environment=kept)


def mounted_below(place: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(f"{place}/")]


def test_docker_starts_a_thin_image_as_podman_starts_the_original(world: World) -> None:
    before = tree_identity(world.tree)
    assert without_mark(read_report(world.docker.run(world.thin("probe")))) == world.expected
    assert world.expected.id == "1234:3456"
    seen = world.docker.run(world.thin("probe"), "-c", "ls / /etc", options=SHELL).split()
    assert "thin.json" not in seen and "gone" not in seen and "passwd" in seen
    assert tree_identity(world.tree) == before


def test_the_command_of_the_docker_page_works(world: World) -> None:
    [command] = re.findall(r"^\$ docker (run --rm --runtime .*)$", PAGE.read_text(), re.M)
    words = command.replace("registry.example.org/thin/library/debian:stable", world.thin("probe"))
    run_word, *others = words.split()
    found = read_report(world.docker(run_word, "--network", "none", *others))
    assert found.arguments[-2:] == ("cat", "/etc/os-release")


def test_an_image_of_many_layers_runs(world: World) -> None:
    assert len(world.docker.run(world.thin("many")).split()) == 60


def test_a_container_keeps_its_changes_when_it_stops_and_shows_them(world: World) -> None:
    docker, name = world.docker, "writes"
    script = "test -e /etc/new && exec id; echo new > /etc/new; rm /etc/group; exit 7"
    words = (*docker.run_options, *SHELL, world.thin("probe"), "-c", script)
    docker("create", "--name", name, *words)
    first = subprocess.run([*docker.command, "start", "--attach", name], capture_output=True)
    assert first.returncode == 7, first.stderr
    changes = docker("diff", name).splitlines()
    assert "A /etc/new" in changes and "D /etc/group" in changes
    assert not [line for line in changes if line.endswith("/bin")]
    assert "uid=0(root) gid=0" in docker("start", "--attach", name), "the change is still there"

    docker("commit", name, "child:1")
    docker("rm", name)
    seen = docker.run("child:1", "-c", "ls /etc /bin", options=SHELL).split()
    assert "new" in seen and "group" not in seen and "busybox" in seen


def test_exec_stop_and_restart_work_and_files_are_copied_out(world: World) -> None:
    docker, name = world.docker, "long"
    loop = "trap 'exit 5' TERM; while :; do sleep 0.1; done"
    options = ("--detach", "--name", name, *docker.run_options, *SHELL)
    docker("run", *options, world.thin("probe"), "-c", loop.replace("sleep", "/bin/busybox sleep"))
    try:
        assert docker("exec", name, "/bin/id", "-u").strip() == "0"
        assert docker("exec", "--user", "app", name, "/bin/id", "-u").strip() == "1234"
        docker("cp", f"{name}:/etc/passwd", world.place / "copied")
        assert "app:x:1234" in (world.place / "copied").read_text()
        docker("restart", name)
        assert docker("exec", name, "/bin/id", "-u").strip() == "0"
        docker("stop", name)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name).strip() == "5"
    finally:
        docker("rm", "--force", name)


def test_an_ordinary_image_is_the_other_runtimes_alone(world: World) -> None:
    layout = world.place / "layout"
    ordinary = world.registry.push(f"oci:{layout}:1", "ordinary:1")
    assert read_report(world.docker.run(ordinary)) == world.expected
    # The container's own file of that name is no recipe of its image.
    script = "[ -e /thin.json ] && exit 0; echo x > /thin.json; exit 1"
    world.docker(
        *("create", "--name", "own", *world.docker.run_options, *SHELL, ordinary, "-c", script)
    )
    for code in (1, 0):
        started = [*world.docker.command, "start", "--attach", "own"]
        assert subprocess.run(started, capture_output=True).returncode == code
    world.docker("rm", "own")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc", "is not a layer of a published tree"),
        ("file:///{place}/.layers/../../etc/layerfs", "is not a layer of a published tree"),
        ("file://{other}/.layers/aa/bb/layerfs", "is not one of the trees of this machine"),
        ("cvmfs://no.example.org/.layers/aa/bb/layerfs", "/cvmfs/no.example.org is missing"),
        ("file://{tree}/.layers/aa/bb/layerfs", "layerfs is missing"),
        ("file://{tree}/.layers/aa/link/layerfs", "it leads out of the tree, to /etc"),
        ("https://example.org/.layers/aa/bb/layerfs", "neither a cvmfs:// nor a file:/// URL"),
    ],
)
def test_a_layer_that_cannot_be_mounted_is_named_to_the_user_of_docker(
    world: World, url: str, why: str
) -> None:
    link = world.tree / ".layers/aa/link/layerfs"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to("/etc")
    url = url.format(tree=world.tree, other=world.place, place=str(world.place).lstrip("/"))
    reference = world.push_recipe(f"bad-{secrets.token_hex(4)}", url)
    done = world.try_run(reference)
    assert done.returncode == 125 and "publisher-oci-runtime: cannot mount " in done.stderr
    assert why in done.stderr


def test_a_recipe_of_a_later_version_is_refused(world: World) -> None:
    done = world.try_run(world.push_recipe("late", "cvmfs://a/.layers/aa/bb/layerfs", "1.9"))
    assert done.returncode == 125 and "needs version 1.9" in done.stderr


@pytest.mark.parametrize("step", ["mkdir", "umount2", "mount", "unlink", "rmdir"])
def test_a_runtime_that_is_killed_leaves_nothing_and_the_next_start_works(
    world: World, step: str
) -> None:
    require("strace")
    marker, killing = world.place / "kill", world.place / f"killing-{step}"
    killing.write_text(
        f'#!/bin/sh\ncase " $* " in *" create "*) ;; *) exec {RUNTIME} "$@";; esac\n'
        f'[ -e {marker} ] || exec {RUNTIME} "$@"\n'
        f"exec {program('strace')} -o {marker}.log -e inject=?{step},?{step}at:signal=KILL "
        f'{sys.executable} -IS {RUNTIME} "$@"\n'
    )
    killing.chmod(0o755)
    arguments = ["--tree", str(world.tree)]
    settings = world.place / f"daemon-{step}.json"
    settings.write_text(
        json.dumps({"runtimes": {"thin": {"path": str(killing), "runtimeArgs": arguments}}})
    )
    place = world.place / f"docker-{step}"
    with dockerd(
        place,
        insecure_registries=[world.registry.host],
        options=("--config-file", str(settings)),
    ) as docker:
        words = ("--runtime", "thin", *world.docker.run_options[:2])
        docker("create", "--name", "victim", *words, world.thin("probe"))
        before = mounted_below(place)
        marker.touch()
        killed = subprocess.run([*docker.command, "start", "victim"], capture_output=True)
        assert killed.returncode != 0
        assert "killed by SIGKILL" in Path(f"{marker}.log").read_text()
        marker.unlink()
        started = docker("start", "--attach", "victim")
        assert without_mark(read_report(started)) == world.expected
        docker("rm", "victim")
        assert mounted_below(place) == before


@pytest.mark.parametrize("victim", ["container", "shim"])
def test_a_container_that_is_killed_starts_again_and_leaves_no_mount(
    world: World, victim: str
) -> None:
    docker, name = world.docker, f"killed-{victim}"
    before = mounted_below(world.place)
    script = "[ -e /again ] && exit 3; echo > /again; exec /bin/busybox sleep 600"
    docker("run", "--detach", "--name", name, *docker.run_options, *SHELL,
           world.thin("probe"), "-c", script)  # fmt: skip
    state = "{{.State.Pid}} {{.State.Running}} {{.State.ExitCode}}"
    pid = int(docker("inspect", "--format", state, name).split()[0])
    wait_until(lambda: "A /again" in docker("diff", name))
    if victim == "shim":
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert "containerd-shim" in Path(f"/proc/{pid}/cmdline").read_text()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: docker("inspect", "--format", state, name).split()[1] == "false")
    assert docker("inspect", "--format", state, name).split()[2] == "137"
    again = subprocess.run([*docker.command, "start", "--attach", name], capture_output=True)
    assert again.returncode == 3, again.stderr
    docker("rm", name)
    assert mounted_below(world.place) == before


def with_runtime(engine: Engine, tree: Path) -> Engine:
    """Podman with the runtime; it has no option for settings that it would keep for a restart."""
    words = list(engine.command)
    at = words.index("--runtime")
    words[at : at + 2] = ["--runtime", str(RUNTIME), "--runtime-flag", f"tree={tree}"]
    words += ["--runtime-flag", "runtime=runc"]
    return replace(engine, command=tuple(words))


def test_podman_runs_thin_images_and_keeps_what_a_container_wrote(
    world: World, tmp_path: Path
) -> None:
    with podman(tmp_path / "podman") as plain:
        engine = with_runtime(plain, world.tree)
        reference = world.thin("probe")
        engine("pull", "--quiet", "--tls-verify=false", reference)
        assert without_mark(read_report(engine.run(reference))) == world.expected
        script = "test -e /etc/new && exec id; echo new > /etc/new; rm /bin/cat; exit 7"
        options = ("--name", "writes", *engine.run_options, *SHELL)
        engine("create", *options, reference, "-c", script)
        start = [*engine.command, "start", "--attach", "writes"]
        assert subprocess.run(start, capture_output=True).returncode == 7
        assert "uid=0(root)" in run(*start)
        changes = engine("diff", "writes").splitlines()
        assert "A /etc/new" in changes and "D /bin/cat" in changes
        engine("commit", "--quiet", "writes", "child:1")
        seen = engine.run("localhost/child:1", "-c", "ls /etc /bin", options=SHELL).split()
        assert "new" in seen and "cat" not in seen and "busybox" in seen


def test_the_command_oci_runtime_is_the_same_program(tmp_path: Path) -> None:
    require("runc")
    words = [sys.executable, "-m", "publisher", "oci-runtime"]
    for arguments in (["--version"], ["features"], ["--root", str(tmp_path), "list", "-q"]):
        by_command = run(*words, *arguments)
        assert by_command == run(RUNTIME, *arguments) == run("runc", *arguments)
