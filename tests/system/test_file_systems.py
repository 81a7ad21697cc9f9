"""Each file system is published to, or refused before anything is fetched."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.tree import layout
from tests.command import command, environment
from tests.components import require_mounts, run
from tests.file_systems import file_system
from tests.layer_builder import (
    Image,
    directory,
    file,
    hardlink,
    image,
    layer,
    opaque,
    symlink,
    whiteout,
    write_layout,
)
from tests.transactions.client import Ended, FaultyCommands, faulty_commands
from tests.transactions.scenarios import quick_directory

pytestmark = pytest.mark.system

FAR = 2**32 * 10**9  # in the year 2106
LONG_AGO = -(2**31) * 10**9  # in the year 1901
BASE = layer(
    directory("etc"),
    file("etc/motd", b"hello"),
    file("gone", b"x", mode=0o600, uid=5, gid=6),
    symlink("link", "etc/motd"),
    directory("opt"),
    file("opt/old", b"old"),
)
TOP = layer(
    whiteout("gone"),
    opaque("opt"),
    file("opt/new", b"new" * 1000, mtime_ns=FAR),
    file("opt/past", b"past", mtime_ns=LONG_AGO),
    directory("far", mtime_ns=FAR),
    symlink("far/link", "nowhere", mtime_ns=FAR),
    hardlink("from-below", "etc/motd"),
)
FIRST, SECOND = image(BASE), image(BASE, TOP)

WORKS = [
    "ext2",
    "ext3",
    "ext4",
    "ext4 with inodes of 128 bytes",
    "xfs without bigtime",
    "bindfs",
    "unionfs-fuse",
    "fuse-overlayfs",
    "overlayfs",
]
REFUSED = {"sshfs": "changes the target of a symbolic link"}


@pytest.fixture(scope="module")
def commands() -> Iterator[FaultyCommands]:
    with quick_directory() as scratch, faulty_commands(scratch) as running:
        yield running


class Publisher:
    """Runs commands on one repository, with images from a layout beside it."""

    def __init__(self, commands: FaultyCommands, root: Path, folder: Path) -> None:
        self.commands = commands
        self.root = root
        self.layout = folder / "layout"
        self.wishes = folder / "wishes.yaml"

    def tag(self, built: Image, tag: str) -> None:
        write_layout(built, self.layout, tag)

    def ingest(self, *tags: str) -> Ended:
        requested = [
            {"image": f"oci:{self.layout}:{tag}", "name": "tool", "grace": "0d"} for tag in tags
        ]
        self.wishes.write_text(json.dumps({"version": 2, "images": requested}))
        return self.run("ingest", str(self.wishes))

    def run(self, *words: str) -> Ended:
        return self.commands.run(self.root, [*words, "--repository", f"dir:{self.root}"])

    def succeed(self, *words: str) -> None:
        ended = self.run(*words)
        assert ended.code == 0, f"{words}: {ended.output}"

    def flat(self, built: Image) -> Path:
        return self.root / layout.flat_image(built.image_id)

    def ingest_in(self, *wrapper: str) -> subprocess.CompletedProcess[str]:
        """Ingest the tag "one" in a process of its own, as an argument of `wrapper`."""
        words = ["ingest-image", f"oci:{self.layout}:one", "--repository", str(self.root)]
        return subprocess.run(
            [*wrapper, *command(*words)], env=environment(), capture_output=True, text=True
        )


@pytest.mark.parametrize("kind", WORKS)
def test_images_are_published_replaced_and_collected_and_verified_at_each_step(
    kind: str, tmp_path: Path, commands: FaultyCommands
) -> None:
    with file_system(kind, tmp_path / "disk") as point:
        published = Publisher(commands, point, tmp_path)
        published.tag(FIRST, "one")
        published.tag(SECOND, "two")
        result = published.ingest("one", "two")
        assert result.code == 0, result.output
        published.succeed("verify", "--deep")
        assert (published.flat(SECOND) / "opt/new").read_bytes() == b"new" * 1000
        assert not (published.flat(SECOND) / "gone").exists()
        published.tag(SECOND, "one")
        assert published.ingest("one").code == 0
        published.succeed("prune", str(published.wishes), "--whole", "--yes-really")
        published.succeed("gc", "--now")
        published.succeed("verify", "--deep")
        assert not published.flat(FIRST).exists()
        assert not list((point / layout.STATE / "trash").iterdir())
        assert not list((point / layout.STATE / "sessions").iterdir())


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_system_without_a_needed_ability_is_refused_before_anything_is_fetched(
    kind: str, tmp_path: Path, commands: FaultyCommands
) -> None:
    with file_system(kind, tmp_path / "disk") as point:
        published = Publisher(commands, point, tmp_path)
        published.tag(FIRST, "one")
        (published.layout / "blobs/sha256" / BASE.digest.partition(":")[2]).unlink()
        result = published.ingest("one")
        assert result.code == 3, result.output
        assert REFUSED[kind] in result.output
        assert "try:" in result.output and "[Errno" not in result.output
        assert not list((point / layout.STATE / "sessions").iterdir())


@pytest.mark.parametrize("kind", ["overlayfs", "fuse-overlayfs"])
def test_a_repository_in_the_lower_layer_of_an_overlay_is_refused_before_a_commit(
    kind: str, tmp_path: Path, commands: FaultyCommands
) -> None:
    """Its directories cannot be renamed: a collection would never get past its commit point."""
    lower = Publisher(commands, tmp_path / "disk/lower", tmp_path)
    lower.root.mkdir(parents=True)
    lower.tag(FIRST, "one")
    assert lower.ingest("one").code == 0
    with file_system(kind, tmp_path / "disk") as point:
        published = Publisher(commands, point, tmp_path)
        result = published.run("gc", "--now")
        assert result.code == 3, result.output
        assert "in a lower layer of an overlay" in result.output
        assert "redirect_dir=on" in result.output
        assert published.run("verify", "--deep").code == 0
        assert not (point / layout.STATE / "journal.json").exists()


def test_a_repository_in_a_lower_layer_is_used_if_the_overlay_redirects_directories(
    tmp_path: Path, commands: FaultyCommands
) -> None:
    require_mounts()
    lower = Publisher(commands, tmp_path / "lower", tmp_path)
    lower.root.mkdir()
    lower.tag(FIRST, "one")
    assert lower.ingest("one").code == 0
    for name in ("upper", "work", "mounted"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    point = tmp_path / "mounted"
    run("mount", "-t", "overlay", "overlay", "-o", f"{options},redirect_dir=on", point)
    try:
        published = Publisher(commands, point, tmp_path)
        published.tag(SECOND, "one")
        assert published.ingest("one").code == 0
        published.succeed("gc", "--now")
        published.succeed("verify", "--deep")
        assert not published.flat(FIRST).exists()
    finally:
        run("umount", point)


def test_a_limit_on_the_size_of_files_is_named_with_its_cause(
    tmp_path: Path, commands: FaultyCommands
) -> None:
    published = Publisher(commands, tmp_path / "images", tmp_path)
    published.tag(image(layer(file("large", os.urandom(3_000_000)))), "one")
    result = published.ingest_in("bash", "-c", 'ulimit -f 1024; exec "$@"', "bash")
    assert result.returncode == 1
    assert "cannot use large" in result.stderr
    assert "larger than a file may be" in result.stderr
    assert "ulimit -f" in result.stderr and "[Errno" not in result.stderr


def test_without_proc_nothing_is_published_and_the_cause_is_named(
    tmp_path: Path, commands: FaultyCommands
) -> None:
    require_mounts()
    published = Publisher(commands, tmp_path / "images", tmp_path)
    published.tag(FIRST, "one")
    hide = 'mount -t tmpfs tmpfs /proc; exec "$@"'
    result = published.ingest_in("unshare", "--mount", "bash", "-c", hide, "bash")
    assert result.returncode == 3, result.stderr
    assert "/proc is not mounted" in result.stderr
    assert not published.root.exists()


@pytest.mark.parametrize("missing", ["chown", "dac_override", "fowner", "fsetid"])
def test_root_without_a_needed_capability_is_refused_and_it_is_named(
    tmp_path: Path, commands: FaultyCommands, missing: str
) -> None:
    require_mounts()
    published = Publisher(commands, tmp_path / "images", tmp_path)
    published.tag(FIRST, "one")
    result = published.ingest_in(
        "setpriv", "--bounding-set", f"-{missing}", "--inh-caps", f"-{missing}"
    )
    assert result.returncode == 3, result.stderr
    assert f"lacks CAP_{missing.upper()}" in result.stderr
    assert not published.root.exists()
