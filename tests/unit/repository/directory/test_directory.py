"""A directory as a published tree: readers see all of a transaction, or nothing of it."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from publisher.errors import PublisherError
from publisher.layers.fixups import fixups
from publisher.layers.index import read_index
from publisher.layers.merge import merge
from publisher.layers.policy import Policy
from publisher.layers.unpack import unpack
from publisher.oci.manifest import parse_published_manifest
from publisher.repository import PathTaken, RepositoryChanged, RepositoryError
from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from tests import layer_builder as build
from tests.components import require_mounts, run
from tests.trees import Tree, describe_tree, tree_identity

BASE = build.layer(
    build.directory("etc"),
    build.file("etc/motd", b"welcome"),
    build.symlink("motd", "etc/motd"),
    build.directory("opt", mode=0o700),
)
TOP = build.layer(build.whiteout("etc/motd"), build.file("etc/new", b"new"))
OTHER = build.layer(build.file("other", b"other"))
IMAGE = build.image(BASE, TOP)
MOVED = build.image(BASE, OTHER)
NAME = "registry.example.org/team/tool:1.0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def repository(root: Path) -> Iterator[DirectoryRepository]:
    opened = opened_at(root)
    yield opened
    opened.close()


def opened_at(root: Path, *, writable: bool = True) -> DirectoryRepository:
    return DirectoryRepository(
        RepositoryURL("dir", str(root)), writable=writable, may_be_new=writable, wait=5
    )


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_a_new_repository_is_open_to_readers_and_an_existing_one_keeps_its_mode(
    root: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        opened_at(root).close()
        assert stat.S_IMODE(root.stat().st_mode) == 0o755
        root.chmod(0o750)
        opened_at(root).close()
        assert stat.S_IMODE(root.stat().st_mode) == 0o750
    finally:
        os.umask(before)


def stage(repository: DirectoryRepository, layer: build.Layer) -> None:
    with repository.stage_layer(layer.digest) as stage:
        with stage.open_files() as files:
            unpack(
                *(layer.chunks(), layer.descriptor, layer.diff_id),
                *(files.sink, files.index, Policy()),
            )
        stage.finish()


def publish(
    repository: DirectoryRepository,
    image: build.Image = IMAGE,
    name: str = NAME,
    *,
    before_commit: Callable[[], object] = lambda: None,
) -> None:
    """Publish as an ingest does: layers, flat image, manifest and link in one transaction."""
    for layer in image.layers:
        if not repository.has_layer(layer.digest):
            stage(repository, layer)
    digests = [layer.digest for layer in image.layers]
    with repository.transaction("test") as transaction, ExitStack() as stack:

        def indexes(count: int) -> list[object]:
            files = [stack.enter_context(repository.open_index(d)) for d in digests[:count]]
            return [read_index(file) for file in files]

        if not repository.exists(layout.flat_image(image.image_id)):
            plan = merge(indexes(len(digests)))  # type: ignore[arg-type]
            transaction.link(layout.flat_image(image.image_id), plan, digests)
        with transaction.exclusive():
            for number, digest in enumerate(digests):
                needed = list(fixups(indexes(number + 1)))  # type: ignore[arg-type]
                transaction.add_layer(digest, needed, digests[:number])
            transaction.replace(layout.manifest_file(name), image.manifest.data)
            transaction.symlink(name, layout.link_target(name, image.image_id))
            before_commit()
            transaction.commit()


def visible(root: Path) -> Tree:
    """The tree as readers see it, without the times of directories."""
    return {
        path: node
        for path, node in describe_tree(root).items()
        if path and not path.startswith(f"{layout.STATE}")
    }


def private(root: Path) -> list[str]:
    """The content of the staging space without locks, drafts, the lock's holder and the history."""
    state = root / layout.STATE
    return sorted(
        path.relative_to(state).as_posix()
        for path in state.rglob("*")
        if path.suffix not in (".lock", ".draft", ".jsonl")
        and path.name not in ("lock", "holder.json", "sessions", "trash", "layers")
    )


@dataclass(frozen=True)
class Broken:
    """A violated guarantee to readers."""

    what: str


def broken_promises(root: Path) -> list[Broken]:
    """Dangling public links, manifests without content, and partial trees: always empty."""
    broken = []
    reader = opened_at(root, writable=False)
    for name in reader.names():
        data = reader.read(layout.manifest_file(name))
        assert data is not None
        manifest = parse_published_manifest(data)
        for layer in manifest.layers:
            tree = root / layout.layer_tree(layer.digest)
            if not tree.is_dir() or not (root / layout.layer_index(layer.digest)).is_file():
                broken.append(Broken(f"{name} names {tree}, which is incomplete"))
        if not (root / layout.flat_image(manifest.image_id)).is_dir():
            broken.append(Broken(f"{name} has no flat image"))
    for directory, _, files in os.walk(root):
        for file in files:
            path = Path(directory, file)
            public = not path.relative_to(root).parts[0].startswith(".")
            if public and path.is_symlink() and not path.is_dir():
                broken.append(Broken(f"{path} is dangling"))
    return broken


# One transaction


def test_nothing_is_visible_before_the_commit_and_everything_after_it(
    repository: DirectoryRepository, root: Path
) -> None:
    seen: list[Tree] = []
    publish(repository, before_commit=lambda: seen.append(visible(root)))
    assert list(seen[0]) == [layout.METADATA]
    assert (root / NAME / "etc/new").read_bytes() == b"new"
    assert not (root / NAME / "etc/motd").exists()
    assert os.readlink(root / NAME / "motd") == "etc/motd"
    assert repository.read(layout.manifest_file(NAME)) == IMAGE.manifest.data
    assert broken_promises(root) == []
    assert [name for name in private(root) if not name.startswith("sessions/")] == []


def test_without_a_commit_only_finished_layers_remain(
    repository: DirectoryRepository, root: Path
) -> None:
    before = visible(root)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        publish(repository, before_commit=fail)
    assert visible(root) == before
    assert repository.has_layer(BASE.digest)
    repository.close()
    waiting = {name.split("/")[1] for name in private(root)}
    # One that was already being completed for this image may have to be fetched again.
    base, top = (layer.digest.removeprefix("sha256:") for layer in (BASE, TOP))
    assert {base} <= waiting <= {base, top}
    again = opened_at(root)
    publish(again)
    again.close()
    assert broken_promises(root) == []
    assert (root / NAME / "etc/new").read_bytes() == b"new"


def test_the_files_of_a_flat_image_are_hard_links(
    repository: DirectoryRepository, root: Path
) -> None:
    publish(repository)
    flat = root / layout.flat_image(IMAGE.image_id)
    layer = root / layout.layer_tree(TOP.digest)
    assert (flat / "etc/new").samefile(layer / "etc/new")


def test_readers_never_see_part_of_a_commit(
    repository: DirectoryRepository, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    rename = os.rename

    def checked(source: str | Path, target: str | Path, **others: int) -> None:
        assert broken_promises(root) == [], f"before {target}"
        rename(source, target, **others)
        assert broken_promises(root) == [], f"after {target}"
        steps.append(str(target))

    monkeypatch.setattr(os, "rename", checked)
    publish(repository)
    publish(repository, MOVED)
    with repository.transaction("test") as transaction, transaction.exclusive():
        transaction.remove(NAME)
        transaction.remove(layout.image_metadata(NAME))
        transaction.remove(layout.flat_image(MOVED.image_id))
        transaction.remove(layout.layer_directory(OTHER.digest))
        transaction.commit()
    assert len(steps) > 12
    assert broken_promises(root) == []


def test_a_moved_link_is_at_every_moment_the_old_or_the_new_one(
    repository: DirectoryRepository, root: Path
) -> None:
    publish(repository, IMAGE)
    publish(repository, MOVED, "registry.example.org/team/tool:2.0")
    allowed = {layout.link_target(NAME, image.image_id) for image in (IMAGE, MOVED)}
    seen: set[str | None] = set()
    done = threading.Event()

    def read() -> None:
        reader = opened_at(root, writable=False)
        while not done.is_set():
            seen.add(reader.link_text(NAME))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for number in range(60):
            publish(repository, (MOVED, IMAGE)[number % 2])
    finally:
        done.set()
        thread.join()
    assert seen == allowed


def test_only_the_named_tree_is_removed(repository: DirectoryRepository, root: Path) -> None:
    publish(repository)
    before = visible(root)
    gone = layout.flat_image(IMAGE.image_id)
    with repository.transaction("test") as transaction, transaction.exclusive():
        transaction.remove(gone)
        transaction.remove("never/was/there")
        transaction.commit()
    after = visible(root)
    assert not any(path.startswith(gone) for path in after)
    # Directories that become empty are removed as well.
    emptied = {".flat", str(Path(gone).parent)}
    assert {p for p in before if not p.startswith(gone)} - emptied == set(after)
    # Files that were shared with a layer tree still exist.
    assert (root / layout.layer_tree(TOP.digest) / "etc/new").read_bytes() == b"new"
    assert not list((root / layout.STATE / "trash").iterdir())


def test_a_transaction_without_a_change_does_not_touch_anything(
    repository: DirectoryRepository, root: Path
) -> None:
    publish(repository)
    before = {p: i for p, i in tree_identity(root).items() if not p.startswith(layout.STATE)}
    with repository.transaction("test") as transaction, transaction.exclusive():
        transaction.commit()
    after = {p: i for p, i in tree_identity(root).items() if not p.startswith(layout.STATE)}
    assert after == before


def test_content_that_another_publisher_published_concurrently_stays(
    repository: DirectoryRepository, root: Path
) -> None:
    other = opened_at(root)
    stage(repository, BASE)
    stage(repository, TOP)

    # The flat image is linked here, published by the other, and published here again.
    with repository.transaction("slow") as transaction, ExitStack() as stack:
        files = [stack.enter_context(repository.open_index(layer.digest)) for layer in IMAGE.layers]
        flat = layout.flat_image(IMAGE.image_id)
        digests = [layer.digest for layer in IMAGE.layers]
        transaction.link(flat, merge([read_index(file) for file in files]), digests)
        publish(other)
        inode = (root / flat).stat().st_ino
        with transaction.exclusive():
            for digest in digests:
                transaction.add_layer(digest, (), ())
            transaction.symlink("registry.example.org/x:1", f"../{flat}")
            transaction.commit()
    assert (root / flat).stat().st_ino == inode
    assert (root / "registry.example.org/x:1/etc/new").read_bytes() == b"new"
    other.close()


def test_linking_to_a_removed_layer_raises_repository_changed(
    repository: DirectoryRepository,
) -> None:
    with repository.transaction("test") as transaction:
        with pytest.raises(RepositoryChanged, match=BASE.digest):
            transaction.link(layout.flat_image(IMAGE.image_id), (), [BASE.digest])
    with pytest.raises(RepositoryChanged, match=BASE.digest):
        repository.open_index(BASE.digest)


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_all_users_can_read_published_files_whatever_the_umask_is(
    tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        repository = opened_at(tmp_path / "images")
        publish(repository)
        repository.close()
    finally:
        os.umask(before)
    root = tmp_path / "images"
    for path, node in visible(root).items():
        inside = "/layerfs/" in path or (path.startswith(".flat/") and path.count("/") > 2)
        if node.type in "df" and not inside:
            wanted = 0o755 if node.type == "d" else 0o644
            assert node.mode == wanted, path
        assert not node.mode & 0o022 or node.type == "l", path
    assert stat.S_IMODE((root / layout.STATE).stat().st_mode) == 0o700
    # Modes inside the image are not changed.
    assert stat.S_IMODE((root / NAME / "opt").stat().st_mode) == 0o700


# Obstacles


def test_a_foreign_directory_at_the_path_of_a_link_is_refused_before_any_change(
    repository: DirectoryRepository, root: Path
) -> None:
    (root / NAME).mkdir(parents=True)
    (root / NAME / "precious").write_text("mine")
    before = visible(root)
    with pytest.raises(PublisherError, match="a directory that the publisher did not make"):
        publish(repository)
    assert visible(root) == before
    (root / NAME / "precious").unlink()
    (root / NAME).rmdir()
    publish(repository)
    assert broken_promises(root) == []


def test_a_file_at_the_path_of_a_directory_is_refused_before_any_change(
    repository: DirectoryRepository, root: Path
) -> None:
    (root / "registry.example.org").write_text("mine")
    before = visible(root)
    with pytest.raises(PublisherError, match="is not a directory"):
        publish(repository)
    assert visible(root) == before


def test_a_foreign_path_fails_one_image_and_not_the_run(
    repository: DirectoryRepository, root: Path
) -> None:
    (root / NAME).mkdir(parents=True)
    with pytest.raises(PublisherError) as caught:
        publish(repository)
    assert not isinstance(caught.value, RepositoryError)
    publish(repository, name="registry.example.org/team/other:1")
    assert broken_promises(root) == []


# Opening


def test_a_directory_with_foreign_content_does_not_become_a_repository(root: Path) -> None:
    root.mkdir()
    (root / "thesis.tex").write_text("precious")
    with pytest.raises(RepositoryError, match=r"thesis\.tex") as caught:
        opened_at(root)
    assert "empty directory" in caught.value.hint
    assert [path.name for path in root.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("present", [[], ["lost+found"], [".flat"], [".metadata", "quay.io"]])
def test_an_empty_directory_or_a_published_tree_is_accepted(root: Path, present: list[str]) -> None:
    for name in present:
        (root / name).mkdir(parents=True)
    repository = opened_at(root)
    publish(repository)
    assert broken_promises(root) == []
    repository.close()


def test_a_missing_parent_is_not_created_since_it_may_be_a_missing_mount(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="does not exist") as caught:
        opened_at(tmp_path / "mnt" / "images")
    assert "mount" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_repository_that_is_expected_is_not_created(root: Path) -> None:
    with pytest.raises(RepositoryError, match="does not exist") as caught:
        DirectoryRepository(RepositoryURL("dir", str(root)), writable=True)
    assert "--repository" in caught.value.hint
    assert not root.exists()


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("path", ["file", "file/images", "loop", "x" * 300])
def test_a_path_that_cannot_be_a_repository_is_refused_with_a_repository_error(
    tmp_path: Path, path: str, writable: bool
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RepositoryError):
        opened_at(tmp_path / path, writable=writable)


def test_a_directory_that_was_never_published_into_cannot_be_read_as_a_repository(
    tmp_path: Path,
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RepositoryError, match="or begin with `publisher init`"):
        list(opened_at(tmp_path, writable=False).names())


def test_a_repository_keeps_its_directory_if_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    repository = opened_at(Path("images"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    publish(repository)
    repository.close()
    assert broken_promises(tmp_path / "images") == []
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_repository_may_be_reached_through_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "images").symlink_to("real")
    repository = opened_at(tmp_path / "images")
    publish(repository)
    repository.close()
    assert broken_promises(tmp_path / "real") == []


# Reading


def test_reading_changes_nothing(repository: DirectoryRepository, root: Path) -> None:
    publish(repository)
    before = tree_identity(root)
    reader = opened_at(root, writable=False)
    assert list(reader.names()) == [NAME]
    assert reader.has_layer(BASE.digest)
    with reader.open_index(BASE.digest) as file:
        assert [entry.path for entry in read_index(file)] == ["", "etc", "etc/motd", "motd", "opt"]
    reader.close()
    assert tree_identity(root) == before


def test_names_are_sorted_and_only_of_what_is_published(
    repository: DirectoryRepository, root: Path
) -> None:
    names = ["quay.io/a/b:2", NAME, "local/tool:1", ".multiarch/arm64/quay.io/a/b:1", "quay.io/a:1"]
    for name in names:
        publish(repository, name=name)
    with repository.transaction("test") as transaction, transaction.exclusive():
        retired = layout.retired_directory(IMAGE.manifest.digest)
        transaction.replace(f"{retired}/{layout.MANIFEST_FILE}", IMAGE.manifest.data)
        transaction.commit()
    assert list(repository.names()) == sorted(names)


def test_names_may_vanish_while_they_are_listed(
    repository: DirectoryRepository, root: Path
) -> None:
    names = [f"quay.io/{owner}/tool:1" for owner in "abc"]
    for name in names:
        publish(repository, name=name)
    listing = opened_at(root, writable=False).names()
    assert next(listing) == names[0]
    with repository.transaction("test") as transaction, transaction.exclusive():
        for owner in "bc":
            transaction.remove(f"quay.io/{owner}/tool:1")
            transaction.remove(f"{layout.METADATA}/quay.io/{owner}")
        transaction.commit()
    assert list(listing) == []


def test_reading_a_missing_path_or_another_type_returns_none(
    repository: DirectoryRepository, root: Path
) -> None:
    publish(repository)
    (root / "dangling").symlink_to("nowhere")
    assert repository.read("quay.io/nothing") is None
    assert repository.read(f"{layout.manifest_file(NAME)}/below/a/file") is None
    assert repository.link_text("quay.io/nothing") is None
    assert repository.link_text(layout.manifest_file(NAME)) is None
    assert repository.link_text(f"{layout.manifest_file(NAME)}/below") is None
    assert repository.link_text("dangling") == "nowhere"
    assert repository.exists("dangling")
    assert not repository.exists("quay.io/nothing")


# Killed


_DYING = """
import os, signal, sys
from pathlib import Path
from tests.unit.repository.directory.test_directory import IMAGE, MOVED, opened_at, publish

steps = int(sys.argv[2])
rename = os.rename

def counted(*arguments, **named):
    global steps
    if steps == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    steps -= 1
    return rename(*arguments, **named)

repository = opened_at(Path(sys.argv[1]))
publish(repository)
os.rename = counted
publish(repository, MOVED)
repository.close()
"""


def test_a_publisher_that_is_killed_leaves_the_state_before_or_after(tmp_path: Path) -> None:
    root = tmp_path / "reference"
    repository = opened_at(root)
    publish(repository)
    before = _shape(root)
    publish(repository, MOVED)
    after = _shape(root)
    repository.close()

    results = []
    for steps in range(100):
        root = tmp_path / str(steps)
        child = subprocess.run(
            [sys.executable, "-c", _DYING, str(root), str(steps)],
            cwd=Path(__file__).parents[4],
            capture_output=True,
            check=False,
        )
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, child.stderr.decode()
        assert broken_promises(root) == [], steps
        repository = opened_at(root)
        with repository.transaction("next") as transaction, transaction.exclusive():
            pass
        repository.close()
        assert broken_promises(root) == [], steps
        left = _shape(root)
        assert left in (before, after), f"killed before rename {steps}"
        results.append(left == after)
        assert [name for name in private(root) if not name.startswith("layers/")] == []
    assert child.returncode == 0
    # Some kills are before the commit point, some after it, and the order never reverses.
    assert results == sorted(results)
    assert {True, False} == set(results)


def _shape(root: Path) -> dict[str, tuple[str, int, str, str]]:
    return {p: (n.type, n.mode, n.sha256, n.target) for p, n in visible(root).items()}


def test_a_commit_interrupted_after_its_commit_point_keeps_its_sources(
    repository: DirectoryRepository, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == root / "b":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(RepositoryError, match="of which nothing is lost"):
        with repository.transaction("test") as transaction, transaction.exclusive():
            transaction.replace("a", b"first")
            transaction.replace("b", b"second")
            transaction.commit()
    repository.close()
    monkeypatch.undo()
    assert not (root / "b").exists()
    opened_at(root).close()  # any command that writes
    assert ((root / "a").read_bytes(), (root / "b").read_bytes()) == (b"first", b"second")
    assert not any((root / layout.STATE / "sessions").iterdir())


@pytest.mark.parametrize("place", [".layers", "mounted"])
def test_a_bind_mount_in_the_tree_is_refused_before_any_change(
    root: Path, tmp_path: Path, place: str
) -> None:
    """It has the device number of the rest, and nothing can be renamed into it."""
    require_mounts()
    (root / ".layers").mkdir(parents=True)
    repository = opened_at(root)
    (root / place).mkdir(exist_ok=True)
    (tmp_path / "elsewhere").mkdir()
    run("mount", "--bind", tmp_path / "elsewhere", root / place)
    try:
        with repository.transaction("test") as transaction, transaction.exclusive():
            transaction.replace("fine", b"new")
            transaction.replace(f"{place}/below/new", b"new")
            with pytest.raises(PathTaken, match=f"cannot publish {place}") as caught:
                transaction.commit()
        assert "mount point" in caught.value.why
        assert not repository.unfinished()
        assert not repository.exists("fine")
        assert list((tmp_path / "elsewhere").iterdir()) == []
    finally:
        repository.close()
        run("umount", root / place)
