"""The flat image is what the kernel's overlayfs shows over the layer trees, for any stack.

PUBLISHER_STACKS sets how many stacks are tried (300 by default, shared by root and user).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings

from publisher.layers.errors import LayerError
from tests.components import require, require_root, require_user_namespaces
from tests.engine import Published, lower_image, publish
from tests.layer_builder import Layer
from tests.real_image import RealImages, layers_of
from tests.stacks import Draft, stacks
from tests.trees import assert_same_tree, describe_tree

pytestmark = pytest.mark.system

STACKS = int(os.environ.get("PUBLISHER_STACKS", "300"))
NOBODY = 65534
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000

bounded = settings(
    max_examples=STACKS // 2,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


def compare_with_overlayfs(
    directory: Path, stack: list[Draft], options: str, opaque_xattrs: bool = True
) -> None:
    """Publish `stack` below `directory` and compare; ends silently for a stack that is refused."""
    try:
        layers = [draft.build() for draft in stack]
        published = publish(directory, *layers, opaque_xattrs=opaque_xattrs)
    except LayerError:
        assume(False)
        raise
    (directory / "empty").mkdir()
    (directory / "mnt").mkdir()
    names = [tree.name for tree in reversed(published.trees)]
    lower = ":".join([*names, "empty"])
    subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", f"ro,{options}lowerdir={lower}", "mnt"],
        cwd=directory,
        check=True,
    )
    try:
        assert_same_tree(
            published.flat,
            describe_tree(directory / "mnt", skip_phantoms=True),
            directory_times=True,
            ignore=["links"] if _has_copies(published) else [],
        )
    finally:
        subprocess.run(["umount", directory / "mnt"], check=True)


def _has_copies(published: Published) -> bool:
    """Whether a layer tree holds a copy of what, in the flat image, is one file with two names."""
    return any(each.summary.unresolved for each in published.layers)


def check_stacks(options: str, opaque_xattrs: bool = True) -> None:
    @bounded
    @given(stacks())
    def check(stack: list[Draft]) -> None:
        directory = Path(tempfile.mkdtemp(prefix="publisher-stack-"))
        try:
            compare_with_overlayfs(directory, stack, options, opaque_xattrs)
        finally:
            shutil.rmtree(directory)

    check()


def in_child(action: Callable[[], None]) -> None:
    """Run `action` in a forked child, and fail with what it prints if it fails."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            os.dup2(writing, 2)
            action()
            code = 0
        except BaseException:  # noqa: BLE001 - printed to the parent, which fails with it
            os.write(2, traceback.format_exc().encode("utf-8", "replace"))
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as pipe:
        output = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, output[-8000:]


def become_unprivileged() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def enter_user_namespace() -> None:
    """Become root of a new user and mount namespace, as `unshare --map-root --mount` does."""
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(4, 1, 0, 0, 0):  # PR_SET_DUMPABLE, for /proc/self, which setuid cleared
        raise OSError(ctypes.get_errno(), "prctl")
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def test_as_root() -> None:
    require_root()
    require("mount")
    check_stacks("")


def test_where_no_extended_attributes_can_be_stored() -> None:
    """Opaque directories are spelled out as whiteouts, as in CVMFS."""
    require_root()
    require("mount")
    check_stacks("", opaque_xattrs=False)


def test_as_an_ordinary_user_in_a_user_namespace() -> None:
    """The engine finds itself root of its own namespace, without privileges outside."""
    require_root()
    require_user_namespaces()
    require("mount")

    def action() -> None:
        become_unprivileged()
        enter_user_namespace()
        check_stacks("userxattr,")

    in_child(action)


def test_trees_made_by_an_ordinary_user_are_right_when_mounted_in_a_user_namespace(
    tmp_path: Path,
) -> None:
    """The publisher is an ordinary user; the trees are mounted in a user namespace."""
    require_root()
    require_user_namespaces()
    require("mount")

    @settings(bounded, max_examples=max(1, STACKS // 20))
    @given(stacks())
    def check(stack: list[Draft]) -> None:
        directory = Path(tempfile.mkdtemp(prefix="publisher-stack-"))
        try:
            _publish_then_mount(directory, [draft.build() for draft in stack])
        finally:
            shutil.rmtree(directory)

    def action() -> None:
        become_unprivileged()
        check()

    in_child(action)


def test_real_images_published_by_an_ordinary_user_are_right_in_a_user_namespace(
    real_images: RealImages,
) -> None:
    """Each of the images base, python and numpy has all layers of the one before it."""
    require_root()
    require("mount")
    images = [layers_of(real_images.layout, tag) for tag in ("base", "python", "numpy")]
    directory = Path(tempfile.mkdtemp(prefix="publisher-image-"))
    shutil.chown(directory, NOBODY, NOBODY)

    def action() -> None:
        become_unprivileged()
        published = publish(directory, *images[-1])
        for image in images:
            assert image == images[-1][: len(image)]
            lower = lower_image(published, len(image), directory / f"flat-{len(image)}")
            _compare_in_user_namespace(directory, lower)

    try:
        in_child(action)
    finally:
        shutil.rmtree(directory)


def _publish_then_mount(directory: Path, layers: list[Layer]) -> None:
    try:
        published = publish(directory, *layers)
    except LayerError:
        assume(False)
        raise
    _compare_in_user_namespace(directory, published)


def _compare_in_user_namespace(directory: Path, published: Published) -> None:
    (directory / "empty").mkdir(exist_ok=True)
    (directory / "mnt").mkdir(exist_ok=True)
    lower = ":".join([*(tree.name for tree in reversed(published.trees)), "empty"])

    def mount_and_compare() -> None:
        enter_user_namespace()
        os.chdir(directory)
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", f"ro,userxattr,lowerdir={lower}", "mnt"],
            check=True,
        )
        ignored = ["links"] if _has_copies(published) else []
        shown = describe_tree(Path("mnt"), skip_phantoms=True)
        assert_same_tree(Path(published.flat.name), shown, directory_times=True, ignore=ignored)

    in_child(mount_and_compare)
