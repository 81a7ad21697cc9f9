"""On a fresh machine, git, make and Python are enough, as the README states."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components import program, require, require_mounts, run, unmount_below
from tests.debian import cached, debootstrap

pytestmark = pytest.mark.system

CHECKOUT = Path(__file__).parents[2]
RECIPE = 1
PACKAGES = ("python3", "python3-venv", "git", "make", "ca-certificates")
NETWORK_FILES = (
    "/etc/resolv.conf",
    "/etc/ssl/certs",
    "/usr/local/share/ca-certificates",
    "/etc/pip.conf",
)
NETWORK_VARIABLES = ("PIP_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY")


@pytest.fixture
def fresh_machine(tmp_path: Path) -> Iterator[Path]:
    """The root of a fresh Debian, with a user 1000 in /home/user, and a clone of this repository.

    It reaches package mirrors as this machine does. Each test gets its own writable overlay.
    """
    require_mounts()
    require("debootstrap", "git")
    base = cached("fresh-debian", RECIPE, _install)
    root, upper, work = (tmp_path / name for name in ("root", "upper", "work"))
    for folder in (root, upper, work):
        folder.mkdir()
    layers = f"lowerdir={base},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "overlay", "-o", layers, root)
    try:
        run("mount", "-t", "proc", "proc", root / "proc")
        _connect(root)
        _clone_bare(root / "home/user/publisher.git", tmp_path / "gitconfig")
        run("chown", "-R", "1000:1000", root / "home/user")
        yield root
    finally:
        unmount_below(root)
        shutil.rmtree(upper)
        shutil.rmtree(work)


def test_a_fresh_debian_runs_the_demo_as_an_ordinary_user(fresh_machine: Path) -> None:
    output = _as_user(
        fresh_machine,
        "git clone --quiet file:///home/user/publisher.git fresh && cd fresh && make demo",
    )
    assert output.count("verified:") >= 12
    assert "/schedule.json" in output and "notBefore" in output
    tree = fresh_machine / "home/user/fresh/demo/tree"
    public = tree / "local/tools:stable"
    assert not os.path.isabs(public.readlink())
    assert "version 2" in (public / "usr/bin/sort-stars").read_text()
    assert _as_user(fresh_machine, "git -C fresh status --porcelain") == ""

    again = _as_user(fresh_machine, "make -C fresh demo", network=False)
    assert again.count("verified:") == output.count("verified:")


def _install(root: Path) -> None:
    debootstrap(root, PACKAGES)
    run("chroot", root, "useradd", "--uid", "1000", "--create-home", "user")
    root.chmod(0o755)  # a temporary directory's 0700 would keep the user out


def _connect(root: Path) -> None:
    """Give the machine this one's way to the package index: configuration and certificates."""
    configurations = [
        path
        for path in (Path.home() / ".pip/pip.conf", Path.home() / ".config/pip/pip.conf")
        if path.exists()
    ]
    for path in (*map(Path, NETWORK_FILES), *configurations):
        if path in configurations:
            target = root / "home/user" / path.relative_to(Path.home())
        else:
            target = root / path.relative_to("/")
        if path.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            run("cp", "--archive", "--remove-destination", "--no-target-directory", path, target)


def _clone_bare(target: Path, configuration: Path) -> None:
    """Copy what is committed; works also for a shallow checkout that belongs to another user."""
    configuration.write_text("[safe]\n\tdirectory = *\n")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": str(configuration)}
    run("git", "clone", "--quiet", "--bare", f"file://{CHECKOUT}", target, env=environment)


def _as_user(root: Path, script: str, *, network: bool = True) -> str:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.upper().startswith(NETWORK_VARIABLES) or name.upper() == "NO_PROXY"
    }
    environment |= {"HOME": "/home/user", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    command = [program("chroot"), "--userspec=1000:1000", str(root), "/bin/sh", "-c"]
    if not network:
        command = [program("unshare"), "--net", "--", *command]
    return run(*command, f"cd && {script}", env=environment)
