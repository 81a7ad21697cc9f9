"""Flat images of hard links; layer trees completed from lower layers."""

from __future__ import annotations

import errno
import os
import resource
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.entry import Entry, EntryType, Fixup, Merged
from publisher.repository.directory.linker import apply_fixups, link_tree
from publisher.repository.directory.tree_writer import TreeWriter
from tests.file_systems import LinkLimit
from tests.trees import assert_same_tree, describe_tree, tree_identity

FILE, DIRECTORY, SYMLINK = EntryType.FILE, EntryType.DIRECTORY, EntryType.SYMLINK
HARDLINK, WHITEOUT, FIFO = EntryType.HARDLINK, EntryType.WHITEOUT, EntryType.FIFO
ROOT = Entry("", DIRECTORY, 0o755)


def make(tree: Path, *entries: Entry) -> Path:
    with TreeWriter(tree) as writer:
        for entry in entries:
            writer.add(entry, [b"x" * entry.size])
        writer.finish()
    return tree


def plan(*entries: Entry, layer: int = 0) -> Iterator[Merged]:
    return (Merged(entry, layer, entry.path) for entry in entries)


EVERYTHING = (
    Entry("", DIRECTORY, 0o751, mtime_ns=1),
    Entry("a", DIRECTORY, 0o700, mtime_ns=2, xattrs={"user.k": b"v"}),
    Entry("a/f", FILE, 0o640, uid=5, size=3, mtime_ns=3),
    Entry("a/p", FIFO, 0o600, mtime_ns=4),
    Entry("a/s", SYMLINK, 0o777, target="/nowhere", mtime_ns=5),
    Entry("b", DIRECTORY, 0o1777, uid=6, mtime_ns=6),
    Entry("b/c", DIRECTORY, 0o755, mtime_ns=7),
    Entry("b/h", HARDLINK, target="a/f"),
)


def test_a_flat_image_of_one_layer_is_the_layer(tmp_path: Path) -> None:
    tree = make(tmp_path / "layer", *EVERYTHING)
    report = link_tree(tmp_path / "flat", plan(*EVERYTHING), [tree])
    assert_same_tree(tmp_path / "flat", tree, directory_times=True)
    assert (report.directories, report.links, report.copies, report.refused) == (4, 4, 0, {})
    assert os.path.samefile(tmp_path / "flat/a/f", tree / "a/f")


def test_layer_trees_are_not_written_to(tmp_path: Path) -> None:
    tree = make(tmp_path / "layer", *EVERYTHING)
    before = describe_tree(tree)
    inodes = {path: (i[0], i[1]) for path, i in tree_identity(tree).items()}
    link_tree(tmp_path / "flat", plan(*EVERYTHING), [tree])
    assert describe_tree(tree) == before
    assert {path: (i[0], i[1]) for path, i in tree_identity(tree).items()} == inodes


def test_content_comes_from_the_layer_and_path_in_the_plan(tmp_path: Path) -> None:
    one = make(tmp_path / "one", ROOT, Entry("f", FILE, size=1), Entry("g", FILE, size=2))
    two = make(tmp_path / "two", ROOT, Entry("f", FILE, size=3))
    steps = [
        Merged(ROOT, 1, ""),
        Merged(Entry("f", FILE), 1, "f"),
        Merged(Entry("new", FILE), 0, "g"),
    ]
    link_tree(tmp_path / "flat", steps, [one, two])
    assert (tmp_path / "flat/f").stat().st_size == 3
    assert (tmp_path / "flat/new").stat().st_size == 2


@pytest.fixture
def other_file_system() -> Iterator[Path]:
    if not os.path.ismount("/dev/shm"):
        pytest.skip("needs a second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


def test_content_of_another_file_system_is_copied_once_and_reported(
    tmp_path: Path, other_file_system: Path
) -> None:
    tree = make(other_file_system / "layer", *EVERYTHING)
    report = link_tree(tmp_path / "flat", plan(*EVERYTHING), [tree])
    assert_same_tree(tmp_path / "flat", tree, directory_times=True)
    assert (report.links, report.copies) == (1, 3)  # the second name links to the first's copy
    assert report.refused == {"hard link (EXDEV)": 3}


def test_a_file_with_the_maximum_of_links_is_copied(link_limit: LinkLimit) -> None:
    place = link_limit.folder
    tree = make(place / "layer", ROOT, Entry("f", FILE, 0o600, size=4, mtime_ns=9))
    (place / "links").mkdir()
    for number in range(link_limit.most - 2):
        os.link(tree / "f", place / "links" / str(number))
    files = [Entry(name, FILE, 0o600) for name in "abc"]
    steps = [Merged(ROOT, 0, ""), *(Merged(entry, 0, "f") for entry in files)]
    report = link_tree(place / "flat", steps, [tree])
    assert (report.links, report.copies) == (2, 1)  # the third is a hard link to the copy
    assert report.refused == {"hard link (EMLINK)": 2}
    for name in "abc":
        assert (place / "flat" / name).read_bytes() == b"xxxx"
        assert (place / "flat" / name).stat().st_mtime_ns == 9


def test_a_missing_layer_tree_raises_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        link_tree(tmp_path / "flat", plan(ROOT, Entry("f", FILE)), [tmp_path / "gone"])


def test_links_in_a_modified_layer_tree_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "f").write_text("secret")
    tree = make(tmp_path / "layer", ROOT)
    (tree / "d").symlink_to(victim)
    steps = plan(ROOT, Entry("d", DIRECTORY, 0o755), Entry("d/f", FILE))
    with pytest.raises(NotADirectoryError):
        link_tree(tmp_path / "flat", steps, [tree])


def test_a_destination_that_is_in_use_is_an_error(tmp_path: Path) -> None:
    tree = make(tmp_path / "layer", ROOT, Entry("f", FILE, size=1))
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/f").write_text("mine")
    with pytest.raises(FileExistsError):
        link_tree(tmp_path / "flat", plan(ROOT, Entry("f", FILE)), [tree])
    assert (tmp_path / "flat/f").read_text() == "mine"


def test_open_descriptors_do_not_grow_with_depth_or_number_of_directories(tmp_path: Path) -> None:
    deep = [Entry("/".join("d" * n), DIRECTORY, 0o755, mtime_ns=n) for n in range(1, 400)]
    wide = [Entry(f"w{n:04}", DIRECTORY, 0o755, mtime_ns=n) for n in range(400)]
    files = [Entry(f"{entry.path}/f", FILE) for entry in (*deep, *wide)]
    entries = sorted(
        (ROOT, *deep, *wide, *files), key=lambda e: e.path.split("/") if e.path else []
    )
    tree = make(tmp_path / "layer", *entries)
    most = 0

    def watched() -> Iterator[Merged]:
        nonlocal most
        for step in plan(*entries):
            most = max(most, len(os.listdir("/proc/self/fd")))
            yield step

    before = len(os.listdir("/proc/self/fd"))
    link_tree(tmp_path / "flat", watched(), [tree])
    assert most - before <= 2 * 66
    assert len(os.listdir("/proc/self/fd")) == before
    assert_same_tree(tmp_path / "flat", tree, directory_times=True)


def test_an_image_of_many_layers_opens_no_more_directories_than_a_process_may(
    tmp_path: Path,
) -> None:
    entries = [ROOT, *(Entry(f"d{n}", DIRECTORY, 0o755) for n in range(40))]
    files = [[Entry(f"d{n}/{layer}", FILE) for n in range(40)] for layer in range(40)]
    trees = [
        make(tmp_path / f"layer-{number}", *entries, *mine) for number, mine in enumerate(files)
    ]
    steps = [Merged(ROOT, 0, "")]
    for number, directory in enumerate(entries[1:]):
        steps.append(Merged(directory, 0, directory.path))
        steps += [Merged(mine[number], n, mine[number].path) for n, mine in enumerate(files)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (700, hard))
    try:
        report = link_tree(tmp_path / "flat", steps, trees)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (report.directories, report.links) == (41, 1600)


def test_names_that_share_a_file_below_share_its_copy(tmp_path: Path) -> None:
    second = Entry("g", HARDLINK, target="f")
    lower = make(tmp_path / "lower", ROOT, Entry("f", FILE, size=4), second)
    upper = make(tmp_path / "upper", ROOT)
    needed = [Fixup(Entry(name, FILE), 0, source) for name, source in ("af", "bf", "cg")]
    for _ in range(2):
        apply_fixups(upper, needed, [lower])
        assert {(upper / name).stat().st_nlink for name in "abc"} == {3}
        assert (upper / "c").read_bytes() == b"xxxx"
    assert (lower / "f").stat().st_nlink == 2


def test_fixups_complete_a_tree_and_may_be_repeated(tmp_path: Path) -> None:
    lower = make(
        tmp_path / "lower",
        ROOT,
        Entry("f", FILE, 0o640, uid=3, size=7, mtime_ns=11, xattrs={"user.a": b"1"}),
        Entry("s", SYMLINK, target="f", mtime_ns=12),
        Entry("p", FIFO, 0o644, mtime_ns=13),
    )
    upper = make(
        tmp_path / "upper",
        Entry("", DIRECTORY, 0o755, mtime_ns=1),
        Entry("d", DIRECTORY, 0o755, mtime_ns=2),
    )
    fixups = [
        Fixup(Entry("d", DIRECTORY, 0o710, uid=4, mtime_ns=20, opaque=True)),
        Fixup(Entry("d/copy", FILE), 0, "f"),
        Fixup(Entry("d/gone", WHITEOUT)),
        Fixup(Entry("d/p", FIFO), 0, "p"),
        Fixup(Entry("d/s", SYMLINK), 0, "s"),
    ]
    for _ in range(2):
        apply_fixups(upper, fixups, [lower])
        copied = describe_tree(upper)
        assert copied["d"].mode == 0o710
        assert copied["d"].mtime_ns == 20
        assert copied[""].mtime_ns == 1
        original = describe_tree(lower)
        for copy, source in ("d/copy", "f"), ("d/s", "s"), ("d/p", "p"):
            assert copied[copy] == original[source]
        assert stat.S_ISCHR((upper / "d/gone").lstat().st_mode)
        of_root = ["trusted.overlay.opaque"] if os.geteuid() == 0 else []
        assert sorted(os.listxattr(upper / "d")) == [*of_root, "user.overlay.opaque"]
    assert (upper / "d/copy").stat().st_nlink == 1


def test_fixups_are_never_applied_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    before = tree_identity(victim)
    tree = make(tmp_path / "layer", ROOT, Entry("d", SYMLINK, target=str(victim)))
    for fixup in Fixup(Entry("d/w", WHITEOUT)), Fixup(Entry("d", DIRECTORY, 0o700)):
        with pytest.raises(OSError) as caught:
            apply_fixups(tree, [fixup], [])
        assert caught.value.errno in (errno.ENOTDIR, errno.ELOOP)
    assert tree_identity(victim) == before


def test_open_directories_do_not_grow_with_the_number_of_layers(tmp_path: Path) -> None:
    def most_open(count: int) -> int:
        place = tmp_path / str(count)
        place.mkdir()
        trees = [
            make(place / f"layer-{n}", ROOT, Entry(f"f{n:03}", FILE, size=1)) for n in range(count)
        ]
        most = 0

        def watched() -> Iterator[Merged]:
            nonlocal most
            yield Merged(ROOT, 0, "")
            for n in range(count):
                yield Merged(Entry(f"f{n:03}", FILE, size=1), n, f"f{n:03}")
                most = max(most, len(os.listdir("/proc/self/fd")))

        assert link_tree(place / "flat", watched(), trees).links == count
        return most

    assert most_open(40) == most_open(120)
