"""The tree writer by itself: no entry makes it change anything outside its tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from publisher.entry import Entry, EntryType
from publisher.layers.errors import NoTemporarySpace
from publisher.repository.descriptors import Directories, remove_at
from publisher.repository.directory import tree_writer
from publisher.repository.directory.tree_writer import TreeWriter
from tests.confined import confined
from tests.file_systems import LinkLimit, full_temporary_files
from tests.trees import assert_same_tree, describe_tree

FILE, DIRECTORY, SYMLINK = EntryType.FILE, EntryType.DIRECTORY, EntryType.SYMLINK
HARDLINK, WHITEOUT, FIFO = EntryType.HARDLINK, EntryType.WHITEOUT, EntryType.FIFO


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "tree"
    if (tmp_path / "tree").exists():  # perhaps nested deeper than pytest could remove it
        with Directories(tmp_path) as directories:
            remove_at(directories.root, "tree")


@pytest.fixture
def writer(tree: Path) -> Iterator[TreeWriter]:
    with TreeWriter(tree) as writer:
        yield writer


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


ATTACKS = [
    Entry("s/x", FILE),
    Entry("s/x", DIRECTORY),
    Entry("s/x", SYMLINK, target="y"),
    Entry("s/x", FIFO),
    Entry("s/x", WHITEOUT),
    Entry("s/canary", FILE),
    Entry("s/below/x", FILE),
    Entry("mine", HARDLINK, target="s/canary"),
    Entry("s/x", HARDLINK, target="file"),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda e: f"{e.type} {e.path}")
def test_a_path_through_a_symlink_is_refused_by_the_writer_itself(
    attack: Entry, tree: Path, writer: TreeWriter, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    (victim / "below").mkdir(parents=True)
    (victim / "canary").write_text("alive")
    before = describe_tree(victim)
    writer.add(Entry("", DIRECTORY, 0o755))
    writer.add(Entry("file", FILE))
    writer.add(Entry("s", SYMLINK, target=str(victim)))
    with pytest.raises(OSError, match=r"Not a directory"):
        writer.add(attack, [b"not yours"])
    assert describe_tree(victim) == before


@pytest.mark.parametrize("kind", [FILE, DIRECTORY, SYMLINK, FIFO, WHITEOUT, HARDLINK])
def test_a_symlink_is_replaced_and_not_followed(
    kind: EntryType, tree: Path, writer: TreeWriter, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("alive")
    writer.add(Entry("other", FILE, size=5), [b"other"])
    writer.add(Entry("s", SYMLINK, target=str(victim)))
    writer.add(Entry("s", kind, target="other", size=3), [b"new"] if kind is FILE else ())
    assert victim.read_text() == "alive"
    assert victim.stat().st_nlink == 1
    status = (tree / "s").lstat()
    assert stat.S_ISLNK(status.st_mode) == (kind is SYMLINK)


def test_a_directory_with_content_is_replaced_by_a_file_without_following_links(
    tree: Path, writer: TreeWriter, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "canary").write_text("alive")
    for path in "d", "d/e", "d/e/f":
        writer.add(Entry(path, DIRECTORY, 0o700))
    writer.add(Entry("d/e/out", SYMLINK, target=str(victim)))
    writer.add(Entry("d/e/f/x", FILE, size=1), [b"x"])
    writer.add(Entry("d", FILE, size=4), [b"file"])
    assert (tree / "d").read_bytes() == b"file"
    assert (victim / "canary").read_text() == "alive"
    assert os.listdir(tree) == ["d"]


def test_no_file_is_written_into_a_directory_that_was_replaced_by_a_link(
    tree: Path, writer: TreeWriter
) -> None:
    for path in "d", "d/e":
        writer.add(Entry(path, DIRECTORY, 0o755))
    before = len(os.listdir("/proc/self/fd"))
    writer.add(Entry("d", FILE))
    assert len(os.listdir("/proc/self/fd")) == before - 2
    for path in "d/x", "d/e/x":
        with pytest.raises(NotADirectoryError):
            writer.add(Entry(path, FILE))


def test_a_directory_of_two_thousand_levels_is_made_filled_and_replaced(
    tree: Path, writer: TreeWriter
) -> None:
    descriptors = open_descriptors()
    path = "d"
    writer.add(Entry(path, DIRECTORY, 0o700))
    for _ in range(2000):
        path += "/d"
        writer.add(Entry(path, DIRECTORY, 0o700, mtime_ns=5))
        writer.add(Entry(f"{path}f", FILE))
    writer.finish()
    assert open_descriptors() - descriptors <= 66
    writer.add(Entry("d", FILE, size=2), [b"ok"])
    assert (tree / "d").read_bytes() == b"ok"


def test_descriptors_are_bounded_and_all_closed(tree: Path) -> None:
    before = open_descriptors()
    with TreeWriter(tree) as writer:
        for number in range(500):
            writer.add(Entry(f"d{number}", DIRECTORY, 0o700))
        for number in range(500):
            writer.add(Entry(f"d{number}/f", FILE))
            writer.add(Entry(f"d{number}/h", HARDLINK, target=f"d{499 - number}/f")) if (
                number > 250
            ) else None
        assert open_descriptors() - before <= 66
        writer.finish()
    assert open_descriptors() == before


def test_a_directory_has_the_times_of_its_last_entry(tree: Path, writer: TreeWriter) -> None:
    writer.add(Entry("", DIRECTORY, 0o755, mtime_ns=1))
    writer.add(Entry("d", DIRECTORY, 0o755, mtime_ns=2))
    writer.add(Entry("d/odd\nname ", DIRECTORY, 0o755, mtime_ns=-3))
    writer.add(Entry("gone", DIRECTORY, 0o755, mtime_ns=4))
    writer.add(Entry("gone", SYMLINK, target="d", mtime_ns=5))
    writer.add(Entry("d", DIRECTORY, 0o755, mtime_ns=6))
    writer.add(Entry("d/f", FILE))
    writer.finish()
    assert tree.stat().st_mtime_ns == 1
    assert (tree / "d").stat().st_mtime_ns == 6
    assert (tree / "d/odd\nname ").stat().st_mtime_ns == -3
    assert (tree / "gone").lstat().st_mtime_ns == 5


def test_content_may_come_in_pieces_of_any_kind(tree: Path, writer: TreeWriter) -> None:
    pieces: Iterable[bytes | memoryview] = [b"a", memoryview(b"bc"), b"", b"d" * 100_000]
    writer.add(Entry("f", FILE, size=100_003), pieces)
    assert (tree / "f").read_bytes() == b"abc" + b"d" * 100_000


def test_more_hard_links_than_the_file_system_allows_become_names_of_a_copy(
    link_limit: LinkLimit,
) -> None:
    tree = link_limit.folder / "tree"
    with TreeWriter(tree) as writer:
        original = Entry(
            "f", FILE, 0o640, uid=os.geteuid(), size=4, mtime_ns=77, xattrs={"user.a": b"1"}
        )
        writer.add(original, [b"data"])
        for number in range(link_limit.most + 3):
            writer.add(Entry(f"h{number}", HARDLINK, target="f"))
        last = tree / f"h{link_limit.most + 2}"
        assert last.read_bytes() == b"data"
        status = last.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o640, 77)
        assert os.getxattr(last, "user.a") == b"1"
        assert (tree / "f").stat().st_nlink == link_limit.most
        assert writer.refused == {"hard link (EMLINK)": 4}
        copies = {(tree / f"h{link_limit.most - 1 + n}").stat().st_ino for n in range(4)}
        assert len(copies) == 1


def test_a_replaced_copy_gets_no_further_links(link_limit: LinkLimit) -> None:
    tree = link_limit.folder / "tree"
    with TreeWriter(tree) as writer:
        writer.add(Entry("f", FILE, size=4), [b"data"])
        for number in range(link_limit.most):
            writer.add(Entry(f"h{number}", HARDLINK, target="f"))
        copy = f"h{link_limit.most - 1}"
        writer.add(Entry(copy, FILE, size=5), [b"other"])
        writer.add(Entry("g", FILE, size=3), [b"new"])
        for name in "ab":
            writer.add(Entry(name, HARDLINK, target="f"))
        assert (tree / copy).read_bytes() == b"other"
        assert (tree / "a").read_bytes() == (tree / "b").read_bytes() == b"data"
        assert (tree / "a").stat().st_ino == (tree / "b").stat().st_ino


def test_a_tree_that_is_removed_while_it_is_written_is_an_error(
    tree: Path, writer: TreeWriter
) -> None:
    writer.add(Entry("d", DIRECTORY, 0o700))
    with Directories(tree.parent) as directories:
        remove_at(directories.root, tree.name)
    with pytest.raises(FileNotFoundError):
        writer.add(Entry("e", FILE))


def test_a_tree_is_removed_completely_and_nothing_else(tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "f").write_text("kept")
    top = tmp_path / "top"
    for path in "a/b/c", "a/d", "e":
        (top / path).mkdir(parents=True)
        (top / path / "file").write_text("x")
        (top / path / "out").symlink_to(beside)
    os.chmod(top / "a/b", 0o700)
    with Directories(tmp_path) as directories:
        remove_at(directories.root, "top")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["beside"]
    assert (beside / "f").read_text() == "kept"


def test_closing_twice_does_no_harm(tree: Path) -> None:
    writer = TreeWriter(tree)
    writer.close()
    writer.close()


def test_a_confined_process_writes_the_same_tree(tmp_path: Path) -> None:
    """/proc is missing there, and with it the path by which modes of nodes are set elsewhere."""
    entries = [
        Entry("", DIRECTORY, 0o755, 1, 2, mtime_ns=10**9),
        Entry("d", DIRECTORY, 0o2775, 3, 4, mtime_ns=2 * 10**9, xattrs={"user.a": b"b"}),
        Entry("d/file", FILE, 0o640, 5, 6, mtime_ns=3 * 10**9),
        Entry("d/fifo", FIFO, 0o622, 7, 8, mtime_ns=4 * 10**9),
        Entry("d/symlink", SYMLINK, target="/etc/passwd", uid=9, gid=10, mtime_ns=5 * 10**9),
        Entry("hard link", HARDLINK, target="d/file"),
        Entry("d/gone", WHITEOUT),
    ]

    def write(tree: Path) -> None:
        with TreeWriter(tree) as writer:
            for entry in entries:
                writer.add(entry, [b"content"] if entry.type is FILE else ())
            writer.finish()

    write(tmp_path / "unconfined")
    (tmp_path / "staging").mkdir()
    assert confined(lambda _: write(Path("tree")), tmp_path / "staging") == ""
    assert_same_tree(tmp_path / "staging/tree", tmp_path / "unconfined", directory_times=True)


@pytest.mark.parametrize("directories", [10, 20_000])
def test_a_full_disk_of_temporary_files_is_not_taken_for_that_of_the_tree(
    directories: int, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noticed when a record is written, or at the end."""
    monkeypatch.setattr(tree_writer, "_TIMES_IN_MEMORY", 1)
    with full_temporary_files(tmp_path / "full"):
        (tmp_path / "full/other").write_bytes(bytes(2**15 if directories > 10 else 2**16))
        with pytest.raises(NoTemporarySpace, match=r"times of its directories.*TMPDIR"):
            with TreeWriter(tree) as writer:
                for number in range(directories):
                    writer.add(Entry(f"directory-{number}", DIRECTORY))
                writer.finish()
