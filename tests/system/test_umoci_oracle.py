"""A second oracle: published trees equal those of umoci, but for the differences listed here."""

from __future__ import annotations

import os
import posixpath
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings

from publisher.entry import EntryType
from publisher.layers.errors import LayerError
from publisher.layers.policy import Policy
from tests.components import overlay_mount, require, require_root, run
from tests.engine import Published, Unpacked, flat_entries, lower_image, publish
from tests.layer_builder import (
    Layer,
    Member,
    block_device,
    character_device,
    directory,
    fifo,
    file,
    hardlink,
    image,
    layer,
    opaque,
    symlink,
    whiteout,
    write_layout,
)
from tests.real_image import CHECK_NUMPY, RealImages, layers_of
from tests.stacks import Draft, stacks
from tests.trees import Tree, assert_same_tree, describe_tree

pytestmark = pytest.mark.system

KEEP = Policy(setuid="keep", devices="keep")
IMAGES = int(os.environ.get("PUBLISHER_STACKS", "300")) // 10


def umoci_unpack(layout: Path, tag: str, rootfs: Path) -> Path:
    """The root file system that umoci makes of an image."""
    require_root()
    require("umoci")
    # Raw: without a bundle around it, for which umoci hashes all files.
    command = ["umoci", "raw", "unpack", "--image", f"{layout}:{tag}", str(rootfs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LayerError("umoci refuses", why=done.stderr[-500:])
    return rootfs


@pytest.fixture(scope="module")
def numpy(real_images: RealImages) -> Iterator[Published]:
    """The image numpy."""
    with tempfile.TemporaryDirectory(prefix="publisher-numpy-") as place:
        layers = layers_of(real_images.layout, "numpy")
        yield publish(Path(place) / "published", *layers, policy=KEEP)


def test_real_images_equal_those_of_umoci_and_overlayfs(
    numpy: Published, real_images: RealImages, tmp_path: Path
) -> None:
    rootfs = umoci_unpack(real_images.layout, "numpy", tmp_path / "numpy")
    assert_equals_umoci_and_overlayfs(numpy, rootfs)
    assert_image_is_what_it_claims_to_be(rootfs)

    rootfs = umoci_unpack(real_images.layout, "base", tmp_path / "base")
    base = lower_image(numpy, 1, numpy.flat.with_name("base"))
    assert_equals_umoci_and_overlayfs(base, rootfs)


def assert_equals_umoci_and_overlayfs(published: Published, rootfs: Path) -> None:
    flat = describe_tree(published.flat)
    assert_same_tree(flat, rootfs, directory_times=True)
    with overlay_mount(published.trees) as shown:
        assert_same_tree(flat, describe_tree(shown, skip_phantoms=True), directory_times=True)


def assert_image_is_what_it_claims_to_be(root: Path) -> None:
    """numpy works, and the top layer has replaced, hidden and removed what it should."""
    assert run("chroot", root, "python3", "-B", "-c", CHECK_NUMPY) == "45\n"
    assert (root / "etc/issue/file").read_text() == "here\n"
    assert (root / "etc/skel").is_file()
    assert (root / "opt/fifo").is_fifo()
    assert not (root / "etc/motd").exists()
    assert [path.name for path in (root / "usr/share/doc").iterdir()] == ["only"]


def test_a_zstd_image_equals_its_gzip_form(
    numpy: Published, real_images: RealImages, tmp_path: Path
) -> None:
    """umoci cannot be the oracle here: it refuses zstd layers."""
    layers = layers_of(real_images.layout, "numpy-zstd")
    published = publish(tmp_path / "zstd", *layers, policy=KEEP)
    assert_same_tree(published.flat, numpy.flat, directory_times=True)


CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service+ep, as `setcap` stores it."""

# Every directory has its entry, as in what real tools make: umoci leaves others with the time at
# which it unpacked them. Nor does it take a hard link that comes before its target.
ODD_BASE = (
    directory(".", 0o750, uid=7, gid=8, mtime_ns=1_111_111_111_111_111_111),
    directory("bin/"),
    *(directory(name) for name in ("owners", "times", "xattrs", "names", "links", "pipes", "dev")),
    *(directory("/".join(["deep" * 20] * depth)) for depth in range(1, 13)),
    file("bin/su", b"setuid", mode=0o4755, uid=0, gid=42),
    file("bin/wall", b"setgid", mode=0o2755, gid=5),
    file("bin/odd", b"every bit", mode=0o7777),
    file("bin/ping", b"capable", mode=0o755, xattrs={"security.capability": CAPABILITY}),
    directory("tmp", 0o1777),
    directory("shared", 0o2775, gid=100),
    directory("locked", 0o700, uid=1000),
    file("locked/secret", b"s", mode=0o600, uid=1000, gid=1000),
    file("owners/largest", uid=2**32 - 2, gid=2**32 - 2),
    file("owners/gnu", uid=3_000_000, gid=2_500_000, format="gnu"),
    file("times/before-1970", mtime_ns=-86_400_000_000_000),
    file("times/nanoseconds", mtime_ns=1_234_567_890_123_456_789),
    file("times/far", mtime_ns=9_000_000_000_000_000_000),
    file("times/old-format", mtime_ns=1_000_000_000_000_000_000, format="v7"),
    file("xattrs/one", b"x", xattrs={"user.text": b"value", "user.bytes": b"\0\xff\n="}),
    directory("xattrs/directory", xattrs={"user.d": b"1"}),
    file("names/with space", b"1"),
    file("names/new\nline", b"2"),
    file("names/tab\tquote'\"\\", b"3"),
    file("names/ümlaut", b"4"),
    file(b"names/not-utf-8-\xff\xfe", b"5", format="gnu"),
    file("names/-rf", b"6"),
    file("names/" + "n" * 255, b"7"),
    file("/".join(["deep" * 20] * 12) + "/file", b"8"),
    symlink("links/dangling", "../nowhere"),
    symlink("links/absolute", "/bin/su"),
    symlink("links/loop", "loop"),
    symlink("links/long", "t" * 1000),
    symlink("links/owned", "x", uid=5, gid=6, mtime_ns=5_000_000_000),
    hardlink("links/su", "bin/su"),
    fifo("pipes/fifo", mode=0o640, gid=3),
    hardlink("pipes/same", "pipes/fifo"),
    character_device("dev/null", 1, 3, mode=0o666),
    character_device("dev/large", 4095, 1_048_575),
    block_device("dev/sda", 8, 0, mode=0o660, gid=6),
    file("empty"),
    file("twice", b"first, and longer"),
    file("twice", b"second"),
    directory("full"),
    file("full/below", b"x"),
    directory("late"),
    file("late/file", b"1"),
    directory("late", 0o511, uid=11, gid=12, mtime_ns=1_300_000_000_000_000_000),
)
ODD_TOP = (
    directory(".", 0o711, uid=9, mtime_ns=1_222_222_222_222_222_222),
    *(directory(name, mtime_ns=1) for name in ("bin", "times", "links", "pipes", "dev")),
    directory("locked", 0o750),
    hardlink("links/from-below", "bin/ping"),
    file("bin/su", b"replaced", mode=0o755),
    symlink("full", "tmp"),
    directory("shared", 0o3770, uid=9, gid=100),
    whiteout("times/far"),
    opaque("locked"),
    file("locked/new", b"n", mode=0o400),
    file("pipes/fifo", b"a file now"),
    directory("empty"),
    file("dev/null", b"a file now"),
)


def test_an_image_with_unusual_metadata_equals_that_of_umoci_and_overlayfs(
    tmp_path: Path,
) -> None:
    layers = [layer(*ODD_BASE), layer(*ODD_TOP)]
    rootfs = umoci_unpack(
        write_layout(image(*layers), tmp_path / "layout"), "latest", tmp_path / "umoci"
    )
    published = publish(tmp_path / "published", *layers, policy=KEEP)
    flat = describe_tree(published.flat)
    assert len(flat) > 60
    expected = as_policy_makes_it(describe_tree(rootfs), "security.capability")
    assert_same_tree(flat, expected, directory_times=True)
    with overlay_mount(published.trees) as shown:
        assert_same_tree(
            flat,
            describe_tree(shown, skip_phantoms=True),
            directory_times=True,
            ignore=["links"],  # the layer above has a copy of what it links from below
        )


def as_policy_makes_it(tree: Tree, *kept: str) -> Tree:
    """Return the tree with policy applied: owner permissions; only `user.*` and `kept` stay."""
    wider = {"f": 0o600, "d": 0o700}
    return {
        path: replace(
            node,
            mode=node.mode | wider.get(node.type, 0),
            xattrs=tuple(pair for pair in node.xattrs if pair[0].startswith(("user.", *kept))),
        )
        for path, node in tree.items()
    }


def without_known_differences(draft: Draft) -> Layer:
    """The draft without what umoci, which unpacks all layers into one tree, has to see otherwise.

    Below a symlink of a lower layer umoci follows the link, where overlayfs shows a directory in
    its place. Something else that a directory of the same archive replaces takes with it, in umoci,
    what lower layers have there. Directories that the archive only implies inherit set-group-ID
    from the one they are made in. And umoci 0.4 takes no zstd.
    """
    directories = {
        _path(member): at for at, member in enumerate(draft.members) if _is_directory(member)
    }
    members = tuple(
        replace(member, mode=member.mode & ~0o2000)
        for at, member in enumerate(draft.members)
        if member.typeflag != b"2"
        and (_is_directory(member) or at > directories.get(_path(member), -1))
    )
    return replace(draft, members=members, compression="gzip", parts=1).build()


def _is_directory(member: Member) -> bool:
    return member.typeflag == b"5"


def _path(member: Member) -> str:
    name = member.name
    text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    return posixpath.normpath(f"/{text}")[1:]


def _is_made(layer: Unpacked, draft: Draft, directory: str) -> bool:
    """Whether the layer has more of a directory than markers in it."""
    named = {_path(member) for member in draft.members if _is_directory(member)}
    return directory in named or any(
        path.startswith(f"{directory}/") and entry.type is not EntryType.WHITEOUT
        for path, entry in layer.entries.items()
    )


def markers_alone_make_directories(published: Published, stack: list[Draft]) -> bool:
    """Whether there is a marker in a directory that no layer has.

    For umoci there is no such directory then; in a layer tree it is needed for the marker to be in.
    """
    for number, (upper, draft) in enumerate(zip(published.layers, stack, strict=True)):
        below = flat_entries(*published.layers[:number])
        lower = {path for path, each in below.items() if each.type is EntryType.DIRECTORY}
        for path, entry in upper.entries.items():
            parent = path.rpartition("/")[0]
            if entry.type is EntryType.WHITEOUT and parent not in lower:
                return True
            if entry.opaque and path not in lower and not _is_made(upper, draft, path):
                return True
    return False


@settings(
    max_examples=IMAGES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(stacks())
def test_any_stack_equals_that_of_umoci(stack: list[Draft]) -> None:
    layers = [without_known_differences(draft) for draft in stack]
    with tempfile.TemporaryDirectory(prefix="publisher-umoci-") as name:
        place = Path(name)
        try:
            published = publish(place / "published", *layers, policy=KEEP)
            rootfs = umoci_unpack(
                write_layout(image(*layers), place / "layout"), "latest", place / "umoci"
            )
        except LayerError:
            assume(False)
            raise
        assume(not markers_alone_make_directories(published, stack))
        assert_same_tree(published.flat, as_policy_makes_it(describe_tree(rootfs)))
