"""Debian machines with systemd, in containers of systemd-nspawn."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.components import program, require, require_mounts, run, unmount_below
from tests.debian import cached, install_debian

RECIPE = 1
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "python3-apt"),
    *("python3-packaging", "python3-venv", "git", "ca-certificates", "podman", "netavark"),
)
MASKED = (
    "ssh.service",  # the network is that of the host: a connection starts an sshd of its own
    *("apt-daily.timer", "apt-daily-upgrade.timer"),
    *("podman.service", "podman.socket", "podman-auto-update.service", "podman-auto-update.timer"),
)
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Machine:
    """A running machine; its processes see `root` as their file system."""

    root: Path
    init: int

    @property
    def enter(self) -> list[str]:
        """The words before a command that runs on the machine."""
        namespaces = ("--mount", "--uts", "--ipc", "--pid", "--root", "--wd")
        return [program("nsenter"), f"--target={self.init}", *namespaces, "--"]

    def run(self, *command: str | Path) -> str:
        """Run a command on the machine, as root, and return what it printed."""
        return run(*self.enter, *command, env=ENVIRONMENT)


@contextmanager
def machine(folder: Path, *options: str) -> Iterator[Machine]:
    """Boot a fresh Debian with the machine's network. What it writes is in `folder`."""
    require_mounts()
    require("systemd-nspawn", "mmdebstrap")
    base = cached("deploy-debian", RECIPE, _install)
    root, upper, work = (folder / name for name in ("root", "upper", "work"))
    for each in (root, upper, work):
        each.mkdir(parents=True)
    layers = f"lowerdir={base},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "overlay", "-o", layers, root)
    boot = ("--boot", "--register=no", "--keep-unit", "--console=pipe", f"--directory={root}")
    with (folder / "console").open("w") as console:
        nspawn = subprocess.Popen(
            [program("systemd-nspawn"), *boot, *options],
            # Podman sets sysctls of its containers' networks.
            env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
        )
    init = 0
    try:
        init = _init_of(nspawn)
        started = Machine(root, init)
        _wait_until_booted(started)
        yield started
    finally:
        if init:
            # All processes of the machine end with its process 1, as by a power failure.
            os.kill(init, signal.SIGKILL)
        else:
            nspawn.terminate()
        nspawn.wait(START_SECONDS)
        unmount_below(root)
        shutil.rmtree(upper)
        shutil.rmtree(work)


def _init_of(nspawn: subprocess.Popen[bytes]) -> int:
    """The machine's process 1, seen from outside."""
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and nspawn.poll() is None:
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        time.sleep(0.05)
    raise AssertionError("the machine does not start")


def _wait_until_booted(started: Machine) -> None:
    deadline = time.monotonic() + START_SECONDS
    state = ""
    while time.monotonic() < deadline:
        state = subprocess.run(
            [*started.enter, "systemctl", "is-system-running", "--wait"],
            capture_output=True,
            text=True,
        ).stdout.strip()
        if state == "running":
            return
        time.sleep(0.1)
    raise AssertionError(f"the machine is {state}")


def _install(root: Path) -> None:
    install_debian(root, PACKAGES)
    root.chmod(0o755)
    for unit in MASKED:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    shutil.rmtree(root / "etc/systemd/system/default.target.wants")
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
