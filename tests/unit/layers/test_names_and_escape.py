"""Hard cases 1 to 6: names, and attempts to get out of the tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from publisher.layers.errors import LayerError, LimitExceeded, UnsafeName
from publisher.layers.policy import Limits, Policy
from tests.engine import Unpack, names_below, publish, types
from tests.layer_builder import (
    Member,
    directory,
    fifo,
    file,
    hardlink,
    layer,
    opaque,
    symlink,
    whiteout,
)

CLIMBING = [
    "../x",
    "/../x",
    "a/../../x",
    "../trees/../victim/canary",
    "./../x",
    "..",
    "a/../..",
    "//..//x",
]


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize("make", [file, directory, fifo])
def test_a_name_that_climbs_above_the_root_is_refused(
    name: str, make: object, unpack: Unpack, victim: Path
) -> None:
    assert callable(make)
    with pytest.raises(UnsafeName, match="leads above the root"):
        unpack(make(name))


@pytest.mark.parametrize("name", CLIMBING)
def test_a_hard_link_to_a_name_that_climbs_above_the_root_never_leaves_it(
    name: str, unpack: Unpack, victim: Path
) -> None:
    """As in containerd and umoci, `..` at the root is the root."""
    inside = os.path.normpath(f"/{name}").lstrip("/")
    if not inside:
        with pytest.raises(LayerError, match="hard link to the directory"):
            unpack(hardlink("h", name))
        return
    unpacked = unpack(file(inside, b"own"), hardlink("h", name), hardlink("d/h", name))
    assert {unpacked.entries[path].links for path in (inside, "h", "d/h")} == {3}
    assert (unpacked.tree / "d/h").read_bytes() == b"own"
    assert unpack(hardlink("h", name)).summary.unresolved == 1


@pytest.mark.parametrize("name", CLIMBING[:3])
def test_a_whiteout_that_climbs_above_the_root_is_refused(
    name: str, unpack: Unpack, victim: Path
) -> None:
    with pytest.raises(UnsafeName, match="leads above the root"):
        unpack(whiteout(name))


def test_an_absolute_name_lies_inside_the_root(unpack: Unpack, victim: Path) -> None:
    layer = unpack(file(f"{victim}/canary", b"ours"), file("/etc/x", b"1"))
    assert (layer.tree / "etc/x").read_bytes() == b"1"
    assert (layer.tree / str(victim).lstrip("/") / "canary").read_bytes() == b"ours"


def test_dots_inside_the_root_are_resolved_by_the_text(unpack: Unpack) -> None:
    assert unpack(file("a/../b"), file("c/d/../../e")).paths == ["b", "e"]


CHAINS = [
    pytest.param([symlink("s", "/")], id="root"),
    pytest.param([symlink("s", "..")], id="parent"),
    pytest.param([symlink("s", "../../../../../../..")], id="far up"),
    pytest.param([symlink("s", "/../")], id="above root"),
    pytest.param([symlink("a", ".."), symlink("b", "a/.."), symlink("s", "b/..")], id="chain"),
    pytest.param([directory("d"), symlink("d/s", "../.."), symlink("s", "d/s/..")], id="nested"),
]


@pytest.mark.parametrize("links", CHAINS)
def test_an_entry_below_a_symlink_stays_inside_the_root(
    links: list[Member], unpack: Unpack, victim: Path
) -> None:
    layer = unpack(*links, file("s/victim/canary", b"ours"), directory("s/victim/made"))
    assert (layer.tree / "victim/canary").read_bytes() == b"ours"
    assert layer.entries["victim/canary"].size == 4


def test_an_absolute_symlink_to_a_directory_of_the_host_is_followed_inside_the_root_only(
    unpack: Unpack, victim: Path
) -> None:
    layer = unpack(symlink("s", str(victim)), file("s/canary", b"ours"), whiteout("s/below"))
    assert (layer.tree / str(victim).lstrip("/") / "canary").read_bytes() == b"ours"
    assert os.readlink(layer.tree / "s") == str(victim)


def test_symlinks_that_lead_in_circles_are_refused(unpack: Unpack) -> None:
    with pytest.raises(LayerError, match="loop"):
        unpack(symlink("a", "b"), symlink("b", "a"), file("a/x"))
    with pytest.raises(LayerError, match="loop"):
        unpack(symlink("self", "self/deeper"), file("self/x"))


def test_a_symlink_of_a_lower_layer_is_hidden_by_what_an_upper_layer_has_below_its_name(
    tmp_path: Path, victim: Path
) -> None:
    published = publish(
        tmp_path,
        layer(symlink("s", str(victim)), directory("real"), symlink("r", "real")),
        layer(file("s/canary", b"ours"), file("r/x", b"1")),
    )
    assert not (published.flat / "s").is_symlink()
    assert (published.flat / "s/canary").read_bytes() == b"ours"
    assert (published.flat / "r/x").read_bytes() == b"1"
    assert list((published.flat / "real").iterdir()) == []


def test_a_symlink_replaced_by_a_directory_no_longer_leads_anywhere(
    unpack: Unpack, victim: Path
) -> None:
    layer = unpack(symlink("s", str(victim)), directory("s"), file("s/canary", b"ours"))
    assert types(layer.entries) == {"s": "d", "s/canary": "f"}
    assert (layer.tree / "s/canary").read_bytes() == b"ours"


def test_a_directory_replaced_by_a_symlink_takes_its_content_along(
    unpack: Unpack, victim: Path
) -> None:
    layer = unpack(
        directory("s"), file("s/old"), symlink("s", "elsewhere"), file("s/canary", b"ours")
    )
    assert types(layer.entries) == {
        "elsewhere": "d",
        "elsewhere/canary": "f",
        "s": "l",
    }


def test_a_symlink_replaced_by_a_file_cannot_have_anything_below_it(
    unpack: Unpack, victim: Path
) -> None:
    with pytest.raises(LayerError, match="not a directory"):
        unpack(symlink("s", str(victim)), file("s"), file("s/canary"))


def test_a_file_that_replaces_a_symlink_is_not_written_through_it(
    unpack: Unpack, victim: Path
) -> None:
    layer = unpack(
        symlink("s", str(victim / "canary")),
        symlink("t", "../../victim/canary"),
        file("s", b"x"),
        file("t", b"y"),
    )
    assert types(layer.entries) == {"s": "f", "t": "f"}
    assert (layer.tree / "s").read_bytes() == b"x"


def test_a_hard_link_made_of_a_symlink_is_not_written_through(unpack: Unpack, victim: Path) -> None:
    layer = unpack(
        symlink("s", str(victim / "canary")), hardlink("h", "s"), file("h", b"not yours")
    )
    assert types(layer.entries) == {"h": "f", "s": "l"}


def test_odd_spellings_of_paths_are_normalized(unpack: Unpack) -> None:
    layer = unpack(
        directory("."),
        directory("./"),
        directory("./a"),
        directory("/"),
        file("a//b", b"1"),
        file("a/./c", b"2"),
        directory("./d/", mode=0o700),
        file("/e"),
    )
    assert layer.paths == ["a", "a/b", "a/c", "d", "e"]


@pytest.mark.parametrize("name", [".", "./", "/", "a/.."])
@pytest.mark.parametrize("make", [file, fifo, lambda name: symlink(name, "x")])
def test_a_root_that_is_not_a_directory_is_refused(name: str, make: object, unpack: Unpack) -> None:
    assert callable(make)
    with pytest.raises(UnsafeName, match="root directory"):
        unpack(make(name))


LEGAL = [
    b"..data",
    b"a..b",
    b"...",
    b"new\nline",
    b"back\\slash",
    b"-rf",
    b" spaces  ",
    b"tab\there",
    b"quote'\"",
    b"\xff\xfe latin \xe9",
    b"\x01\x7f",
    "\u00fcn\u00efc\u00f6de \U0001f600".encode(),
    b"x" * 255,
    b"wh.x",
    b".whatever",
    b"a.wh.b",
]


@pytest.mark.parametrize("name", LEGAL)
def test_unusual_names_are_legal(name: bytes, unpack: Unpack) -> None:
    layer = unpack(file(name, b"1"), directory(b"d/" + name), file(b"d/" + name + b"/below", b"2"))
    root = os.fsencode(layer.tree)
    with open(root + b"/" + name, "rb") as found:
        assert found.read() == b"1"
    with open(root + b"/d/" + name + b"/below", "rb") as found:
        assert found.read() == b"2"
    assert os.fsdecode(name) in layer.entries


@pytest.mark.parametrize("form", ["pax", "gnu"])
def test_paths_of_four_thousand_bytes_are_legal(form: str, unpack: Unpack) -> None:
    deep = "/".join(["d" * 199] * 20)
    narrow = "n/" * 1999 + "f"
    layer = unpack(
        file(deep, b"deep", format=form),
        file(narrow, b"narrow", format=form),
        hardlink("h", deep, format=form),
        symlink("s", narrow, format=form),
    )
    assert layer.entries[deep].size == 4
    assert layer.entries[narrow].size == 6
    assert (layer.tree / "h").read_bytes() == b"deep"
    assert os.readlink(layer.tree / "s") == narrow


def test_a_component_of_256_bytes_is_refused_by_name(unpack: Unpack) -> None:
    with pytest.raises(UnsafeName, match="longer than 255 bytes"):
        unpack(file("a/" + "x" * 256))


def test_a_path_that_no_program_could_open_is_refused(unpack: Unpack) -> None:
    with pytest.raises(LimitExceeded, match="4095"):
        unpack(file("/".join(["x" * 200] * 21)))


def test_a_zero_byte_in_a_name_is_refused(unpack: Unpack) -> None:
    with pytest.raises(UnsafeName, match="zero byte"):
        unpack(file("x", pax={"path": b"a\0b"}))
    with pytest.raises(UnsafeName, match="zero byte"):
        unpack(symlink("x", "y", pax={"linkpath": b"a\0b"}))
    with pytest.raises(UnsafeName, match="zero byte"):
        unpack(hardlink("x", "y", pax={"linkpath": b"a\0b"}))


def test_a_path_cannot_be_made_too_long_or_deep_by_symlinks(unpack: Unpack) -> None:
    half = "/".join(["x" * 200] * 12)
    with pytest.raises(LimitExceeded, match="longer"):
        unpack(symlink("s", half), file(f"s/{half}"))
    policy = Policy(limits=Limits(depth=8))
    with pytest.raises(LimitExceeded, match="deeper"):
        unpack(symlink("s", "a/a/a/a/a"), file("s/b/b/b/b"), policy=policy)
    with pytest.raises(LimitExceeded, match="deeper"):
        unpack(file("a/" * 8 + "b"), policy=policy)


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "../../../etc/passwd",
        "",
        ".",
        "..",
        "a//b/./c/",
        "no such thing",
        b"\xff\n",
        "t" * 4095,
    ],
)
def test_the_target_of_a_symlink_is_content_and_kept_exactly(
    target: str | bytes, unpack: Unpack
) -> None:
    if not target:
        with pytest.raises(UnsafeName, match="without a target"):
            unpack(symlink("s", target))
        return
    layer = unpack(symlink("s", target))
    raw = target if isinstance(target, bytes) else target.encode()
    assert os.readlink(os.fsencode(layer.tree / "s")) == raw
    assert os.fsencode(layer.entries["s"].target) == raw


def test_a_symlink_longer_than_any_can_be_is_refused(unpack: Unpack) -> None:
    with pytest.raises(LimitExceeded, match="target"):
        unpack(symlink("s", "t" * 4096))


def test_a_whiteout_below_a_symlink_deletes_nothing_through_it(
    unpack: Unpack, victim: Path
) -> None:
    layer = unpack(
        directory("real"),
        file("real/kept", b"1"),
        symlink("s", "real"),
        symlink("v", str(victim)),
        whiteout("s/kept"),
        whiteout("v/canary"),
        opaque("s"),
        opaque("v"),
    )
    assert types(layer.entries) == {"real": "d", "real/kept": "f", "s": "l", "v": "l"}
    assert not layer.entries["real"].opaque
    assert layer.summary.dropped == {"whiteout below a link or file": 4}


def test_an_opaque_marker_on_a_symlink_of_a_lower_layer_does_not_empty_its_target(
    tmp_path: Path,
) -> None:
    published = publish(
        tmp_path,
        layer(directory("real"), file("real/kept", b"1"), symlink("s", "real")),
        layer(opaque("s"), file("s/new", b"2")),
        layer(whiteout("s/new"), whiteout("real/none")),
    )
    assert (published.flat / "real/kept").read_bytes() == b"1"
    assert not (published.flat / "s").is_symlink()
    assert list((published.flat / "s").iterdir()) == []


def test_markers_of_cvmfs_are_dropped(unpack: Unpack) -> None:
    layer = unpack(
        file("usr/.cvmfscatalog"),
        file(".cvmfsdirtab", b"/*"),
        directory(".cvmfs"),
        file(".cvmfs/x"),
        hardlink("h", "usr/.cvmfscatalog"),
        whiteout(".cvmfscatalog"),
        whiteout("usr/.cvmfscatalog"),
        file("usr/kept"),
    )
    assert layer.paths == ["usr", "usr/kept"]
    assert sorted(names_below(layer.tree)) == ["usr", "usr/kept"]
    assert layer.summary.dropped == {"name:.cvmfs*": 7}
    assert layer.index.header.dropped == {"name:.cvmfs*": 7}


@pytest.mark.parametrize("target", [".wh.x", "a/.cvmfs", "x" * 256])
def test_a_symlink_does_not_lead_to_a_reserved_name(target: str, unpack: Unpack) -> None:
    with pytest.raises(UnsafeName):
        unpack(symlink("s", target), file("s/f"))
