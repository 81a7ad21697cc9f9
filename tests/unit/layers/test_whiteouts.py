"""Hard cases 7 to 12: what layers delete."""

from __future__ import annotations

import os
import stat
from itertools import permutations
from pathlib import Path

import pytest

from publisher.entry import EntryType
from publisher.layers.errors import UnsafeName
from tests.engine import Unpack, names_below, publish, types
from tests.layer_builder import (
    Layer,
    Member,
    character_device,
    directory,
    fifo,
    file,
    hardlink,
    layer,
    opaque,
    symlink,
    whiteout,
)
from tests.trees import OPAQUE, owned

BASE = layer(
    directory("d", mode=0o750, uid=7),
    file("d/a", b"a"),
    file("d/.hidden", b"h"),
    directory("d/e"),
    file("d/e/x", b"x"),
    file("top", b"t"),
    file(".top", b"t"),
    symlink("link", "d"),
    fifo("pipe"),
)
ALL = [".top", "d", "d/.hidden", "d/a", "d/e", "d/e/x", "link", "pipe", "top"]


def flat_names(directory: Path, *layers: Layer) -> list[str]:
    return sorted(names_below(publish(directory, *layers).flat))


@pytest.mark.parametrize(
    ("deleted", "left"),
    [
        ("top", [n for n in ALL if n != "top"]),
        (".top", [n for n in ALL if n != ".top"]),
        ("link", [n for n in ALL if n != "link"]),
        ("pipe", [n for n in ALL if n != "pipe"]),
        ("d/a", [n for n in ALL if n != "d/a"]),
        ("d/.hidden", [n for n in ALL if n != "d/.hidden"]),
        ("d/e", [n for n in ALL if not n.startswith("d/e")]),
        ("d", [n for n in ALL if not n.startswith("d")]),
        ("d/e/x", [n for n in ALL if n != "d/e/x"]),
    ],
)
def test_a_whiteout_deletes_what_lower_layers_have_at_its_path(
    deleted: str, left: list[str], tmp_path: Path
) -> None:
    assert flat_names(tmp_path, BASE, layer(whiteout(deleted))) == left


def test_a_whiteout_in_a_layer_tree_is_overlayfs_own(unpack: Unpack) -> None:
    unpacked = unpack(whiteout("d/a"), whiteout("x"))
    status = (unpacked.tree / "d/a").lstat()
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == os.makedev(0, 0)
    assert types(unpacked.entries) == {"d": "d", "d/a": "w", "x": "w"}
    assert unpacked.entries["d"].implicit
    assert unpacked.summary.whiteouts == 2


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", ".wh..", ".wh...", "d/.wh.."])
def test_a_whiteout_that_names_nothing_is_an_error(name: str, unpack: Unpack) -> None:
    with pytest.raises(UnsafeName, match="is empty"):
        unpack(directory("d"), file(name))


def test_a_whiteout_of_a_missing_name_is_accepted(tmp_path: Path) -> None:
    names = flat_names(tmp_path, BASE, layer(whiteout("none"), whiteout("d/none")))
    assert names == ALL


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_what_is_added_again_in_the_same_layer_survives_its_whiteout(
    order: tuple[int, ...], tmp_path: Path
) -> None:
    members = [whiteout("d/a"), file("d/a", b"new"), whiteout("top")]
    published = publish(tmp_path, BASE, layer(*(members[n] for n in order)))
    assert (published.flat / "d/a").read_bytes() == b"new"
    assert not (published.flat / "top").exists()
    assert published.layers[1].entries["d/a"].type is EntryType.FILE


@pytest.mark.parametrize("kind", [file("d/a"), symlink("d/a", "x"), fifo("d/a")])
@pytest.mark.parametrize("first", [True, False])
def test_any_entry_added_again_survives(kind: Member, first: bool, tmp_path: Path) -> None:
    members = [kind, whiteout("d/a")] if first else [whiteout("d/a"), kind]
    assert "d/a" in flat_names(tmp_path, BASE, layer(*members))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_an_opaque_directory_hides_lower_layers_and_keeps_its_own_wherever_the_marker_is(
    order: tuple[int, ...], tmp_path: Path
) -> None:
    members = [directory("d", mode=0o711), opaque("d"), file("d/own", b"o")]
    published = publish(tmp_path, BASE, layer(*(members[n] for n in order)))
    assert sorted(names_below(published.flat / "d")) == ["own"]
    assert stat.S_IMODE((published.flat / "d").stat().st_mode) == 0o711
    assert published.layers[1].entries["d"].opaque
    assert os.getxattr(published.trees[1] / "d", OPAQUE) == b"y"


def test_an_opaque_directory_without_an_entry_keeps_the_metadata_of_the_lower_one(
    tmp_path: Path,
) -> None:
    published = publish(tmp_path, BASE, layer(opaque("d"), file("d/own", b"o")))
    for tree in published.flat, published.trees[1]:
        status = (tree / "d").stat()
        assert stat.S_IMODE(status.st_mode) == 0o750
        assert (status.st_uid, status.st_gid) == owned(7)
    assert sorted(names_below(published.flat / "d")) == ["own"]


def test_opaque_directories_nest(tmp_path: Path) -> None:
    top = layer(opaque("d"), opaque("d/e"), file("d/e/new"), file("d/deep/er/f"))
    names = sorted(names_below(publish(tmp_path, BASE, top).flat / "d"))
    assert names == ["deep", "deep/er", "deep/er/f", "e", "e/new"]


def test_whiteouts_below_an_opaque_directory_are_in_the_index_and_not_in_the_tree(
    unpack: Unpack,
) -> None:
    # Overlayfs has nothing to merge there, and would list them.
    unpacked = unpack(opaque("d"), whiteout("d/x"), directory("d/e"), whiteout("d/e/y"), file("f"))
    assert sorted(names_below(unpacked.tree)) == ["d", "d/e", "f"]
    assert types(unpacked.entries) == {"d": "d", "d/e": "d", "d/e/y": "w", "d/x": "w", "f": "f"}


def test_an_opaque_root_hides_everything(tmp_path: Path) -> None:
    published = publish(tmp_path, BASE, layer(opaque(""), file("d/new"), file("only")))
    assert sorted(names_below(published.flat)) == ["d", "d/new", "only"]
    # Overlayfs does not know opaque roots: the tree has whiteouts instead.
    tree = published.trees[1]
    assert os.getxattr(tree / "d", OPAQUE) == b"y"
    whiteouts = [n for n in names_below(tree) if stat.S_ISCHR((tree / n).lstat().st_mode)]
    assert whiteouts == [".top", "link", "pipe", "top"]


def test_an_opaque_directory_hides_what_is_between_it_and_a_file_further_down(
    tmp_path: Path,
) -> None:
    layers = layer(file("d")), layer(file("d/x")), layer(opaque("d"))
    assert flat_names(tmp_path, *layers) == ["d"]


def test_a_higher_layer_can_add_to_an_opaque_directory(tmp_path: Path) -> None:
    layers = BASE, layer(opaque("d")), layer(file("d/e/y", b"y"))
    assert sorted(names_below(publish(tmp_path, *layers).flat / "d")) == ["e", "e/y"]


def test_a_directory_that_is_deleted_and_created_again_has_only_new_entries(tmp_path: Path) -> None:
    published = publish(tmp_path, BASE, layer(whiteout("d"), file("d/new", b"n")))
    assert sorted(names_below(published.flat / "d")) == ["new"]
    for tree in published.flat, published.trees[1]:  # nothing is left of the old one's metadata
        status = (tree / "d").stat()
        assert stat.S_IMODE(status.st_mode) == 0o755
        assert (status.st_uid, status.st_gid) == owned(0)


def test_a_directory_that_is_created_and_then_deleted_has_only_new_entries(tmp_path: Path) -> None:
    published = publish(
        tmp_path, BASE, layer(directory("d", mode=0o700), file("d/new", b"n"), whiteout("d"))
    )
    assert sorted(names_below(published.flat / "d")) == ["new"]
    assert published.layers[1].entries["d"].opaque


@pytest.mark.parametrize("flag", [b"0", b"1", b"2", b"5", b"6", b"3"])
def test_the_type_of_a_whiteout_is_irrelevant(flag: bytes, tmp_path: Path) -> None:
    markers = [
        Member("d/.wh.a", flag, target="top"),
        Member("d/e/.wh..wh..opq", flag, target="top"),
    ]
    names = flat_names(tmp_path, BASE, layer(*markers))
    assert names == [n for n in ALL if n not in ("d/a", "d/e/x")]


def test_internal_files_of_aufs_are_dropped(unpack: Unpack) -> None:
    unpacked = unpack(
        file(".wh..wh.aufs"),
        directory(".wh..wh.plnk"),
        file(".wh..wh.plnk/1.2"),
        directory(".wh..wh.orph"),
        file("d/.wh..wh.other"),
        file("kept"),
    )
    assert types(unpacked.entries) == {"kept": "f"}
    assert unpacked.summary.dropped == {"name:.wh..wh.*": 5}


def test_entries_below_a_whiteout_are_dropped_and_counted(tmp_path: Path) -> None:
    # containerd and umoci make a directory `.wh.d`; published trees have no such names.
    members = [directory(".wh.d"), file(".wh.d/x"), file("k/.wh.y/z/f"), whiteout(".wh.d/gone")]
    published = publish(tmp_path, BASE, layer(*members))
    assert not (published.flat / "d").exists()
    assert [n for n in names_below(published.flat) if ".wh." in n] == []
    assert published.layers[1].summary.dropped == {"name:.wh.*": 3}


def test_a_whiteout_in_a_set_group_id_directory_belongs_to_root(tmp_path: Path) -> None:
    base = layer(file("a"), file("..e/a/a"))
    top = layer(whiteout("..e"), file("a"), directory("..e", mode=0o2711, gid=1))
    published = publish(tmp_path, base, top, opaque_xattrs=False)
    status = (published.trees[1] / "..e/a").lstat()
    assert stat.S_ISCHR(status.st_mode)
    assert (status.st_uid, status.st_gid) == owned(0)


def test_a_whiteout_below_a_file_of_the_same_layer_is_dropped(tmp_path: Path) -> None:
    # Some tools write this where a directory with something in it became a file.
    published = publish(tmp_path, BASE, layer(file("d", b"now a file"), whiteout("d/a")))
    assert (published.flat / "d").read_bytes() == b"now a file"
    assert published.layers[1].summary.dropped == {"whiteout below a link or file": 1}


def test_a_whiteout_below_a_device_that_policy_drops_is_dropped_with_it(tmp_path: Path) -> None:
    published = publish(tmp_path, BASE, layer(character_device("d"), whiteout("d/a")))
    assert not (published.flat / "d").exists()
    dropped = {"device": 1, "whiteout below a link or file": 1}
    assert published.layers[1].summary.dropped == dropped


def test_a_single_layer_has_its_whiteouts_resolved(tmp_path: Path) -> None:
    only = layer(
        file("a"), whiteout("b"), directory("d"), opaque("d"), file("d/x"), whiteout("d/y")
    )
    assert flat_names(tmp_path, only) == ["a", "d", "d/x"]


def test_an_image_may_name_one_layer_twice(tmp_path: Path) -> None:
    one = layer(file("a", b"1"), whiteout("b"), hardlink("c", "a"))
    two = layer(file("a", b"2"), file("b", b"2"))
    published = publish(tmp_path, one, two, one)
    assert sorted(names_below(published.flat)) == ["a", "c"]
    assert (published.flat / "a").read_bytes() == b"1"
    assert (published.flat / "a").stat().st_ino == (published.flat / "c").stat().st_ino


def test_a_whiteout_and_then_the_name_again_in_a_higher_layer(tmp_path: Path) -> None:
    layers = BASE, layer(whiteout("d")), layer(file("d/a", b"third"))
    published = publish(tmp_path, *layers)
    assert sorted(names_below(published.flat / "d")) == ["a"]
    assert stat.S_IMODE((published.flat / "d").stat().st_mode) == 0o755
