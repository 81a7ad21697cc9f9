"""Hard cases 13 to 15: hard links."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
import zstandard

from publisher.entry import EntryType
from publisher.layers.errors import LayerError
from publisher.layers.merge import merge
from publisher.tree import layout
from tests.command import publisher, succeed
from tests.engine import Unpack, publish, types
from tests.layer_builder import (
    character_device,
    directory,
    fifo,
    file,
    hardlink,
    image,
    layer,
    symlink,
    whiteout,
    write_layout,
)
from tests.trees import owned


def same_inode(one: Path, other: Path) -> bool:
    return os.path.samestat(one.lstat(), other.lstat())


@pytest.mark.parametrize("target", ["d/f", "./d/f", "/d/f", "d//f", "d/../d/f", "link/f"])
def test_a_hard_link_is_another_name_of_its_target(target: str, unpack: Unpack) -> None:
    unpacked = unpack(
        directory("d"), symlink("link", "d"), file("d/f", b"x", mode=0o640), hardlink("h", target)
    )
    assert same_inode(unpacked.tree / "h", unpacked.tree / "d/f")
    entry = unpacked.entries["h"]
    assert (entry.type, entry.target) == (EntryType.HARDLINK, "d/f")
    assert (entry.mode, entry.size, entry.links) == (0o640, 1, 2)
    assert entry.sha256 == unpacked.entries["d/f"].sha256


def test_mode_and_owner_in_the_header_of_a_link_are_ignored(unpack: Unpack) -> None:
    unpacked = unpack(
        file("f", b"x", mode=0o640, uid=1, gid=2, mtime_ns=5),
        hardlink("h", "f", mode=0o4777, uid=3, gid=4, mtime_ns=9, xattrs={"user.no": b"1"}),
    )
    status = (unpacked.tree / "f").stat()
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert (status.st_uid, status.st_gid) == owned(1, 2)
    assert status.st_mtime_ns == 5
    assert os.listxattr(unpacked.tree / "f") == []


def test_a_hard_link_to_a_symlink_links_the_symlink(unpack: Unpack) -> None:
    unpacked = unpack(file("f"), symlink("s", "f"), hardlink("h", "s"))
    assert os.readlink(unpacked.tree / "h") == "f"
    assert same_inode(unpacked.tree / "h", unpacked.tree / "s")
    assert types(unpacked.entries) == {"f": "f", "h": "l", "s": "l"}


def test_a_hard_link_to_a_fifo_links_the_fifo(unpack: Unpack) -> None:
    unpacked = unpack(fifo("p"), hardlink("h", "p"))
    assert same_inode(unpacked.tree / "h", unpacked.tree / "p")


def test_a_hard_link_to_a_link_is_a_name_of_the_same_file(unpack: Unpack) -> None:
    unpacked = unpack(file("z", b"1"), hardlink("b", "z"), hardlink("c", "b"), hardlink("a", "c"))
    assert {unpacked.entries[n].links for n in "abcz"} == {4}
    assert unpacked.entries["a"].type is EntryType.FILE  # the first in sorted order
    assert {unpacked.entries[n].target for n in "bcz"} == {"a"}
    assert (unpacked.tree / "a").stat().st_nlink == 4


def test_a_hard_link_to_itself_changes_nothing(unpack: Unpack) -> None:
    unpacked = unpack(file("a", b"1"), hardlink("a", "./a"))
    assert (unpacked.tree / "a").read_bytes() == b"1"


def test_a_hard_link_to_a_directory_is_an_error(unpack: Unpack) -> None:
    for target in "d", "/", "d/":
        with pytest.raises(LayerError, match="directory"):
            unpack(directory("d"), hardlink("h", target))
    with pytest.raises(LayerError, match="directory"):
        unpack(hardlink("h", "d"), directory("d"))
    with pytest.raises(LayerError, match="into itself"):
        unpack(file("d/f"), hardlink("d", "d/f"))


def test_a_target_that_no_layer_has_is_an_error_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match=r"'d/h' is|entry 'd/h'.*'no/such'"):
        publish(tmp_path, layer(file("a")), layer(hardlink("d/h", "no/such")))


def test_a_target_that_comes_later_in_the_archive_is_found(unpack: Unpack) -> None:
    unpacked = unpack(hardlink("h", "f"), hardlink("g", "h"), file("f", b"late"))
    assert (unpacked.tree / "h").read_bytes() == b"late"
    assert (unpacked.tree / "f").stat().st_nlink == 3
    assert unpacked.summary.unresolved == 0


def test_links_that_name_each_other_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="hard link"):
        publish(tmp_path, layer(hardlink("a", "b"), hardlink("b", "a")))


def test_a_very_long_chain_of_links_is_refused(
    unpack: Unpack,
) -> None:
    chain = [hardlink(f"l{n:04}", f"l{n + 1:04}") for n in range(3000)]
    with pytest.raises(LayerError, match="too long"):
        unpack(*chain)


def test_a_target_that_is_replaced_later_keeps_its_old_bytes_under_the_links_name(
    unpack: Unpack,
) -> None:
    unpacked = unpack(
        file("f", b"old"), hardlink("h", "f"), hardlink("i", "f"), file("f", b"new one")
    )
    assert (unpacked.tree / "f").read_bytes() == b"new one"
    assert (unpacked.tree / "h").read_bytes() == b"old"
    assert same_inode(unpacked.tree / "h", unpacked.tree / "i")
    entries = unpacked.entries
    assert (entries["f"].type, entries["f"].size, entries["f"].links) == ("f", 7, 1)
    assert (entries["h"].type, entries["h"].size, entries["h"].links) == ("f", 3, 2)
    assert (entries["i"].type, entries["i"].target) == ("h", "h")


def test_a_link_that_is_replaced_by_a_file_leaves_the_target_alone(unpack: Unpack) -> None:
    unpacked = unpack(file("f", b"long old content"), hardlink("h", "f"), file("h", b"new"))
    assert (unpacked.tree / "f").read_bytes() == b"long old content"
    assert (unpacked.tree / "h").read_bytes() == b"new"
    assert unpacked.entries["f"].links == 1


def test_a_target_that_only_a_lower_layer_has_is_copied_into_the_layer_tree(
    tmp_path: Path,
) -> None:
    published = publish(
        tmp_path,
        layer(file("d/f", b"lower", mode=0o751, uid=5, mtime_ns=77, xattrs={"user.a": b"1"})),
        layer(hardlink("h", "d/f")),
    )
    copy = published.trees[1] / "h"
    status = copy.stat()
    assert copy.read_bytes() == b"lower"
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o751, 77)
    assert (status.st_uid, status.st_gid) == owned(5)
    assert status.st_nlink == 1
    assert os.getxattr(copy, "user.a") == b"1"
    assert same_inode(published.flat / "h", published.flat / "d/f")


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_link_to_a_name_that_its_layer_deletes_links_the_lower_layers_file(
    whiteout_first: bool, tmp_path: Path
) -> None:
    members = [hardlink("h", "f"), whiteout("f")]
    if whiteout_first:
        members.reverse()
    published = publish(tmp_path, layer(file("f", b"moved")), layer(*members))
    assert (published.flat / "h").read_bytes() == b"moved"
    assert not (published.flat / "f").exists()


def test_a_link_whose_target_comes_later_replaces_what_was_at_its_path(tmp_path: Path) -> None:
    lower = layer(file("a", b"lower"))
    waiting = [file("b/x", b"1"), hardlink("b", "a")]
    published = publish(tmp_path / "link", lower, layer(*waiting))
    assert (published.flat / "b").read_bytes() == b"lower"
    assert (published.trees[1] / "b").read_bytes() == b"lower"
    published = publish(tmp_path / "directory", lower, layer(*waiting, directory("b")))
    for tree in published.flat, published.trees[1]:
        assert list((tree / "b").iterdir()) == []


def test_lower_targets_are_found_through_several_layers(tmp_path: Path) -> None:
    published = publish(
        tmp_path,
        layer(file("a", b"1"), hardlink("b", "a")),
        layer(hardlink("z", "b"), hardlink("c", "a")),
        layer(hardlink("y", "z"), hardlink("x", "c"), whiteout("a"), whiteout("b")),
    )
    inodes = {(published.flat / name).stat().st_ino for name in "cxyz"}
    assert len(inodes) == 1
    assert (published.flat / "y").read_bytes() == b"1"
    assert (published.trees[2] / "y").read_bytes() == b"1"


def test_a_lower_target_that_a_layer_between_replaced_is_the_newer_one(tmp_path: Path) -> None:
    published = publish(
        tmp_path, layer(file("f", b"1")), layer(file("f", b"2")), layer(hardlink("h", "f"))
    )
    assert (published.flat / "h").read_bytes() == b"2"


@pytest.mark.parametrize("replaced", ["a", "b"])
def test_when_an_upper_layer_replaces_one_of_two_names_the_other_keeps_the_old_bytes(
    replaced: str, tmp_path: Path
) -> None:
    other = "b" if replaced == "a" else "a"
    published = publish(
        tmp_path, layer(file("a", b"old"), hardlink("b", "a")), layer(file(replaced, b"new"))
    )
    assert (published.flat / replaced).read_bytes() == b"new"
    assert (published.flat / other).read_bytes() == b"old"
    merged = {m.entry.path: m.entry for m in merge([u.index for u in published.layers])}
    assert merged[other].type is merged[replaced].type is EntryType.FILE


def test_the_target_of_a_hard_link_in_a_flat_image_is_in_the_flat_image(tmp_path: Path) -> None:
    published = publish(
        tmp_path,
        layer(file("a", b"x"), hardlink("b", "a"), hardlink("c", "a")),
        layer(whiteout("a")),
    )
    merged = {m.entry.path: m.entry for m in merge([u.index for u in published.layers])}
    assert merged["b"].type is EntryType.FILE
    assert (merged["c"].type, merged["c"].target) == (EntryType.HARDLINK, "b")
    assert same_inode(published.flat / "b", published.flat / "c")


def test_another_name_of_a_dropped_device_is_dropped_too(unpack: Unpack) -> None:
    unpacked = unpack(character_device("null"), hardlink("h", "null"))
    assert types(unpacked.entries) == {"h": "w", "null": "w"}
    assert unpacked.summary.dropped == {"device": 2}


def test_an_index_that_counts_no_links_to_lower_layers_is_named_and_made_again(
    tmp_path: Path,
) -> None:
    below, linking = layer(file("f", b"content")), layer(hardlink("h", "f"))
    for tag, layers in (("1", (below, linking)), ("2", (below, linking, layer(file("g"))))):
        write_layout(image(*layers), tmp_path / "layout", tag)
    place = ("--repository", f"dir:{tmp_path}/images")
    succeed("ingest-image", f"oci:{tmp_path}/layout:1", *place)
    index = tmp_path / "images" / layout.layer_index(linking.digest)
    text = zstandard.ZstdDecompressor().stream_reader(index.read_bytes()).read()
    assert text.count(b'"unresolved":1') == 1
    index.unlink()
    index.write_bytes(zstandard.compress(text.replace(b'"unresolved":1', b'"unresolved":0')))
    refused = publisher("ingest-image", f"oci:{tmp_path}/layout:2", *place)
    assert refused.code == 1
    assert "cannot merge layer 2, entry 'h': it is a hard link to a lower layer" in refused.err
    [advice] = re.findall(r"publisher (verify [-a-z ]+) makes damaged indexes again", refused.err)
    succeed(*advice.split(), *place)
    succeed("ingest-image", f"oci:{tmp_path}/layout:2", *place)
    [flat] = [path for path in (tmp_path / "images/.flat").glob("*/*") if (path / "g").exists()]
    assert (flat / "h").read_bytes() == b"content"
