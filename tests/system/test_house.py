"""On a fresh machine, git, make and Python are enough, as the README states."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.components import program, require, require_mounts, run, unmount_below
from tests.debian import cached, debootstrap
from tests.registry import OwnRegistry
from tests.registry_images import sample_image

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


def test_the_steps_of_the_pull_request_workflow_work_on_a_fresh_machine(
    fresh_machine: Path, tmp_path: Path
) -> None:
    home = fresh_machine / "home/user"
    workflow = yaml.safe_load((CHECKOUT / "deploy/github-actions/check.yml").read_text())
    steps = [_as_shell(step) for step in workflow["jobs"]["check"]["steps"]]
    with OwnRegistry() as registry:
        registry.add("team/x", "1", sample_image())
        _make_branches(tmp_path / "wishes", registry.url)
        run("git", "clone", "--quiet", "--bare", tmp_path / "wishes", home / "wishes.git")
        run("chown", "-R", "1000:1000", home / "wishes.git")
        script = [
            "set -e; export GITHUB_BASE_REF=main GITHUB_STEP_SUMMARY=/home/user/summary.md",
            *steps,
            "git checkout --quiet bad",
            f"{steps[-1]} || echo exit code $?",
        ]
        output = _as_user(fresh_machine, "\n".join(script))
    [error] = [line for line in output.splitlines() if line.startswith("::error")]
    assert "file=lists/astro.yaml" in error and "line=4" in error
    assert output.splitlines()[-1] == "exit code 1"
    assert "team/x:2" in (home / "summary.md").read_text()
    assert not registry.seen(path="team/gone")


def _make_branches(work: Path, registry: str) -> None:
    """Make a repository with a broken wish in main, and one more wish in "good" and in "bad"."""
    git = ("git", "-C", work, "-c", "user.name=a", "-c", "user.email=a@example.org")
    (work / "lists").mkdir(parents=True)
    run(*git, "init", "--quiet", "--initial-branch=main")
    text = f"version: 2\nimages:\n- {registry}/team/gone:1\n"
    for branch, added in (("main", ""), ("good", "x:1"), ("bad", "x:2")):
        run(*git, "checkout", "--quiet", "-B", branch, *(["main"] if added else []))
        more = f"- {registry}/team/{added}\n" if added else ""
        (work / "lists/astro.yaml").write_text(text + more)
        run(*git, "add", ".")
        run(*git, "commit", "--quiet", "--message=lists")


def _as_shell(step: dict[str, Any]) -> str:
    """Return a step of a workflow as a command: what GitHub's actions do, or the step's own."""
    if "run" in step:
        return f"bash -e -c {shlex.quote(step['run'])}"
    action, options = step["uses"].partition("@")[0], step["with"]
    if action == "actions/setup-python":
        return "python3 -m venv /home/user/python; export PATH=/home/user/python/bin:$PATH"
    assert action == "actions/checkout"
    if "repository" in options:
        return f"git clone --quiet file:///home/user/publisher.git {options['path']}"
    return "git clone --quiet --branch good file:///home/user/wishes.git wishes; cd wishes"


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
