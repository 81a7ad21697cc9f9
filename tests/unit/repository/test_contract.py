"""The contract of `Repository` and `Transaction`, checked with every kind of repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from publisher.entry import EntryType
from publisher.ingest.run import ingest
from publisher.layers.fixups import fixups
from publisher.layers.index import read_index
from publisher.layers.merge import merge
from publisher.layers.policy import Policy
from publisher.layers.unpack import unpack
from publisher.repository import PathTaken, Repository, RepositoryChanged
from publisher.repository.damaged import read_damaged
from publisher.repository.directory.repository import DirectoryRepository
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from publisher.tree.record import InvalidRecord, Unreadable
from publisher.verify.findings import Kind
from publisher.verify.repair import repair
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests import layer_builder as build
from tests.memory_repository import MemoryRepository
from tests.transactions.scenarios import BASE, FIRST, SECOND, TOP, Stage
from tests.trees import owned

NAME = "local/tool:1"
FLAT = layout.flat_image(SECOND.image_id)


def in_directory(folder: Path) -> Repository:
    return DirectoryRepository(
        RepositoryURL("dir", str(folder / "images")), writable=True, may_be_new=True
    )


@pytest.fixture(params=["directory", "memory"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repository]:
    opened: Repository = MemoryRepository()
    if request.param == "directory":
        opened = in_directory(tmp_path)
    yield opened
    opened.close()


def stage(repository: Repository, layer: build.Layer) -> None:
    with repository.stage_layer(layer.digest) as staged:
        chunks = staged.keep(layer.chunks())
        with staged.open_files() as files:
            unpack(chunks, layer.descriptor, layer.diff_id, files.sink, files.index, Policy())
        staged.finish()


def publish(repository: Repository, image: build.Image = SECOND, *, anew: bool = False) -> None:
    for layer in image.layers:
        if anew or not repository.has_layer(layer.digest):
            stage(repository, layer)
    digests = [layer.digest for layer in image.layers]
    with repository.transaction("test") as transaction, ExitStack() as stack:
        files = [stack.enter_context(repository.open_index(digest)) for digest in digests]
        indexes = [read_index(file) for file in files]
        needed = [list(fixups(indexes[: n + 1])) for n in range(len(indexes))]
        flat = layout.flat_image(image.image_id)
        transaction.link(flat, merge(indexes), digests, anew=anew)
        with transaction.exclusive():
            for number, digest in enumerate(digests):
                transaction.add_layer(digest, needed[number], digests[:number], anew=anew)
            transaction.replace(layout.manifest_file(NAME), image.manifest.data)
            transaction.symlink(NAME, layout.link_target(NAME, image.image_id))
            transaction.record(NAME, "published", "because of a test")
            transaction.commit()


def seen(
    repository: Repository, owner: Callable[[int, int], object] = lambda uid, gid: (uid, gid)
) -> dict[str, object]:
    """The tree without the times of the publisher's own files, and without its state.

    `owner` returns the value that represents a user and a group.
    """
    found: dict[str, object] = {}
    for each in repository.walk(""):
        entry = each.entry
        in_flat_image = entry.path.startswith(layout.FLAT) and entry.path.count("/") > 1
        is_content = "layerfs" in entry.path or in_flat_image
        if entry.path.startswith(layout.STATE) or not entry.path:
            continue
        content = each.sha256() if entry.type is EntryType.FILE else entry.target
        metadata = (entry.mode, owner(entry.uid, entry.gid), entry.mtime_ns, entry.opaque)
        is_bare = entry.type in (EntryType.WHITEOUT, EntryType.SYMLINK) or not is_content
        found[entry.path] = (entry.type, content, None if is_bare else metadata)
    return found


def test_what_is_published_can_be_read(repository: Repository) -> None:
    publish(repository)
    assert list(repository.names()) == [NAME]
    assert repository.read(layout.manifest_file(NAME)) == SECOND.manifest.data
    assert repository.link_text(NAME) == f"../{FLAT}"
    assert repository.kind(NAME) is EntryType.SYMLINK
    assert repository.kind(FLAT) is EntryType.DIRECTORY
    assert repository.exists(layout.layer_tree(TOP.digest))
    assert repository.children(layout.FLAT) == [FLAT.split("/")[1]]
    assert repository.has_layer(BASE.digest)
    shared = repository.identity(f"{layout.layer_tree(BASE.digest)}/etc/motd")
    assert shared is not None and shared == repository.identity(f"{FLAT}/etc/motd")
    [record] = repository.history()
    assert [(c.name, c.what, c.why) for c in record.changes] == [
        (NAME, "published", "because of a test")
    ]


def test_missing_paths_and_layers_read_as_missing(repository: Repository) -> None:
    assert list(repository.names()) == []
    assert repository.read("nothing") is None
    assert repository.link_text("nothing") is None
    assert repository.kind("nothing") is None
    assert repository.identity("nothing") is None
    assert repository.children("nothing") == []
    assert not repository.exists("nothing/at/all")
    assert not repository.has_layer(BASE.digest)
    assert not repository.unfinished()
    with pytest.raises(RepositoryChanged):
        repository.open_index(BASE.digest)


def test_all_kinds_of_repositories_publish_the_same_tree(tmp_path: Path) -> None:
    both: tuple[Repository, ...] = (in_directory(tmp_path), MemoryRepository())
    for repository in both:
        publish(repository, FIRST)
        publish(repository, SECOND)
        with repository.transaction("test") as transaction, transaction.exclusive():
            transaction.remove(layout.flat_image(FIRST.image_id))
            transaction.commit()
    disk, memory = seen(both[0]), seen(both[1], owned)
    assert disk.keys() == memory.keys()
    assert {path: (disk[path], memory[path]) for path in disk if disk[path] != memory[path]} == {}
    both[0].close()


def test_nothing_is_visible_before_a_commit(repository: Repository) -> None:
    publish(repository, FIRST)
    before = seen(repository)
    stage(repository, TOP)
    with pytest.raises(ZeroDivisionError), repository.transaction("test") as transaction:
        with transaction.exclusive():
            transaction.add_layer(TOP.digest, [], [BASE.digest])
            transaction.replace(layout.manifest_file(NAME), b"other")
            transaction.remove(NAME)
            _ = 1 // 0
    assert seen(repository) == before
    with repository.transaction("test") as transaction, transaction.exclusive():
        transaction.remove(NAME)
    assert seen(repository) == before
    publish(repository)
    assert repository.link_text(NAME) == f"../{FLAT}"


def test_an_unfinished_layer_is_not_kept(repository: Repository) -> None:
    with repository.stage_layer(BASE.digest) as staged, staged.open_files() as files:
        files.index.write(b"half")
    assert not repository.has_layer(BASE.digest)


def test_a_finished_layer_is_kept_for_a_later_transaction(repository: Repository) -> None:
    stage(repository, BASE)
    assert repository.has_layer(BASE.digest)
    assert not repository.exists(layout.LAYERS)
    with repository.open_index(BASE.digest) as index:
        assert read_index(index).header.diff_id == BASE.diff_id


def test_removing_includes_empty_directories_and_ignores_missing_paths(
    repository: Repository,
) -> None:
    publish(repository)
    with repository.transaction("test") as transaction, transaction.exclusive():
        transaction.remove(FLAT)
        transaction.remove(NAME)
        transaction.remove("never/was/there")
        transaction.commit()
    assert not repository.exists(layout.FLAT)
    assert not repository.exists("local")
    assert repository.exists(layout.layer_tree(BASE.digest))


def test_published_content_stays_unless_it_is_replaced_explicitly(repository: Repository) -> None:
    publish(repository)
    motd = f"{layout.layer_tree(BASE.digest)}/etc/motd"
    before = repository.identity(motd), repository.identity(f"{FLAT}/etc/motd")
    content = seen(repository)
    publish(repository)
    assert (repository.identity(motd), repository.identity(f"{FLAT}/etc/motd")) == before
    publish(repository, anew=True)
    assert repository.identity(motd) != before[0]
    assert seen(repository) == content


@pytest.mark.parametrize("path", ["local", f"{NAME}/below", FLAT])
def test_a_foreign_file_or_directory_at_a_path_is_refused_before_any_change(
    repository: Repository, path: str
) -> None:
    publish(repository)
    before = seen(repository)
    with repository.transaction("test") as transaction, transaction.exclusive():
        transaction.replace("something/else", b"new")
        transaction.replace(path, b"new")
        with pytest.raises(PathTaken):
            transaction.commit()
    assert seen(repository) == before


@pytest.mark.parametrize(
    "path", [layout.manifest_file(NAME), layout.layer_origin(BASE.digest), layout.PINS]
)
def test_a_directory_in_the_place_of_a_record_is_replaced(
    repository: Repository, path: str
) -> None:
    publish(repository)
    with repository.transaction("damage") as transaction, transaction.exclusive():
        transaction.remove(path)
        transaction.commit()
    with repository.transaction("damage") as transaction, transaction.exclusive():
        transaction.replace(f"{path}/below/file", b"1")
        transaction.commit()
    with pytest.raises(InvalidRecord, match="not a file") as caught:
        repository.read(path)
    assert caught.value.found and caught.value.path == path
    damaged = read_damaged(repository, path)
    assert isinstance(damaged, Unreadable) and damaged != b"" and "not a file" in damaged.why
    with repository.transaction("test") as transaction, transaction.exclusive():
        transaction.replace(path, b"new")
        transaction.commit()
    assert repository.read(path) == b"new"
    assert repository.kind(path) is EntryType.FILE
    assert not repository.exists(f"{path}/below")


def test_staged_layers_are_discarded_except_those_to_keep_and_published_ones(
    repository: Repository,
) -> None:
    publish(repository, FIRST)
    others = [build.layer(build.file(f"file{number}")) for number in range(3)]
    for layer in others:
        stage(repository, layer)
    assert repository.discard_staged([others[0].digest]) == 2
    assert [repository.has_layer(layer.digest) for layer in others] == [True, False, False]
    assert all(repository.has_layer(layer.digest) for layer in FIRST.layers)
    assert repository.discard_staged([others[0].digest]) == 0


def test_layers_that_another_process_may_need_are_not_discarded(tmp_path: Path) -> None:
    with closing(in_directory(tmp_path)) as one:
        stage(one, BASE)
        with closing(in_directory(tmp_path)) as two:
            stage(two, TOP)
            assert one.discard_staged([]) == 0
        with one.transaction("test") as transaction, transaction.exclusive():
            assert one.discard_staged([]) == 0
        assert one.discard_staged([TOP.digest]) == 1
        assert not one.has_layer(BASE.digest) and one.has_layer(TOP.digest)


def test_a_layer_that_is_not_staged_cannot_be_published(repository: Repository) -> None:
    with repository.transaction("test") as transaction:
        with pytest.raises(RepositoryChanged):
            transaction.link("x", [], [BASE.digest])
        with transaction.exclusive(), pytest.raises(RepositoryChanged):
            transaction.add_layer(BASE.digest, [], [])


def test_an_ingest_makes_a_sound_repository_and_damage_is_repaired(
    repository: Repository, tmp_path: Path
) -> None:
    source = Stage(tmp_path)
    source.put(SECOND, "1")
    with Sources() as sources:
        wish = wish_for(f"oci:{tmp_path}/layout:1", name="tool")
        report = ingest([Request(wish)], repository, sources, jobs=2)
    assert not report.failed
    assert verify(repository, deep=True).findings == ()
    content = seen(repository)
    with repository.transaction("damage") as transaction, transaction.exclusive():
        transaction.remove(FLAT)
        transaction.remove(NAME)
        transaction.replace(layout.layer_origin(BASE.digest), b'{"origin": []}')
        transaction.commit()
    found = verify(repository, deep=True)
    assert {finding.kind for finding in found.findings} == {
        *(Kind.FLAT_MISSING, Kind.LINK_MISSING, Kind.ORIGIN_WRONG, Kind.CHAIN_MISSING)
    }
    repaired, after = repair(repository, found, None, Policy())
    assert (len(repaired.findings), after.findings) == (4, ())
    assert seen(repository) == content
