"""The real programs that tests run against: registries, engines, and the kernel's overlayfs.

Each launcher is a context manager: it starts its daemon on a free loopback port, or on a socket in
a temporary directory, waits until it answers, and leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
import requests

from tests.processes import running

NEEDS_PROGRAMS = "needs the programs "
"""How the reason of a skipped test begins; tests/conftest.py adds the install line, once."""
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def require(*programs: str) -> None:
    """Skip the test unless all `programs` are installed. Under CI a missing one is a failure."""
    missing = [name for name in programs if shutil.which(name, path=_SEARCH_PATH) is None]
    if missing:
        _unavailable(f"{NEEDS_PROGRAMS}{', '.join(missing)}")


def require_library(name: str, package: str) -> ctypes.CDLL:
    """Return the library `name` of the Debian package; without it, skip the test."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        _unavailable(f"needs the library {name} (apt install {package})")


def require_root() -> None:
    """Skip the test unless it runs as root (mounts, chroot, owners). A failure under CI."""
    if os.geteuid() != 0:
        _unavailable("needs root: run the tests as root to include it")


def require_mounts() -> None:
    """Skip the test unless mounts can be made, and containers run. A failure under CI.

    Not so in an unprivileged container, nor in a chroot whose root is not a mount.
    """
    require_root()
    if not can_mount():
        _unavailable("needs a machine, or a privileged container, that may mount file systems")


def require_user_namespaces() -> None:
    """Skip the test unless an ordinary user can become root of a user namespace."""
    require("unshare")
    if not _has_user_namespaces():
        _unavailable("needs user namespaces (sysctl user.max_user_namespaces, AppArmor)")


@functools.cache
def _has_user_namespaces() -> bool:
    unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    ordinary = unprivileged if os.geteuid() == 0 else []
    command = [*ordinary, "unshare", "--user", "--map-root-user", "true"]
    return subprocess.run(command, capture_output=True).returncode == 0


@functools.cache
def can_mount() -> bool:
    """Whether this process may mount file systems."""
    # unshare --mount does what engines do first: a mount namespace, and its root's propagation
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def program(name: str) -> str:
    """The full path of an installed program, also of one that only root has in its PATH."""
    require(name)
    path = shutil.which(name, path=_SEARCH_PATH)
    assert path is not None
    return path


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str = "",
) -> str:
    """Run `command` to its end and return what it printed; its errors are part of a failure."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=env,
        input=input,
        capture_output=True,
        text=True,
        errors="surrogateescape",
    )
    if done.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(str, command))} ended with {done.returncode}\n"
            f"{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
    return done.stdout


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (nothing may be skipped when CI is set)")
    pytest.skip(reason)


# Registries ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenAuth:
    """The token service that a registry sends its clients to, and whose signature it accepts."""

    realm: str
    issuer: str
    certificates: Path
    service: str = "test-registry"


@dataclass(frozen=True, slots=True)
class Registry:
    """A running docker-registry: `host` is "127.0.0.1:PORT", `storage` its root directory."""

    host: str
    storage: Path
    log: Path

    @property
    def url(self) -> str:
        """Where it answers, without the API's /v2/."""
        return f"http://{self.host}"

    def blob_path(self, digest: str) -> Path:
        """The file in which it stores the blob `digest` ("sha256:…")."""
        algorithm, _, value = digest.partition(":")
        return self.storage / f"docker/registry/v2/blobs/{algorithm}/{value[:2]}/{value}/data"

    def push(self, source: str, name: str, *options: str) -> str:
        """Copy "oci:DIR:TAG" into it as "path:tag", with skopeo; returns the reference."""
        reference = f"{self.host}/{name}"
        skopeo_copy(source, f"docker://{reference}", "--dest-tls-verify=false", *options)
        return reference


@contextmanager
def docker_registry(
    directory: Path,
    *,
    htpasswd: Mapping[str, str] | None = None,
    token: TokenAuth | None = None,
    notified: Mapping[str, str] | None = None,
) -> Iterator[Registry]:
    """A registry of the CNCF distribution, open, or with Basic (user -> password) or token auth.

    `notified` are addresses that it sends notifications to, each with its Authorization header.
    """
    serve = program("docker-registry")
    directory.mkdir(parents=True, exist_ok=True)
    storage, config, log = directory / "storage", directory / "config.json", directory / "log"
    auth: dict[str, object] = {}
    if htpasswd is not None:
        passwords = directory / "htpasswd"
        passwords.write_text("".join(_htpasswd_line(*item) for item in htpasswd.items()))
        auth = {"htpasswd": {"realm": "test registry", "path": str(passwords)}}
    elif token is not None:
        auth = {
            "token": {
                "realm": token.realm,
                "service": token.service,
                "issuer": token.issuer,
                "rootcertbundle": str(token.certificates),
            }
        }
    settings = {
        "version": "0.1",
        "log": {"level": "info"},  # which includes the port
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0"},
        **({"auth": auth} if auth else {}),
        **({"notifications": _notifications(notified)} if notified else {}),
    }
    config.write_text(json.dumps(settings))  # JSON is YAML

    def host() -> str:
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text(errors="replace"))
        return found.group(1) if found else ""

    def answers() -> bool:
        if not host():
            return False
        try:
            return requests.get(f"http://{host()}/v2/", timeout=5).status_code in (200, 401)
        except requests.ConnectionError:
            return False

    # A machine's AWS_CA_BUNDLE makes the registry's S3 driver panic, even when it is not used.
    command = [serve, "serve", str(config)]
    with running(command, log=log, ready=answers, environment={"AWS_CA_BUNDLE": ""}):
        yield Registry(host(), storage, log)


def _notifications(notified: Mapping[str, str]) -> dict[str, object]:
    """The part of its configuration that docs/service.md shows."""
    return {
        "endpoints": [
            {
                "name": f"publisher{number}",
                "url": url,
                "headers": {"Authorization": [secret]},
                "timeout": "5s",
                "threshold": 5,
                "backoff": "1s",
            }
            for number, (url, secret) in enumerate(notified.items())
        ]
    }


def _htpasswd_line(user: str, password: str) -> str:
    line = run(program("htpasswd"), "-niB", user, input=password)
    return line.strip() + "\n"


def skopeo_copy(source: str, destination: str, *options: str) -> None:
    """Copy an image between any two places that skopeo knows."""
    run(program("skopeo"), "copy", "--quiet", "--insecure-policy", *options, source, destination)


# Engines ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine: `command` is its client, ready for arguments; `socket` its URL."""

    command: tuple[str, ...]
    socket: str = ""
    run_options: tuple[str, ...] = ()

    def __call__(self, *arguments: str | Path) -> str:
        """Run the client with `arguments`; returns what it printed."""
        return run(*self.command, *arguments)

    def run(self, image: str, *command: str, options: Sequence[str] = ()) -> str:
        """Run `command` in a container of `image`, without a network; returns what it printed."""
        return self("run", "--rm", *self.run_options, *options, image, *command)


class Containerd(Engine):
    """Containerd with its client ctr."""

    __slots__ = ()

    def output_of(self, *arguments: str) -> str:
        """Run a container to its end, with the arguments of `ctr run`, and return its output.

        The shim writes it to a file: ctr itself may lose the output of a command that ends at once.
        It is part of the error if the container fails.
        """
        with tempfile.TemporaryDirectory() as directory:
            log = Path(directory) / "log"
            try:
                self("run", "--rm", "--log-uri", log.as_uri(), *arguments)
            except AssertionError as error:
                output = log.read_text(errors="surrogateescape") if log.exists() else ""
                raise AssertionError(f"{error}{output}") from error
            return log.read_text(errors="surrogateescape")

    def in_namespace(self, name: str) -> Containerd:
        """The same containerd; the client works in another of its namespaces."""
        return Containerd((*self.command, "--namespace", name), self.socket)


@contextmanager
def dockerd(
    directory: Path,
    *,
    insecure_registries: Sequence[str] = (),
    experimental: bool = False,
    storage_driver: str = "",
    options: Sequence[str] = (),
) -> Iterator[Engine]:
    """A Docker engine without a network, with its data below `directory`.

    `options` are more of the daemon's own, such as another address to listen at.
    """
    require_mounts()
    daemon = program("dockerd")
    require("containerd", "runc")
    # Debian's client is of the daemon's age; a newer one elsewhere in PATH may refuse to talk to it
    beside = Path("/usr/bin/docker")
    client = str(beside) if beside.exists() else program("docker")
    directory.mkdir(parents=True, exist_ok=True)
    with _short_directory() as short:
        socket = f"unix://{short}/docker.sock"
        engine = Engine(
            ("env", f"DOCKER_CONFIG={short}/config", client, "-H", socket),
            socket,
            ("--network", "none"),
        )
        command = [
            *(daemon, "--iptables=false", "--ip6tables=false", "--bridge=none", "-H", socket),
            *("--data-root", str(directory / "data"), "--exec-root", f"{short}/exec"),
            *("--pidfile", f"{short}/pid"),
            *(word for host in insecure_registries for word in ("--insecure-registry", host)),
            *(["--experimental"] if experimental else []),
            *(["--storage-driver", storage_driver] if storage_driver else []),
            *options,
        ]
        try:
            with running(
                command, log=directory / "dockerd.log", ready=lambda: _succeeds(engine, "version")
            ):
                yield engine
        finally:
            unmount_below(directory)


@contextmanager
def containerd(
    directory: Path, *, configuration: str = "version = 2\n", cri: bool = False
) -> Iterator[Containerd]:
    """A containerd, driven by ctr, with its data below `directory`.

    `configuration` is the text of a configuration file, which begins with its version; it gets the
    places of data and socket. `cri` is whether Kubernetes' interface is served.
    """
    require_mounts()
    daemon, client = program("containerd"), program("ctr")
    directory.mkdir(parents=True, exist_ok=True)
    with _short_directory() as short:
        socket = f"{short}/containerd.sock"
        config = directory / "config.toml"
        version, _, rest = configuration.partition("\n")
        disabled = "" if cri else 'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        config.write_text(
            f"{version}\nroot = {json.dumps(str(directory / 'root'))}\n"
            f'state = "{short}/state"\n{disabled}'
            f'[grpc]\n  address = "{socket}"\n{rest}'
        )
        engine = Containerd((client, "--address", socket), socket)
        try:
            with running(
                [daemon, "--config", str(config)],
                log=directory / "containerd.log",
                ready=lambda: _succeeds(engine, "version"),
            ):
                yield engine
        finally:
            unmount_below(directory)


@contextmanager
def podman(directory: Path) -> Iterator[Engine]:
    """A podman with storage of its own below `directory`; it has no daemon."""
    require_mounts()
    client = program("podman")
    require("runc")
    directory.mkdir(parents=True, exist_ok=True)
    with _short_directory() as short:
        engine = Engine(
            (
                *(client, "--root", str(directory / "root"), "--runroot", f"{short}/run"),
                *("--tmpdir", f"{short}/tmp", "--runtime", "runc"),
                *("--cgroup-manager", "cgroupfs", "--events-backend", "file"),
            ),
            # podman raises these limits by default, which a machine may refuse
            run_options=(
                *("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096"),
                *("--network", "none"),
            ),
        )
        try:
            yield engine
        finally:
            run(*engine.command, "rm", "--all", "--force")
            unmount_below(directory)


def _succeeds(engine: Engine, *arguments: str) -> bool:
    command = [*engine.command, *arguments]
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


@contextmanager
def _short_directory() -> Iterator[Path]:
    """A temporary directory with a short name: a socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="pt-", dir="/tmp"))
    try:
        yield path
    finally:
        unmount_below(path)
        shutil.rmtree(path)


# Mounts -------------------------------------------------------------------------------------------


def unmount_below(directory: Path) -> None:
    """Unmount everything that is mounted on `directory` or below it, innermost first."""
    top = os.fsencode(directory.resolve())
    points = [
        line.split()[4].decode("unicode_escape").encode("latin-1")
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines()
    ]
    for point in reversed([p for p in points if p == top or p.startswith(top + b"/")]):
        run("umount", "--lazy", os.fsdecode(point))


@contextmanager
def overlay_mount(layers: Sequence[Path]) -> Iterator[Path]:
    """The kernel's overlayfs, read-only, over `layers` from bottom to top; yields its mount point.

    The kernel takes a page of options and at most 500 layers, so layers are named by short links.
    """
    require_mounts()
    with tempfile.TemporaryDirectory(prefix="publisher-overlay-") as name:
        directory = Path(name)
        point, empty = directory / "mnt", directory / "empty"
        point.mkdir()
        empty.mkdir()
        # read-only overlays need two lower directories; an empty one at the bottom shows nothing
        lower = [empty, *layers]
        for number, layer in enumerate(lower):
            (directory / f"{number:x}").symlink_to(layer.resolve())
        order = ":".join(f"{number:x}" for number in reversed(range(len(lower))))
        run(
            *("mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={order}", "mnt"),
            cwd=directory,
            env={**os.environ, "LIBMOUNT_FORCE_MOUNT2": "always"},  # its successor: 256 bytes
        )
        try:
            yield point
        finally:
            run("umount", point)
