"""Hard cases 16 to 23: types, metadata, and the forms that archives come in."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from publisher.entry import Entry, EntryType
from publisher.layers.errors import LayerError, LimitExceeded
from publisher.layers.policy import Limits, Policy
from publisher.layers.unpack import unpack as unpack_blob
from publisher.repository import DeviceRefused
from publisher.repository.directory.tree_writer import TreeWriter
from tests.components import require, require_root
from tests.engine import Unpack, names_below, publish, types, unpack_layer
from tests.layer_builder import (
    BLOCK,
    Member,
    block_device,
    character_device,
    directory,
    fifo,
    file,
    hardlink,
    layer,
    layer_of_tar,
    opaque,
    pax_header,
    symlink,
    tar,
    whiteout,
)
from tests.trees import OPAQUE, assert_same_tree, owned

KINDS: dict[str, list[Member]] = {
    "file": [file("x", b"file")],
    "directory": [directory("x"), file("x/inside", b"1")],
    "symlink": [symlink("x", "elsewhere")],
    "fifo": [fifo("x")],
    "hard link": [hardlink("x", "other")],
}


@pytest.mark.parametrize(("first", "second"), list(permutations(KINDS, 2)))
def test_anything_replaces_anything_in_one_layer(first: str, second: str, unpack: Unpack) -> None:
    common = [file("other", b"other"), directory("elsewhere"), file("elsewhere/kept", b"kept")]
    unpacked = unpack(*common, *KINDS[first], *KINDS[second])
    alone = unpack(*common, *KINDS[second])
    assert_same_tree(unpacked.tree, alone.tree)
    assert unpacked.entries == alone.entries
    assert (unpacked.tree / "other").read_bytes() == b"other"


@pytest.mark.parametrize(("first", "second"), list(permutations([*KINDS, "whiteout"], 2)))
def test_anything_replaces_anything_across_layers(first: str, second: str, tmp_path: Path) -> None:
    kinds = {**KINDS, "whiteout": [whiteout("x")]}
    common = layer(file("other", b"other"), directory("elsewhere"))
    both = publish(tmp_path / "both", common, layer(*kinds[first]), layer(*kinds[second]))
    alone = publish(tmp_path / "alone", common, layer(*kinds[second]))
    assert_same_tree(both.flat, alone.flat)


def test_a_shorter_file_of_the_same_name_leaves_no_stale_tail(unpack: Unpack) -> None:
    unpacked = unpack(file("f", b"long" * 50_000), file("f", b"short"), file("f", b"sh"))
    assert (unpacked.tree / "f").read_bytes() == b"sh"
    assert unpacked.entries["f"].size == 2


def test_an_entry_below_a_file_is_an_error_that_names_both(unpack: Unpack) -> None:
    with pytest.raises(LayerError, match=r"entry below 'a/f/d'.*'a/f' is not a directory"):
        unpack(file("a/f"), file("a/f/d/x"))


def test_parents_without_an_entry_are_made_and_marked(unpack: Unpack) -> None:
    unpacked = unpack(file("a/b/c", uid=9))
    for path in "a", "a/b":
        assert unpacked.entries[path].implicit
        status = (unpacked.tree / path).stat()
        assert stat.S_IMODE(status.st_mode) == 0o755
        assert (status.st_uid, status.st_gid) == owned(0)
        assert status.st_mtime_ns == 0


def test_parents_without_an_entry_do_not_override_a_lower_layers_metadata(tmp_path: Path) -> None:
    lower = directory("a", mode=0o1777, uid=3, gid=4, mtime_ns=10**18 + 5, xattrs={"user.k": b"v"})
    published = publish(tmp_path, layer(lower, file("a/x")), layer(file("a/y")))
    for tree in published.flat, published.trees[1]:
        status = (tree / "a").stat()
        assert stat.S_IMODE(status.st_mode) == 0o1777
        assert (status.st_uid, status.st_gid) == owned(3, 4)
        assert status.st_mtime_ns == 10**18 + 5
        assert os.getxattr(tree / "a", "user.k") == b"v"


def test_a_directory_entry_may_come_after_its_children(unpack: Unpack) -> None:
    unpacked = unpack(file("d/e/f", b"1"), directory("d", mode=0o700, uid=6, mtime_ns=123_000))
    status = (unpacked.tree / "d").stat()
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert (status.st_uid, status.st_gid) == owned(6)
    assert status.st_mtime_ns == 123_000
    assert not unpacked.entries["d"].implicit
    assert unpacked.entries["d/e"].implicit


def test_times_of_directories_are_those_of_their_entries_whatever_happens_in_them(
    unpack: Unpack,
) -> None:
    unpacked = unpack(
        directory("", mtime_ns=1),
        directory("d", mtime_ns=2),
        directory("d/e", mtime_ns=3),
        file("d/e/f"),
        whiteout("d/e/g"),
        hardlink("d/h", "d/e/f"),
        opaque("d"),
    )
    for path, time in ("", 1), ("d", 2), ("d/e", 3):
        assert (unpacked.tree / path).stat().st_mtime_ns == time


@pytest.mark.parametrize("mode", [0, 0o444, 0o555, 0o111])
@pytest.mark.parametrize("as_nobody", [False, True])
def test_read_only_entries_can_be_written_into_replaced_and_removed(
    mode: int, as_nobody: bool, tmp_path: Path
) -> None:
    source = layer(
        directory("d", mode=mode),
        file("d/f", b"1", mode=mode),
        directory("d/sub", mode=mode),
        file("d/sub/x", b"2", mode=mode),
        file("d/f", b"22", mode=mode),
        directory("gone", mode=mode),
        file("gone/x", mode=mode),
        file("gone", b"file now", mode=mode),
        whiteout("d/w"),
        opaque("d/sub"),
        hardlink("d/h", "d/f"),
    )
    if not as_nobody:
        unpack_layer(source, tmp_path / "t")
    else:
        require_root()  # to change the user
        place = tmp_path / "theirs"
        place.mkdir()
        os.chmod(place, 0o777)
        for above in [place, *place.parents][:-2]:
            os.chmod(above, above.stat().st_mode | 0o011)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                unpack_layer(source, place / "t")
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        (place / "t").rename(tmp_path / "t")
    tree = tmp_path / "t"
    assert (tree / "d/f").read_bytes() == b"22"
    assert (tree / "gone").read_bytes() == b"file now"
    assert stat.S_IMODE((tree / "d").stat().st_mode) == mode | 0o700
    assert stat.S_IMODE((tree / "d/f").stat().st_mode) == mode | 0o600
    assert stat.S_ISCHR((tree / "d/w").lstat().st_mode)
    for name in ["user.overlay.opaque", *([] if as_nobody else [OPAQUE])]:
        assert os.getxattr(tree / "d/sub", name) == b"y"


@pytest.mark.parametrize("umask", [0o077, 0o000, 0o777])
def test_modes_do_not_depend_on_the_umask(umask: int, unpack: Unpack) -> None:
    if umask & 0o700:
        require_root()  # an ordinary user cannot enter such a directory
    before = os.umask(umask)
    try:
        unpacked = unpack(
            directory("d", mode=0o775), file("d/f", mode=0o664), fifo("p", mode=0o622)
        )
    finally:
        os.umask(before)
    for path, mode in ("d", 0o775), ("d/f", 0o664), ("p", 0o622):
        assert stat.S_IMODE((unpacked.tree / path).stat().st_mode) == mode


def test_setuid_and_setgid_are_dropped_from_files_and_recorded(unpack: Unpack) -> None:
    unpacked = unpack(
        file("u", mode=0o4755), file("g", mode=0o2755), file("both", mode=0o6755, uid=7)
    )
    assert stat.S_IMODE((unpacked.tree / "both").stat().st_mode) == 0o755
    entries = unpacked.entries
    assert entries["u"].dropped == ("setuid",)
    assert entries["g"].dropped == ("setgid",)
    assert entries["both"].dropped == ("setuid", "setgid")
    assert unpacked.summary.dropped == {"setgid": 2, "setuid": 2}


def test_directories_do_not_inherit_set_group_id(unpack: Unpack) -> None:
    unpacked = unpack(
        directory("d", mode=0o2755, gid=7),
        directory("d/e", mode=0o700, gid=1),
        directory("d/f", mode=0o755, gid=7),
        file("d/g", gid=3),
        file("d/h"),
        file("d/implied/x"),
    )
    for path, mode, gid in [
        ("d", 0o2755, 7),
        ("d/e", 0o700, 1),
        ("d/f", 0o755, 7),
        ("d/g", 0o644, 3),
        ("d/h", 0o644, 0),
        ("d/implied", 0o755, 0),
        ("d/implied/x", 0o644, 0),
    ]:
        status = (unpacked.tree / path).stat()
        assert stat.S_IMODE(status.st_mode) == mode, path
        assert (status.st_uid, status.st_gid) == owned(0, gid), path


def test_setuid_setgid_and_sticky_survive_the_change_of_owner_when_policy_keeps_them(
    unpack: Unpack,
) -> None:
    unpacked = unpack(
        file("f", mode=0o6755, uid=1000, gid=1000),
        directory("d", mode=0o3777, uid=5, gid=6),
        policy=Policy(setuid="keep"),
    )
    assert stat.S_IMODE((unpacked.tree / "f").stat().st_mode) == 0o6755
    assert stat.S_IMODE((unpacked.tree / "d").stat().st_mode) == 0o3777


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_huge_owners_and_strange_times_are_kept(form: str, unpack: Unpack) -> None:
    members = [
        file("owner", uid=2**32 - 2, gid=2**31, format=form),
        file("old", mtime_ns=-(10**9) * 86400, format=form),
        file("future", mtime_ns=9_000_000_000 * 10**9, format=form),
    ]
    unpacked = unpack(*members)
    status = (unpacked.tree / "owner").stat()
    assert (status.st_uid, status.st_gid) == owned(2**32 - 2, 2**31)
    owner = unpacked.entries["owner"]
    assert (owner.uid, owner.gid) == (2**32 - 2, 2**31)
    assert (unpacked.tree / "old").stat().st_mtime_ns == -(10**9) * 86400
    assert (unpacked.tree / "future").stat().st_mtime_ns == 9_000_000_000 * 10**9


@pytest.mark.parametrize("time", [-1, -1_500_000_001, 1_234_567_890_123_456_789])
def test_fractions_of_times_are_kept_to_the_nanosecond(time: int, unpack: Unpack) -> None:
    unpacked = unpack(
        file("f", mtime_ns=time), directory("d", mtime_ns=time), fifo("p", mtime_ns=time)
    )
    for path in "f", "d", "p":
        assert (unpacked.tree / path).stat().st_mtime_ns == time
        assert unpacked.entries[path].mtime_ns == time


def test_digits_beyond_nanoseconds_are_cut_off_towards_the_past(unpack: Unpack) -> None:
    times = {"-1.5": -1_500_000_000, "-1.0000000001": -1_000_000_001, "1.9999999999": 1_999_999_999}
    for text, expected in times.items():
        assert unpack(file("f", pax={"mtime": text})).entries["f"].mtime_ns == expected


@pytest.mark.parametrize("time", ["9" * 30, "-" + "9" * 30, "99999999999.5"])
def test_times_that_no_file_system_can_store_are_accepted(time: str, unpack: Unpack) -> None:
    unpacked = unpack(file("f", pax={"mtime": time}), directory("d", pax={"mtime": time}))
    assert (unpacked.tree / "f").exists()


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_an_owner_that_chown_takes_for_no_change_is_root_and_counted(
    form: str, unpack: Unpack
) -> None:
    unpacked = unpack(
        file("u", uid=2**32 - 1, gid=7, format=form),
        directory("g", uid=7, gid=2**32 - 1, format=form),
        symlink("s", "u", uid=2**32 - 1, gid=2**32 - 1, format=form),
    )
    owners = {path: (e.uid, e.gid) for path, e in unpacked.entries.items() if path}
    assert owners == {"u": (0, 7), "g": (7, 0), "s": (0, 0)}
    for path, (uid, gid) in owners.items():
        status = (unpacked.tree / path).lstat()
        assert (status.st_uid, status.st_gid) == owned(uid, gid)
    assert unpacked.summary.dropped == {"owner": 3}


@pytest.mark.parametrize("owner", [{"uid": 2**32}, {"gid": 2**40}, {"uid": -1}])
def test_an_owner_that_no_system_can_store_is_an_error(
    owner: dict[str, Any], unpack: Unpack
) -> None:
    with pytest.raises(LayerError, match="owner"):
        unpack(file("f", format="gnu", **owner))


def test_device_nodes_are_not_made_but_recorded_and_hide_what_is_below(tmp_path: Path) -> None:
    published = publish(
        tmp_path,
        layer(file("dev/null", b"a file"), file("dev/sda")),
        layer(character_device("dev/null", 1, 3), block_device("dev/sda", 8, 0), fifo("dev/pipe")),
    )
    assert sorted(p.name for p in (published.flat / "dev").iterdir()) == ["pipe"]
    entry = published.layers[1].entries["dev/null"]
    assert (entry.type, entry.device, entry.dropped) == ("w", (1, 3), ("device",))


def test_a_dropped_device_leaves_a_whiteout_in_the_tree_only_where_it_hides_something(
    tmp_path: Path,
) -> None:
    # Overlayfs would list the name of one that hides nothing.
    top = layer(character_device("dev/null", 1, 3), character_device("dev/zero", 1, 5))
    published = publish(tmp_path, layer(file("dev/null")), top)
    assert sorted(names_below(published.trees[1])) == ["dev", "dev/null"]
    assert (published.trees[1] / "dev/null").lstat().st_rdev == 0


def test_device_nodes_are_made_when_policy_keeps_them(unpack: Unpack) -> None:
    if os.geteuid() != 0:
        for node in character_device("d/c", 1, 3), block_device("d/c", 8, 300):
            with pytest.raises(DeviceRefused, match=r"'d/c'.*root.*--devices drop"):
                unpack(node, policy=Policy(devices="keep"))
        return
    unpacked = unpack(
        character_device("c", 1, 3, mode=0o666, uid=3),
        block_device("b", 8, 300, format="gnu"),
        hardlink("h", "c"),
        policy=Policy(devices="keep"),
    )
    status = (unpacked.tree / "c").lstat()
    assert stat.S_ISCHR(status.st_mode)
    assert (status.st_rdev, status.st_uid) == (os.makedev(1, 3), 3)
    assert stat.S_IMODE(status.st_mode) == 0o666
    assert (unpacked.tree / "b").lstat().st_rdev == os.makedev(8, 300)
    assert (unpacked.tree / "h").lstat().st_rdev == os.makedev(1, 3)


@pytest.mark.parametrize(
    "node",
    [
        character_device("d", 0, 0),
        character_device("d", 0, 2**20),
        character_device("d", 2**12, 0),
        block_device("d", 2**40, 1, format="gnu"),
        block_device("d", -1, -1, format="gnu"),
    ],
    ids=["whiteout", "minor that wraps to a whiteout", "major", "huge", "negative"],
)
def test_a_device_that_is_overlayfs_whiteout_or_that_linux_does_not_have_is_never_made(
    node: Member, tmp_path: Path
) -> None:
    keep = Policy(devices="keep")
    published = publish(tmp_path, layer(file("d", b"lower")), layer(node), policy=keep)
    assert list(published.flat.iterdir()) == []
    assert published.layers[1].entries["d"].dropped == ("device",)


def test_an_entry_below_a_device_is_refused_whether_or_not_policy_drops_the_device(
    unpack: Unpack,
) -> None:
    for policy in Policy(), Policy(devices="keep"):
        with pytest.raises((LayerError, DeviceRefused), match=r"'d'.* directory|'d'.* root"):
            unpack(character_device("d", 1, 3), file("d/x"), policy=policy)


def test_entries_below_dev_proc_and_sys_are_like_any_other(unpack: Unpack) -> None:
    unpacked = unpack(file("dev/x", b"1"), directory("proc"), file("sys/y", b"2"))
    assert types(unpacked.entries) == {
        "dev": "d",
        "dev/x": "f",
        "proc": "d",
        "sys": "d",
        "sys/y": "f",
    }


def test_xattrs_of_users_are_kept_and_dangerous_ones_dropped_and_recorded(unpack: Unpack) -> None:
    xattrs = {
        "user.one": b"1",
        "user.binary": bytes(range(256)),
        "user.empty": b"",
        "security.capability": b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "security.selinux": b"x",
        "trusted.overlay.opaque": b"y",
        "trusted.mine": b"x",
        "user.overlay.redirect": b"/etc",
        "system.posix_acl_access": b"x",
    }
    unpacked = unpack(file("f", xattrs=xattrs), directory("d", xattrs=xattrs), symlink("s", "f"))
    for path in "f", "d":
        kept = {
            name: os.getxattr(unpacked.tree / path, name)
            for name in os.listxattr(unpacked.tree / path)
        }
        assert kept == {k: xattrs[k] for k in ("user.one", "user.binary", "user.empty")}
        assert unpacked.entries[path].xattrs == kept
        assert len(unpacked.entries[path].dropped) == 6


def test_file_capabilities_follow_setuid(tmp_path: Path) -> None:
    capability = b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    source = layer(file("f", b"x", uid=5, xattrs={"security.capability": capability}))
    with TreeWriter(tmp_path / "t") as sink:
        policy = Policy(setuid="keep")
        unpack_blob(source.chunks(), source.descriptor, source.diff_id, sink, BytesIO(), policy)
        refused = sink.refused
    if os.geteuid() == 0:
        assert os.getxattr(tmp_path / "t/f", "security.capability") == capability
        assert refused == {}
    else:  # only root can set them: it is counted
        assert os.listxattr(tmp_path / "t/f") == []
        assert refused == {"xattr:security.capability": 1}


@pytest.mark.system
def test_a_file_system_without_xattrs_is_reported_by_counts(tmp_path: Path) -> None:
    require_root()
    source = layer(*(file(f"f{n}", xattrs={"user.k": b"1"}) for n in range(3)), opaque("d"))
    subprocess.run(["mount", "-t", "ramfs", "none", tmp_path], check=True)
    try:
        with TreeWriter(tmp_path / "t") as sink:
            unpack_blob(
                source.chunks(), source.descriptor, source.diff_id, sink, BytesIO(), Policy()
            )
            assert sink.refused == {"xattr:user.k": 3, "opaque": 1}
            for number in range(100):
                sink.add(Entry(f"f{number}", EntryType.FILE, xattrs={f"user.{number}": b"v"}))
            assert len(sink.refused) < 30
            assert sum(sink.refused.values()) == 104
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_policy_can_make_everything_readable(unpack: Unpack) -> None:
    unpacked = unpack(
        directory("d", mode=0o700),
        file("d/f", mode=0o600),
        file("d/x", mode=0o700),
        policy=Policy(readable=True),
    )
    for path, mode in ("d", 0o755), ("d/f", 0o644), ("d/x", 0o755):
        assert stat.S_IMODE((unpacked.tree / path).stat().st_mode) == mode


def test_policy_can_give_everything_to_one_owner(unpack: Unpack) -> None:
    unpacked = unpack(file("d/f", uid=7, gid=8), symlink("s", "x"), policy=Policy(owner=(11, 12)))
    for path in "d", "d/f", "s":
        status = (unpacked.tree / path).lstat()
        assert (status.st_uid, status.st_gid) == owned(11, 12)
        assert (unpacked.entries[path].uid, unpacked.entries[path].gid) == (11, 12)


def _gnu_tar(tmp_path: Path, *options: str) -> bytes:
    require("tar")
    return subprocess.run(
        ["tar", "-C", tmp_path / "source", "--sort=name", *options, "-c", "."],
        check=True,
        capture_output=True,
    ).stdout


def _make_sparse(path: Path, size: int, *pieces: tuple[int, bytes]) -> None:
    with path.open("wb") as out:
        for offset, data in pieces:
            out.seek(offset)
            out.write(data)
        out.truncate(size)


@pytest.mark.parametrize(
    "options",
    [
        ("--format=gnu",),
        ("--format=pax", "--sparse-version=0.0"),
        ("--format=pax", "--sparse-version=0.1"),
        ("--format=pax", "--sparse-version=1.0"),
    ],
)
def test_sparse_files_are_whole_again(
    options: tuple[str, ...], tmp_path: Path, unpack: Unpack
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    _make_sparse(source / "one", 3_000_000, (1_000_000, b"middle" * 1000))
    _make_sparse(source / "hole", 2_000_000)
    _make_sparse(source / "end", 1_000_000, (999_990, b"0123456789"))
    many = [(n * 131_072, bytes([n]) * 4096) for n in range(60)]
    _make_sparse(source / "many", 60 * 131_072 + 5, *many)
    (source / ("long" * 40)).mkdir()
    _make_sparse(source / ("long" * 40) / ("name" * 40), 500_000, (300_000, b"x"))
    (source / "zz").write_bytes(b"after all")
    unpacked = unpack_layer(
        layer_of_tar(_gnu_tar(tmp_path, "--sparse", *options)), tmp_path / "unpacked"
    )
    assert_same_tree(unpacked.tree, source, ignore=["mtime_ns"])


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_every_format_of_gnu_tar_is_read_as_gnu_tar_reads_it(form: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d/file").write_bytes(b"content" * 1000)
    os.link(source / "d/file", source / "d/link")
    (source / "d/s").symlink_to("file")
    os.chmod(source / "d/file", 0o640)
    if form not in ("v7", "oldgnu"):
        os.mkfifo(source / "fifo")
    if form != "v7":
        deep = source / ("a" * 60) / ("b" * 60)
        deep.mkdir(parents=True)
        (deep / "f").write_bytes(b"deep")
    if form in ("gnu", "pax", "oldgnu"):
        (source / ("n" * 200)).write_bytes(b"long")
        (source / "l").symlink_to("t" * 200)
        (source / "caf\u00e9").write_bytes(b"utf-8")
        (source / os.fsdecode(b"caf\xe9")).write_bytes(b"latin-1")
    unpacked = unpack_layer(layer_of_tar(_gnu_tar(tmp_path, f"--format={form}")), tmp_path / "out")
    reference = tmp_path / "reference"
    reference.mkdir()
    subprocess.run(
        ["tar", "-C", reference, "-xp"], input=_gnu_tar(tmp_path, f"--format={form}"), check=True
    )
    assert_same_tree(unpacked.tree, reference, directory_times=True)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_of_pythons_tarfile_are_read(form: int, tmp_path: Path) -> None:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name in ["d/" + "x" * 80 + "/" + "y" * 90, "plain"]:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid = 3, 0o600, 12
            archive.addfile(info, BytesIO(b"abc"))
    unpacked = unpack_layer(layer_of_tar(buffer.getvalue()), tmp_path / "out")
    assert (unpacked.tree / "plain").read_bytes() == b"abc"
    assert unpacked.entries["plain"].uid == 12


def test_global_headers_are_read_and_have_no_effect(unpack: Unpack) -> None:
    unpacked = unpack(
        pax_header({"comment": "made by git", "path": "no", "uid": "5"}, b"g"),
        file("a"),
        pax_header({"path": "this"}),
        pax_header({"mtime": "7"}, b"g"),
        file("that"),
    )
    assert types(unpacked.entries) == {"a": "f", "this": "f"}
    assert unpacked.entries["a"].uid == 0


def test_old_archives_name_directories_by_a_slash(unpack: Unpack) -> None:
    unpacked = unpack(Member("d/", b"\0", format="v7"), Member("f", b"\0", b"1", format="v7"))
    assert types(unpacked.entries) == {"d": "d", "f": "f"}


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_sizes_of_8_gib_and_more_are_understood(form: str, unpack: Unpack) -> None:
    huge = file("huge", b"", size=9 * 2**30, format=form)
    with pytest.raises(LayerError, match=r"'huge'.*ends within"):
        unpack(huge)
    with pytest.raises(LimitExceeded, match="'huge'"):
        unpack(huge, policy=Policy(limits=Limits(layer_bytes=2**30)))


def test_sizes_in_base_256_are_understood(unpack: Unpack) -> None:
    data = bytearray(file("f", b"hello", format="gnu").encode())
    data[124:136] = b"\x80" + (5).to_bytes(11, "big")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:BLOCK])
    assert unpack(bytes(data)).entries["f"].size == 5


def test_latin_1_names_keep_their_bytes(unpack: Unpack) -> None:
    for form in "gnu", "pax", "ustar":
        unpacked = unpack(
            file(b"caf\xe9", b"1", format=form),
            file(b"\xe9" * 150, b"2", format=form if form != "ustar" else "pax"),
        )
        assert os.path.exists(os.fsencode(unpacked.tree) + b"/caf\xe9")


def test_of_duplicate_entries_the_last_wins(unpack: Unpack) -> None:
    unpacked = unpack(
        *(file("f", b"%d" % n, mode=0o600 + n, mtime_ns=n) for n in range(5)),
        directory("d", mode=0o700),
        directory("d", mode=0o711, xattrs={"user.old": b"1"}),
        directory("d", mode=0o755, uid=9, xattrs={"user.new": b"1"}),
    )
    assert (unpacked.tree / "f").read_bytes() == b"4"
    assert unpacked.paths == ["d", "f"]
    assert (unpacked.tree / "d").stat().st_uid == owned(9)[0]
    assert unpacked.entries["d"].uid == 9
    assert os.listxattr(unpacked.tree / "d") == ["user.new"]


def test_an_empty_layer_and_one_with_only_a_root_are_layers(tmp_path: Path, unpack: Unpack) -> None:
    assert unpack().paths == []
    assert unpack(end=b"").paths == []
    only_root = unpack(directory("./", mode=0o711, uid=4))
    assert only_root.paths == []
    assert stat.S_IMODE(only_root.tree.stat().st_mode) == 0o711
    assert only_root.entries[""].uid == 4
    published = publish(tmp_path / "p", layer(directory("./", mode=0o711)), layer(file("a")))
    assert stat.S_IMODE(published.flat.stat().st_mode) == 0o711


def test_a_directory_that_was_a_file_before_in_its_layer_shows_what_lower_layers_have_in_it(
    tmp_path: Path,
) -> None:
    layers = layer(file("d/x")), layer(file("d"), directory("d"), file("d/y"))
    assert sorted(names_below(publish(tmp_path, *layers).flat)) == ["d", "d/x", "d/y"]


@pytest.mark.parametrize("flag", [b"V", b"M", b"D", b"N", b"8", b"\xff", b"Z", b"s"])
def test_an_unknown_type_is_an_error_that_names_the_entry(flag: bytes, unpack: Unpack) -> None:
    with pytest.raises(LayerError, match=r"entry 'the/entry'.*its type"):
        unpack(file("good"), Member("the/entry", flag))


def test_members_that_are_not_files_have_no_content_whatever_their_size(
    unpack: Unpack,
) -> None:
    members = [
        Member("d", b"5", size=5000),
        Member("s", b"2", target="x", size=70),
        Member("h", b"1", target="f", size=9),
        Member("p", b"6", size=1),
    ]
    unpacked = unpack(file("f", b"1"), *members, file("last", b"2"))
    assert sorted(types(unpacked.entries).items()) == [
        ("d", "d"),
        ("f", "f"),
        ("h", "h"),
        ("last", "f"),
        ("p", "p"),
        ("s", "l"),
    ]


def test_of_several_extended_headers_the_last_counts_as_in_go(unpack: Unpack) -> None:
    headers = [pax_header({"path": "a", "mtime": "5", "SCHILY.xattr.user.x": "1"})] * 2
    unpacked = unpack(*headers, pax_header({"path": "b"}), file("f", mtime_ns=7 * 10**9))
    assert unpacked.paths == ["b"]
    assert (unpacked.entries["b"].mtime_ns, unpacked.entries["b"].xattrs) == (7 * 10**9, {})


def test_names_of_dropped_xattrs_are_counted_together_when_there_are_many_or_long_ones(
    unpack: Unpack,
) -> None:
    many = [file(f"f{n}", xattrs={f"trusted.{n}": b""}, mode=0o4755) for n in range(300)]
    unpacked = unpack(file("long", xattrs={"trusted." + "x" * 300: b""}), *many)
    dropped = unpacked.index.header.dropped
    assert dropped == unpacked.summary.dropped
    assert (dropped["setuid"], dropped["xattr:trusted.0"]) == (300, 1)
    assert len(dropped) < 110
    assert sum(dropped.values()) == 601
    assert unpacked.entries["f299"].dropped == ("setuid", "xattr:trusted.299")


BAD_RECORDS = [
    b"no length",
    b"5 a=b",
    b"99 path=x\n",
    b"4 =\n",
    b"6 abc\n",
    b"0 path=x\n",
    b"-9 path=x\n",
    b"9 path=x\n11 mtime=abc\n",
    b"12 size=1e99\n",
    b"11 size=-5\n\n",
]


@pytest.mark.parametrize("body", BAD_RECORDS)
def test_a_malformed_extended_header_is_an_error(body: bytes, unpack: Unpack) -> None:
    with pytest.raises(LayerError):
        unpack(Member("pax", b"x", body, format="ustar"), file("f"))


def test_an_extended_header_without_end_is_refused(unpack: Unpack) -> None:
    with pytest.raises(LimitExceeded, match="extended header"):
        unpack(Member("pax", b"x", b"", size=2**40, format="gnu"))
    with pytest.raises(LimitExceeded, match="extended header"):
        unpack(Member("././@LongLink", b"L", b"", size=2**21, format="gnu"))


SPARSE_LIES = [
    {"GNU.sparse.map": "0,5", "GNU.sparse.size": "3"},
    {"GNU.sparse.map": "0,4,2,1", "GNU.sparse.size": "100"},
    {"GNU.sparse.map": "0,6", "GNU.sparse.size": "100"},
    {"GNU.sparse.map": "0,-5,0,10", "GNU.sparse.size": "100"},
    {"GNU.sparse.map": "0", "GNU.sparse.size": "100"},
    {"GNU.sparse.map": "x,5", "GNU.sparse.size": "100"},
    {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "100"},
]


@pytest.mark.parametrize("records", SPARSE_LIES)
def test_a_wrong_map_of_sparse_regions_is_an_error(records: dict[str, str], unpack: Unpack) -> None:
    with pytest.raises(LayerError):
        unpack(file("f", b"hello", pax=records))


def test_a_sparse_file_larger_than_the_limit_is_refused_before_it_is_written(
    unpack: Unpack,
) -> None:
    records = {"GNU.sparse.map": "0,5", "GNU.sparse.size": str(2**60)}
    with pytest.raises(LimitExceeded):
        unpack(file("f", b"hello", pax=records))


def test_more_entries_than_the_limit_are_refused(unpack: Unpack) -> None:
    policy = Policy(limits=Limits(layer_entries=10))
    assert len(unpack(*(file(f"f{n}") for n in range(9)), policy=policy).paths) == 9
    with pytest.raises(LimitExceeded, match="more than 10 entries"):
        unpack(*(file(f"f{n}") for n in range(10)), policy=policy)


def test_nothing_is_visible_of_a_tree_before_it_is_complete(tmp_path: Path) -> None:
    with TreeWriter(tmp_path / "t") as sink:
        assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o700
        sink.finish()


def test_the_tree_is_the_same_each_time(unpack: Unpack) -> None:
    members = [file("a/b", b"1"), whiteout("c"), opaque("d"), symlink("s", "x"), fifo("p")]
    assert_same_tree(unpack(*members).tree, unpack(*members).tree, directory_times=True)


def test_pieces_of_an_archive_may_be_put_together_by_hand(unpack: Unpack) -> None:
    archive = tar(file("a", b"1"), end=b"") + tar(file("b", b"2"))
    unpacked = unpack(archive, end=b"")
    assert unpacked.paths == ["a", "b"]


def _with_checksum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:BLOCK])
    return bytes(header)


def _gnu_header_with_prefix(prefix: bytes) -> bytes:
    """A header as Go before 1.8 wrote it if a number did not fit: GNU's magic, and a prefix."""
    header = bytearray(file("foo", uid=0o10000000, format="gnu").encode())
    header[345 : 345 + len(prefix)] = prefix
    return _with_checksum(header)


def test_a_prefix_in_a_gnu_header_of_old_go_is_part_of_the_name(unpack: Unpack) -> None:
    prefix = "a" * 120
    unpacked = unpack(_gnu_header_with_prefix(prefix.encode()))
    assert unpacked.paths == [prefix, f"{prefix}/foo"]
    assert unpacked.entries[f"{prefix}/foo"].uid == 0o10000000


@pytest.mark.parametrize("times", [b"13652431105\x0013652431106\x00", b"\0" * 12, b"\xe9\xff" * 50])
def test_times_and_bytes_that_are_not_ascii_in_a_gnu_header_are_not_a_prefix(
    times: bytes, unpack: Unpack
) -> None:
    assert unpack(_gnu_header_with_prefix(times)).paths == ["foo"]


def test_numbers_of_extended_headers_may_begin_with_any_number_of_zeros(unpack: Unpack) -> None:
    records = {"size": "5", "uid": "12", "gid": "-0", "mtime": "77.5"}
    padded = {
        key: value.replace("-", "-" + "0" * 40) if "-" in value else "0" * 40 + value
        for key, value in records.items()
    }
    entry = unpack(file("f", b"hello", pax=padded)).entries["f"]
    assert (entry.size, entry.uid, entry.gid, entry.mtime_ns) == (5, 12, 0, 77_500_000_000)


def test_a_records_length_may_begin_with_zeros(unpack: Unpack) -> None:
    body = b"%041d" % (41 + len(b" path=name\n")) + b" path=name\n"
    header = Member("x", b"x", body, format="ustar").encode()
    assert unpack(header, file("f")).paths == ["name"]
