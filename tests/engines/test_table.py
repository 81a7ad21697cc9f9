"""Every engine runs every form in which an image is published; the results are printed as a table.

A cell compares what the image receives (user, working directory, arguments, environment) with what
it receives where podman runs the original.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from publisher.runtimes import oci_runtime
from tests.command import succeed
from tests.components import (
    Containerd,
    Registry,
    containerd,
    docker_registry,
    dockerd,
    podman,
    run,
    unmount_below,
)
from tests.engines.table import TABLE
from tests.probe import Report, read_report, run_original, write_probe
from tests.snapshotter import running

OUTPUTS = ("flat image", "thin image", "Podman store", "snapshotter", "squashfs file")
USER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")


@dataclass(frozen=True, slots=True)
class Scene:
    """The tree, mounted read-only, with the image in every form, and what the original receives."""

    folder: Path
    tree: Path
    registry: Registry
    expected: Report

    @property
    def flat(self) -> str:
        return os.path.realpath(self.tree / "local/probe:1")

    @property
    def file(self) -> Path:
        return self.tree / "squashfs/local/probe:1"

    @property
    def thin(self) -> str:
        return f"{self.registry.host}/thin/probe:1"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    folder = Path("/tmp", f"table-{secrets.token_hex(4)}")
    folder.mkdir(mode=0o755)
    try:
        tree, mounted = folder / "tree", folder / "srv"
        mounted.mkdir()
        source = write_probe(folder / "layout")
        with docker_registry(folder / "registry") as registry:
            wishes = folder / "wishes.yaml"
            wishes.write_text(
                f"version: 2\nthin: 'http://{registry.host}/thin/$(repository):1'\nimages:\n"
                f"  - {{image: '{source}', name: probe, "
                "outputs: [flat, layers, thin, podman, squashfs]}\n"
            )
            mounted.rmdir()
            tree.mkdir()
            mounted.mkdir()
            run("mount", "--bind", tree, mounted)
            succeed("ingest", wishes, "--repository", mounted)
            run("mount", "-o", "remount,bind,ro", mounted)
            with podman(folder / "original") as engine:
                expected = run_original(engine, source)
            yield Scene(folder, mounted, registry, expected)
    finally:
        unmount_below(folder)
        shutil.rmtree(folder)


def shell(command: str, *before: str) -> Report:
    done = subprocess.run(
        [*before, "sh", "-c", command], capture_output=True, text=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    return read_report(done.stdout)


def apptainer_as_user(scene: Scene) -> Report:
    labels = run(*USER, "apptainer", "inspect", scene.flat, cwd=Path("/"))
    assert labels == "org.example.label: it's\n"
    script = "echo $LD_LIBRARY_PATH"
    options = ("--cleanenv", "--no-home")
    found = run(*USER, "apptainer", "exec", *options, scene.flat, "sh", "-c", script, cwd=Path("/"))
    assert found == "/.singularity.d/libs\n"
    return shell(f"apptainer run --cleanenv --no-home {scene.flat}", *USER)


def apptainer_as_root(scene: Scene) -> Report:
    # A machine may refuse root the capability to raise limits.
    return shell(f"apptainer run --cleanenv --no-home --no-privs {scene.flat}")


def charliecloud(scene: Scene) -> Report:
    return shell(f"USER=user ch-run --unset-env='*' {scene.flat} -- /.run", *USER)


def bwrap(scene: Scene) -> Report:
    return shell(
        f"publisher run --repository {scene.tree} local/probe:1 --with bwrap",
    )


def podman_directory(scene: Scene) -> Report:
    with podman_configured(scene) as variables:
        return shell(
            f"{variables} publisher run --repository {scene.tree} local/probe:1 --with podman"
        )


def podman_thin(scene: Scene) -> Report:
    with podman(scene.folder / "podman-thin") as plain:
        words = list(plain.command)
        words[words.index("--runtime") + 1] = oci_runtime.__file__
        words += ["--runtime-flag", f"tree={scene.tree}"]
        engine = dataclasses.replace(plain, command=tuple(words))
        engine("pull", "--quiet", "--tls-verify=false", scene.thin)
        return read_report(engine.run(scene.thin))


def podman_store(scene: Scene) -> Report:
    with podman_configured(scene) as variables:
        return shell(f"{variables} podman run --rm --network none localhost/probe:1")


def page_settings(number: int, tree: str = "") -> str:
    """A configuration file on the page for Podman, for this tree and this checkout."""
    page = (Path(__file__).parents[2] / "docs/runtimes/podman.md").read_text()
    text = str(re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)[number])
    text = text.replace("/usr/local/bin/publisher-oci-runtime", oci_runtime.__file__)
    return text.replace("/srv/images", tree)


@contextmanager
def podman_configured(scene: Scene) -> Iterator[str]:
    """Podman's configuration with the additional `store`, as words before a command."""
    place = scene.folder / f"podman-{secrets.token_hex(4)}"
    place.mkdir()
    text = page_settings(0, str(scene.tree))
    text = text.replace("/run/containers/storage", f"{place}/run")
    (place / "storage.conf").write_text(
        text.replace("/var/lib/containers/storage", f"{place}/root")
    )
    (place / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    names = {"CONTAINERS_STORAGE_CONF": "storage.conf", "CONTAINERS_CONF": "containers.conf"}
    variables = {name: f"{place}/{file}" for name, file in names.items()}
    try:
        yield " ".join(f"{name}={value}" for name, value in variables.items())
    finally:
        run("podman", "rm", "--all", "--force", env={**os.environ, **variables})
        unmount_below(place)


def as_member(scene: Scene, *words: str, engine: str = '[engine]\nruntime = "runc"\n') -> str:
    """Run podman as a user with subordinate IDs, whose storage is below the scene's folder."""
    home = scene.folder / "member"
    if not home.exists():
        run("useradd", "--create-home", "--home-dir", home, "member")
        run("install", "-d", "-o", "member", "-m", "700", home / "run")
    (home / "storage.conf").write_text(page_settings(1, str(scene.tree)))
    (home / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]\n'
        + engine.replace(
            "[engine]\n", '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
    )
    variables = {
        "PATH": "/usr/bin:/usr/sbin:/bin",
        "USER": "member",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": f"{home}/run",
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
        "CONTAINERS_CONF": f"{home}/containers.conf",
        "CONTAINERS_STORAGE_CONF": f"{home}/storage.conf",
    }
    user = ("setpriv", "--reuid=member", "--regid=member", "--init-groups", "--")
    return run(*user, "podman", *words, cwd=home, env=variables)


def member_directory(scene: Scene) -> Report:
    for flat in (scene.flat, f"{scene.flat}:O"):
        words = ("run", "--rm", "--network", "none", "--rootfs", flat, "/.run")
        report = read_report(as_member(scene, *words))
    return report


def member_store(scene: Scene) -> Report:
    words = ("run", "--rm", "--network", "none", "localhost/probe:1")
    return read_report(as_member(scene, *words))


def member_thin(scene: Scene) -> Report:
    settings = Path(oci_runtime.SETTINGS_FILE)
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(json.dumps({"trees": [str(scene.tree)], "runtime": "runc"}))
    as_member(scene, "pull", "--quiet", "--tls-verify=false", scene.thin)
    words = ("run", "--rm", "--network", "none", scene.thin)
    return read_report(as_member(scene, *words, engine=page_settings(2)))


def apptainer_file_as_user(scene: Scene) -> Report:
    # On most machines every user may open /dev/fuse; not on all that run these tests.
    node = scene.folder / "fuse"
    os.mknod(node, stat.S_IFCHR, os.makedev(10, 229))
    node.chmod(0o666)
    script = f'mount --bind {node} /dev/fuse && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", script, "sh", *USER)
    return shell(f"apptainer run --cleanenv --no-home {scene.file}", *before)


def apptainer_file_as_root(scene: Scene) -> Report:
    return shell(f"apptainer run --cleanenv --no-home --no-privs {scene.file}")


@contextmanager
def mounted_file(scene: Scene) -> Iterator[Path]:
    """The squashfs file, mounted by squashfuse for all users."""
    point = scene.folder / f"squashfuse-{secrets.token_hex(4)}"
    point.mkdir()
    run("squashfuse", "-o", "allow_other", scene.file, point)
    try:
        yield point
    finally:
        run("umount", point)


def podman_file(scene: Scene) -> Report:
    with mounted_file(scene) as point, podman(scene.folder / "podman-file") as engine:
        return read_report(
            engine("run", "--rm", *engine.run_options, "--rootfs", str(point), "/.run")
        )


def member_file(scene: Scene) -> Report:
    with mounted_file(scene) as point:
        words = ("run", "--rm", "--network", "none", "--rootfs", str(point), "/.run")
        return read_report(as_member(scene, *words))


def charliecloud_file(scene: Scene) -> Report:
    with mounted_file(scene) as point:
        return shell(f"USER=user ch-run --unset-env='*' {point} -- /.run", *USER)


def bwrap_file(scene: Scene) -> Report:
    options = "--dev /dev --proc /proc --clearenv"
    with mounted_file(scene) as point:
        return shell(f"bwrap --ro-bind {point} / {options} /.run", *USER)


def containerd_file(scene: Scene) -> Report:
    with mounted_file(scene) as point:
        return ctr(scene, "--rootfs", "--read-only", str(point), "probe", "/.run")


def docker_graph_driver(scene: Scene) -> Report:
    return docker_thin(scene, {})


def docker_image_store(scene: Scene) -> Report:
    return docker_thin(scene, {"features": {"containerd-snapshotter": True}})


def docker_thin(scene: Scene, settings: dict[str, object]) -> Report:
    place = scene.folder / f"docker-{len(settings)}"
    place.mkdir()
    runtime = {"path": oci_runtime.__file__, "runtimeArgs": ["--tree", str(scene.tree)]}
    file = place / "daemon.json"
    file.write_text(json.dumps(settings | {"runtimes": {"thin": runtime}}))
    with dockerd(
        place,
        insecure_registries=[scene.registry.host],
        options=("--config-file", str(file)),
    ) as docker:
        return read_report(docker.run(scene.thin, options=("--runtime", "thin")))


def ctr(scene: Scene, *words: str, pull: str = "") -> Report:
    with containerd(scene.folder / f"containerd-{secrets.token_hex(4)}") as engine:
        if pull:
            engine("images", "pull", "--plain-http", pull)
        return read_report(engine.output_of(*words))


def containerd_directory(scene: Scene) -> Report:
    return ctr(scene, "--rootfs", "--read-only", scene.flat, "probe", "/.run")


def containerd_snapshotter(scene: Scene) -> Report:
    original = scene.registry.push(f"oci:{scene.folder}/layout:1", "original:1")
    with snapshots(scene) as engine:
        option = ("--snapshotter", "publisher")
        engine("images", "pull", "--plain-http", *option, original)
        return read_report(engine.output_of(*option, original, "probe"))


def docker_snapshotter(scene: Scene) -> Report:
    original = scene.registry.push(f"oci:{scene.folder}/layout:1", "original:1")
    place = scene.folder / "docker-snapshotter"
    with snapshots(scene) as engine:
        place.mkdir()
        settings = place / "daemon.json"
        settings.write_text(succeed("snapshotter", "--config", "docker").out)
        with dockerd(
            place,
            insecure_registries=[scene.registry.host],
            options=("--config-file", str(settings), "--containerd", engine.socket),
        ) as docker:
            return read_report(docker.run(original))


@contextmanager
def snapshots(scene: Scene) -> Iterator[Containerd]:
    """A containerd with the snapshotter for the tree, as `publisher snapshotter` configures it."""
    place = scene.folder / f"snapshotter-{secrets.token_hex(4)}"
    place.mkdir()
    with running(place, scene.tree) as (service, _):
        words = ("snapshotter", "--config", "containerd-3", "--socket", service.socket)
        with containerd(place / "containerd", configuration=succeed(*words).out) as engine:
            yield engine


def containerd_thin(scene: Scene) -> Report:
    wrapper = scene.folder / "runtime"
    wrapper.write_text(f'#!/bin/sh\nexec {oci_runtime.__file__} --tree {scene.tree} "$@"\n')
    wrapper.chmod(0o755)
    return ctr(scene, "--runc-binary", str(wrapper), scene.thin, "probe", pull=scene.thin)


CALLER = "user and directory are the caller's"
OPTIONS = "user and directory by options"
MOUNTED = "mounted by squashfuse"

CELLS: list[tuple[str, str, Callable[[Scene], Report], str]] = [
    ("Apptainer 1.4, any user", "flat image", apptainer_as_user, CALLER),
    ("Apptainer 1.4, root", "flat image", apptainer_as_root, CALLER),
    ("Charliecloud 0.45, any user", "flat image", charliecloud, CALLER),
    ("bubblewrap", "flat image", bwrap, ""),
    ("Podman 5.8, root", "flat image", podman_directory, ""),
    ("Podman 5.8, root", "thin image", podman_thin, ""),
    ("Podman 5.8, root", "Podman store", podman_store, ""),
    ("Podman 5.8, subordinate IDs", "flat image", member_directory, OPTIONS),
    ("Podman 5.8, subordinate IDs", "thin image", member_thin, ""),
    ("Podman 5.8, subordinate IDs", "Podman store", member_store, ""),
    ("Docker 28.5, overlay2", "thin image", docker_graph_driver, ""),
    ("Docker 28.5, image store", "thin image", docker_image_store, ""),
    ("containerd 2.1, ctr", "flat image", containerd_directory, OPTIONS),
    ("containerd 2.1, ctr", "thin image", containerd_thin, ""),
    ("containerd 2.1, ctr", "snapshotter", containerd_snapshotter, ""),
    ("Docker 28.5, image store", "snapshotter", docker_snapshotter, ""),
    ("Apptainer 1.4, any user", "squashfs file", apptainer_file_as_user, CALLER),
    ("Apptainer 1.4, root", "squashfs file", apptainer_file_as_root, CALLER),
    ("Charliecloud 0.45, any user", "squashfs file", charliecloud_file, f"{MOUNTED}; {CALLER}"),
    ("bubblewrap", "squashfs file", bwrap_file, f"{MOUNTED}; {CALLER}"),
    ("Podman 5.8, root", "squashfs file", podman_file, f"{MOUNTED}; {OPTIONS}"),
    ("Podman 5.8, subordinate IDs", "squashfs file", member_file, f"{MOUNTED}; {OPTIONS}"),
    ("containerd 2.1, ctr", "squashfs file", containerd_file, f"{MOUNTED}; {OPTIONS}"),
]
NOT_POSSIBLE = {
    ("Docker", "flat image"): "Docker runs no directories",
    ("Apptainer", "thin image"): "Apptainer calls no OCI runtime",
    ("Charliecloud", "thin image"): "Charliecloud calls no OCI runtime",
    ("bubblewrap", "thin image"): "bubblewrap calls no OCI runtime",
    ("Apptainer", "Podman store"): "Apptainer does not read Podman's storage",
    ("Charliecloud", "Podman store"): "Charliecloud does not read Podman's storage",
    ("bubblewrap", "Podman store"): "bubblewrap runs directories",
    ("Docker", "Podman store"): "Docker does not read Podman's storage",
    ("containerd", "Podman store"): "containerd does not read Podman's storage",
    ("Apptainer", "snapshotter"): "for containerd",
    ("Charliecloud", "snapshotter"): "for containerd",
    ("bubblewrap", "snapshotter"): "for containerd",
    ("Podman", "snapshotter"): "for containerd",
    ("Docker", "squashfs file"): "Docker runs no directories",
    ("Docker", "snapshotter"): "for Docker's containerd image store",
}
"""Why an engine cannot use an output, by the first word of its name."""


@pytest.mark.parametrize(
    ("engine", "output", "start", "difference"), CELLS, ids=[f"{e}-{o}" for e, o, *_ in CELLS]
)
def test_an_engine_starts_a_published_image_like_the_original(
    scene: Scene,
    engine: str,
    output: str,
    start: Callable[[Scene], Report],
    difference: str,
) -> None:
    TABLE[engine, output] = "fails"
    found = dataclasses.asdict(start(scene))
    expected = dataclasses.asdict(scene.expected)
    # Variables of the original; runtimes add their own.
    wanted = {pair for pair in expected.pop("environment") if pair[0] not in ("HOME", "PATH")}
    assert wanted <= set(found.pop("environment"))
    if difference:  # Apptainer and its kind run as the caller; a directory has no config for ctr
        for each in (found, expected):
            del each["id"], each["directory"]
    assert found == expected
    TABLE[engine, output] = f"works; {difference}" if difference else "works"


def test_the_table_has_a_result_or_a_reason_for_each_engine_and_output() -> None:
    tried = {(engine, output) for engine, output, *_ in CELLS}
    for engine in {engine for engine, _ in tried}:
        for output in OUTPUTS:
            if (engine, output) not in tried:
                reason = NOT_POSSIBLE[engine.partition(" ")[0], output]
                TABLE[engine, output] = f"not possible: {reason}"
