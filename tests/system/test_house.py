"""On a fresh machine, git, make and Python are enough, as the README states."""

from __future__ import annotations

import html
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.components import program, require, require_mounts, run, unmount_below
from tests.debian import cached, install_debian, suite
from tests.registry import OwnRegistry
from tests.registry_images import sample_image

pytestmark = pytest.mark.system

CHECKOUT = Path(__file__).parents[2]
RECIPE = 2
PICTURE = CHECKOUT / "docs/figures/demo.svg"
TUTORIAL = CHECKOUT / "docs/tutorial.md"
_DIGEST = re.compile(r"[0-9a-f]{2}/[0-9a-f]{12}…")
NETWORK_FILES = (
    "/etc/resolv.conf",
    "/etc/ssl/certs",
    "/usr/local/share/ca-certificates",
    "/etc/pip.conf",
)
NETWORK_VARIABLES = ("PIP_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY")


@pytest.fixture(params=[suite()])
def fresh_machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The root of a fresh Debian, with a user 1000 in /home/user, and a clone of this repository.

    It has the packages that the tutorial installs, and reaches package mirrors as this machine
    does. Each test gets its own writable overlay.
    """
    require_mounts()
    require("mmdebstrap", "git")
    release = str(request.param)
    base = cached("fresh-debian", RECIPE, lambda root: _install(root, release), release=release)
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


@pytest.mark.parametrize("fresh_machine", ["bookworm", "trixie"], indirect=True)
def test_the_tutorial_works_literally_on_a_fresh_debian_as_an_ordinary_user(
    fresh_machine: Path,
) -> None:
    """The first of its commands is the demo, which also works when there is no network."""
    started = time.monotonic()
    blocks = _tutorial_blocks()
    # Files of users who log in to Debian 13 are writable by their group.
    script = [
        "set -e; umask 002",
        "git clone --quiet file:///home/user/publisher.git fresh",
        "cd fresh",
    ]
    for number, (commands, _) in enumerate(blocks):
        script += [f"echo block {number}", *commands]
    output = _as_user(fresh_machine, "\n".join(script))
    printed = re.split(r"^block \d+\n", output, flags=re.MULTILINE)[1:]
    assert len(printed) == len(blocks) > 8
    for (commands, expected), text in zip(blocks, printed, strict=True):
        position = 0
        for line in expected:
            pattern = re.escape(line).replace("…", ".*")
            found = re.compile(f"^{pattern}$", re.MULTILINE).search(text, position)
            assert found, (commands, line, text)
            position = found.end()
    print(f"the tutorial took {(time.monotonic() - started) / 60:.1f} minutes")

    assert "dropped by policy" not in output
    demo = printed[0]
    assert demo.count("verified:") >= 12
    assert "/schedule.json" in demo and "notBefore" in demo
    anonymous = _DIGEST.sub("…", demo)  # those of layers depend on the release of zlib
    for text in re.findall(r"^  <text [^>]*>(.*)</text>", PICTURE.read_text(), re.MULTILINE):
        line = _DIGEST.sub("…", html.unescape(text))
        differs = "layerfs" in line or "layers fetched" in line  # by order, and by user
        assert differs or f"{line}\n" in anonymous, line
    tree = fresh_machine / "home/user/fresh/demo/tree"
    public = tree / "local/tools:stable"
    assert not os.path.isabs(public.readlink())
    assert "version 2" in (public / "usr/bin/sort-stars").read_text()
    assert _as_user(fresh_machine, "git -C fresh status --porcelain") == ""
    again = _as_user(fresh_machine, "make -C fresh demo", network=False)
    assert again.count("verified:") == demo.count("verified:")


def _tutorial_blocks() -> list[tuple[list[str], list[str]]]:
    """Return the commands of each console block, with the lines that the page shows below it."""
    pattern = r"^```console\n((?:\$ .*\n)+)```\n(?:```text\n((?:(?!```).*\n)*)```\n)?"
    found = re.findall(pattern, TUTORIAL.read_text(), re.MULTILINE)
    return [
        ([line.removeprefix("$ ") for line in commands.splitlines()], shown.splitlines())
        for commands, shown in found
    ]


def _tutorial_packages() -> list[str]:
    """Return the Debian packages that the tutorial installs."""
    [line] = re.findall(r"^# apt-get install (.*)$", TUTORIAL.read_text(), re.MULTILINE)
    return [word for word in line.split() if not word.startswith("--")]


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


def _install(root: Path, release: str) -> None:
    install_debian(root, _tutorial_packages(), release=release)
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
