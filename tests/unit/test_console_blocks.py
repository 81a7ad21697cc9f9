"""Each command that a page shows is run by a test, or is on a short list with a reason.

Most are run here, in the order of their page, for one small repository of images in a registry.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from docs.handbook.staging import written_pages
from publisher.cli.main import publisher as command_line
from tests.command import environment, publisher, succeed
from tests.components import require, run
from tests.layer_builder import file, image, layer
from tests.receiver import NotificationReceiver
from tests.registry import OwnRegistry

ROOT = Path(__file__).parents[2]

RUN_ELSEWHERE = {
    ("docs/tutorial.md", ""): "tests/system/test_house.py",
    ("docs/api.md", ""): "tests/web_service.py",
    ("docs/packages.md", ""): "tests/unit/browse/test_packages.py",
    ("docs/pull-requests.md", "From an empty repository to the first merged wish"): (
        "tests/system/test_pull_requests.py"
    ),
    ("docs/runtimes/README.md", ""): "tests/system/test_runtimes_pages.py",
    ("docs/runtimes/apptainer.md", ""): "tests/system/test_runtimes_pages.py",
    ("docs/runtimes/bwrap.md", ""): "tests/system/test_runtimes_pages.py",
    ("docs/runtimes/charliecloud.md", ""): "tests/system/test_runtimes_pages.py",
    ("docs/runtimes/containerd.md", ""): "tests/system/test_runtimes_pages.py",
    ("docs/runtimes/podman.md", ""): "tests/system/test_runtimes_pages.py",
    ("docs/runtimes/docker.md", "With a runtime"): "tests/system/test_thin_runtime.py",
}
"""Pages, or single sections of them, whose commands another test reads from the page and runs."""

NOT_RUN = {
    ("README.md", "Two commands"): "make demo is run by the tutorial; make test is this run",
    (
        "docs/installation.md",
        "Installation",
    ): "the tutorial installs from a checkout",
    ("docs/installation.md", "Man pages and completion"): "tests/unit/test_distribution.py",
    ("docs/installation.md", "Extras"): "installs from PyPI what the extra dev has",
    ("docs/installation.md", "As a container"): "tests/system/test_container_image.py",
    ("CONTRIBUTING.md", "Tests"): "they run the tests",
    ("docs/transactions.md", "Tests"): "they run the tests",
    ("docs/removal.md", "How it is checked"): "runs random removals for an hour",
    ("docs/cvmfs.md", "Space"): "runs a test with a layer of 5 GB",
    ("docs/cvmfs.md", "Waiting for an image, and for its replicas"): (
        "needs CVMFS; tests/unit/browse/test_wait.py has replicas"
    ),
    ("docs/administration.md", "Credentials"): (
        "asks for a password; tests/unit/cli/test_login.py has a registry with passwords"
    ),
    ("docs/service.md", ""): "a service, and PostgreSQL: tests/system/test_service.py runs both",
    ("docs/security.md", "Write permission"): "changes the exports of the machine",
    ("docs/runtimes/docker.md", "Making thin images"): (
        "needs Docker and a plug-in; tests/system/test_thin_docker.py has both"
    ),
    ("thin-images/README.md", "When a thin image is made"): (
        "needs Docker; tests/system/test_thin_images.py pushes and saves thin images"
    ),
    ("layout/README.md", "Layers"): "mounts; tests/system/test_on_overlayfs.py has such mounts",
}
"""Sections whose commands no test reads from the page, and why."""


@dataclass(frozen=True, slots=True)
class Block:
    """The commands of one console block: its page, the heading above it."""

    page: str
    heading: str
    commands: tuple[str, ...]


def blocks() -> list[Block]:
    found = []
    for page in written_pages():
        for block in re.finditer(r"^```console\n(.*?)^```", page.text, re.MULTILINE | re.DOTALL):
            headings = re.findall(r"^#+ (.*)$", page.text[: block.start()], re.MULTILINE)
            commands = tuple(re.findall(r"^\$ (.*)$", block[1], re.MULTILINE))
            if commands:
                found.append(Block(page.source, headings[-1], commands))
    return found


def run_here() -> list[Block]:
    elsewhere = {*RUN_ELSEWHERE, *NOT_RUN}
    return [
        each
        for each in blocks()
        if (each.page, "") not in elsewhere and (each.page, each.heading) not in elsewhere
    ]


def test_the_commands_that_run_elsewhere_exist_and_are_read_from_their_page() -> None:
    shown = {(each.page, each.heading) for each in blocks()} | {(b.page, "") for b in blocks()}
    assert {*RUN_ELSEWHERE, *NOT_RUN} <= shown
    for (page, _), test in RUN_ELSEWHERE.items():
        name = Path(page).name if "/runtimes/" in page else page
        assert name in (ROOT / test).read_text(), (page, test)
    for reason in NOT_RUN.values():
        for test in re.findall(r"tests/[\w/]+\.py", reason):
            assert (ROOT / test).exists(), test


ENDS_WITH = {"diff": {0, 1}, "mkdir": {0, 1}, "publisher doctor": {0, 1}}
"""The exit codes of commands that may end with another one than 0 here."""

NEEDS_A_SYSTEM = ("chroot ",)
"""Commands that need a system in the image; tests/system/test_runtimes_pages.py runs such ones."""

_SHELL = re.compile(r"[|<>$]|^(?!publisher )")


class Site:
    """What the pages talk about: images in a registry, a wish list, a git repository of lists."""

    def __init__(self, folder: Path, registry: OwnRegistry, receiver: NotificationReceiver) -> None:
        self.folder = folder
        self.host = registry.url.partition("://")[2]
        self.url = registry.url
        self.work = folder / "lists-of-site"
        self.env = {
            "PUBLISHER_REPOSITORY": f"dir:{folder}/images",
            "PUBLISHER_STATE": f"{folder}/state",
        }
        for name in ("etc", "log", "prometheus", "www", "bin"):
            (folder / name).mkdir()
        shim = folder / "bin/publisher"
        shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m publisher "$@"\n')
        shim.chmod(0o755)
        (folder / "key").write_text("0123456789abcdef0123456789abcdef\n")
        (folder / "etc/notify.yaml").write_text(
            "version: 1\nreceivers:\n  site:\n"
            f"    webhook: http://{receiver.host}/hook\n    secret-file: {folder}/key\n"
        )
        for name, tag, number in (
            ("library/debian", "stable", 1),
            ("stimela/casa", "1.7.1", 2),
            ("stimela/casa", "1.8.0", 3),
            ("astro/tool", "1.6", 4),
            ("astro/tool", "1.7", 5),
            ("a/b", "1", 6),
            ("a/b", "2", 7),
        ):
            registry.add(name, tag, image(layer(file("etc/number", str(number).encode()))))
        self.make_lists()
        self.write_list(f"  - {self.url}/astro/tool:1.6\n")
        succeed("ingest", "wishlist.yaml", cwd=self.work, env=self.env)

    def write_list(self, more: str = "") -> None:
        text = f"version: 2\nrepository: dir:{self.folder}/images\nimages:\n" + "".join(
            f"  - image: {self.url}/{name}\n    owner: astro\n"
            for name in (
                *("library/debian:stable", "stimela/casa:1.7.1", "stimela/casa:1.8.0"),
                *("astro/tool:1.7", "a/b:1", "a/b:2"),
            )
        )
        (self.work / "wishlist.yaml").write_text(text + more)
        shutil.copyfile(self.work / "wishlist.yaml", self.folder / "etc/wishlist.yaml")

    def make_lists(self) -> None:
        (self.work / "lists").mkdir(parents=True)
        (self.work / "docker_images.txt").write_text(f"{self.host}/library/debian:stable\n")
        (self.work / "recipe.yaml").write_text(
            "version: 1\nuser: x\ncvmfs_repo: images.example.org\noutput_format: $(image)\n"
            f"input:\n  - 'https://{self.host}/library/debian:stable'\n"
        )
        (self.work / "lists/astro.yaml").write_text(
            f"version: 2\nrepository: dir:{self.folder}/images\n"
            f"images:\n  - image: {self.url}/astro/tool:1.7\n    owner: astro\n"
        )
        (self.work / "policy.yaml").write_text("version: 1\nforbid-tags: [latest]\n")
        git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
        run("git", "init", "--quiet", "--bare", "--initial-branch=main", self.folder / "forge.git")
        for words in (
            ("init", "--quiet", "--initial-branch=main"),
            ("add", "lists", "policy.yaml"),
            ("commit", "--quiet", "--message=lists"),
            ("remote", "add", "origin", f"file://{self.folder}/forge.git"),
            ("push", "--quiet", "--set-upstream", "origin", "main"),
        ):
            run(*git, *words, cwd=self.work)

    def command(self, line: str) -> str:
        """Return the command of a page with the places and images of this site."""
        for old, new in (
            ("/srv/images/docker.io", f"{self.folder}/images/{self.host}"),
            ("/srv/images/quay.io", f"{self.folder}/images/{self.host}"),
            ("/srv/images", f"{self.folder}/images"),
            ("/srv/www", f"{self.folder}/www"),
            ("/etc/publisher", f"{self.folder}/etc"),
            ("/var/lib/publisher", f"{self.folder}/state"),
            ("/var/lib/prometheus/node-exporter", f"{self.folder}/prometheus"),
            ("/var/log/publisher", f"{self.folder}/log"),
            ("docker.io/", f"{self.host}/"),
            ("quay.io/", f"{self.host}/"),
        ):
            line = line.replace(old, new)
        return line

    def run(self, block: Block) -> list[str]:
        """Run the commands of a block; return those that failed."""
        failed = []
        self.write_list()
        for shown in block.commands:
            if shown.startswith(NEEDS_A_SYSTEM):
                continue
            line = re.sub(r"\s+#\s.*$", "", self.command(shown))
            if _SHELL.search(line):
                done = subprocess.run(
                    ["bash", "-o", "pipefail", "-c", line],
                    cwd=self.work,
                    env=environment(
                        self.folder,
                        **self.env,
                        PATH=f"{self.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                        PYTHONPATH=str(ROOT),
                    ),
                    capture_output=True,
                    text=True,
                )
                code, text = done.returncode, done.stdout + done.stderr
            else:
                words = [
                    str(path.relative_to(self.work)) if path else word
                    for word in shlex.split(line)[1:]
                    for path in (sorted(self.work.glob(word)) if "lists/*" in word else [None])
                ]
                result = publisher(*words, cwd=self.work, home=self.folder, env=self.env)
                code, text = result.code, result.out + result.err
            allowed = next((c for start, c in ENDS_WITH.items() if shown.startswith(start)), {0})
            if code not in allowed:
                failed.append(f"{block.page}: {block.heading}: {shown}: exit {code}: {text}")
        return failed


NOT_CONSOLE = {
    ("deploy/README.md", "systemd"): "tests/system/test_deployment.py",
    ("deploy/README.md", "cron"): "tests/unit/test_deployment.py runs the lines of the file",
    ("deploy/README.md", "Container"): "no engine runs here",
    ("deploy/README.md", "Kubernetes"): "tests/unit/test_kubernetes.py has the manifests",
    ("deploy/ansible/README.md", "Example"): "tests/system/test_ansible.py",
    ("docs/administration.md", "Webhooks"): "tests/unit/cli/test_notifications.py",
    ("docs/cvmfs.md", "1. The repository"): "needs cvmfs_server",
    ("docs/cvmfs.md", "2. The state directory"): "needs a user of its own",
    ("docs/cvmfs.md", "3. Check the machine"): "needs cvmfs_server",
    ("docs/cvmfs.md", "4. The first image"): "needs cvmfs_server",
    ("docs/cvmfs.md", "5. A wish list, and a scheduled job"): "needs cvmfs_server",
    ("docs/cvmfs.md", "Prefetching the files of a program"): (
        "tests/unit/repository/cvmfs/test_trace.py has a stand-in for cvmfs_server"
    ),
    ("docs/cvmfs.md", "Taking over from DUCC"): "needs cvmfs_server",
    ("docs/cvmfs.md", "Trying it on a throw-away repository"): "needs cvmfs_server",
    ("docs/runtimes/apptainer.md", "First command"): "tests/engines/test_table.py",
    ("docs/runtimes/bwrap.md", "On the client"): "installs a package of Debian",
    ("docs/runtimes/charliecloud.md", "On the client"): "installs a package of Debian",
    ("docs/runtimes/containerd.md", "On the client"): "tests/engines/test_snapshotter.py",
    ("docs/runtimes/kubernetes.md", "A flat image in a volume"): "needs a cluster",
    ("docs/runtimes/squashfs.md", "On the client"): "installs a package of Debian",
    ("docs/runtimes/squashfs.md", "On the publisher"): "installs a package of Debian",
}
"""Sections with commands in another block than one of `console`, and why they are only checked."""

_BENCHMARKS = ("docs/performance.md", "docs/results.md")
_FENCED = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"[$#]? ?(?:/\S+/)?(?:python -m|publisher|apptainer|kubectl|apt-get|pip) ")


def other_blocks() -> list[tuple[str, str, str]]:
    """Page, heading and text of each block of shell commands that is not one of `console`."""
    found = []
    for page in written_pages():
        for block in _FENCED.finditer(page.text):
            if block[1] == "sh" or (not block[1] and _COMMAND.match(block[2])):
                headings = re.findall(r"^#+ (.*)$", page.text[: block.start()], re.MULTILINE)
                prompt = "" if block[1] == "sh" else r"^[$#] "  # in the former "#" is a comment
                text = re.sub(prompt, "", block[2], flags=re.MULTILINE)
                found.append((page.source, headings[-1], text))
    return found


def test_commands_in_other_blocks_are_known_and_can_be_read_by_a_shell() -> None:
    shown = other_blocks()
    places = {(page, heading) for page, heading, _ in shown if page not in _BENCHMARKS}
    assert places == set(NOT_CONSOLE)
    for reason in NOT_CONSOLE.values():
        for test in re.findall(r"tests/[\w/]+\.py", reason):
            assert (ROOT / test).exists(), test
    text = "\n".join(block for _, _, block in shown)
    run("bash", "-n", input=text)
    files = " ".join(re.findall(r"(?<=\s)deploy/\S+", text))
    missing = 'for name in %s; do [ -e "$name" ] || echo "$name"; done'
    assert run("bash", "-c", missing % files, cwd=ROOT) == ""


def test_publisher_commands_in_other_blocks_are_valid() -> None:
    group = click.Context(command_line, info_name="publisher")
    commands = [
        shlex.split(line)
        for _, _, block in other_blocks()
        for line in re.findall(
            r"publisher ([a-z].*)", re.sub(r"#.*|2?>.*|[|;&]+", "\n", block.replace("\\\n", " "))
        )
        if not re.match(r"(?:publisher|docker|-t)\b", line)
    ]
    assert len(commands) > 4
    for name, *words in commands:
        command = command_line.get_command(group, name)
        assert command is not None, name
        command.make_context(name, words, parent=group)


def test_benchmarks_that_pages_name_exist_with_their_options() -> None:
    named = set()
    for page in written_pages():
        for module, words in re.findall(r"python -m (bench[\w.]*)([^`\n#]*)", page.text):
            place = ROOT / module.replace(".", "/")
            source = place.with_suffix(".py") if not place.is_dir() else place / "__main__.py"
            text = source.read_text()
            named.add(module)
            for option in re.findall(r"--[a-z-]+", words):
                assert f'"{option}"' in text, (page.source, module, option)
    assert len(named) > 12


def test_every_command_that_a_page_shows_and_no_other_test_runs_works(tmp_path: Path) -> None:
    require("bash", "git", "jq")
    with OwnRegistry() as registry, NotificationReceiver() as receiver:
        site = Site(tmp_path, registry, receiver)
        failed = [line for block in run_here() for line in site.run(block)]
        wrong = Block(
            "x.md", "y", ("publisher list 2>&1", "publisher show gone", "publisher ls | cat")
        )
        assert len(site.run(wrong)) == 2
    assert len(run_here()) > 35
    assert not failed, "\n".join(failed)
