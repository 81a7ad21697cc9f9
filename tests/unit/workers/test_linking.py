"""A worker process links the same flat images as the publisher itself, with the same errors."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from publisher.cli.repositories import open_repository
from publisher.ingest.report import Outcome, Status
from publisher.ingest.run import ingest
from publisher.layers.errors import LayerError
from publisher.repository.directory import transaction
from publisher.repository.directory.linker import Link, LinkJob, link_tree
from publisher.repository.directory.repository import DirectoryRepository
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from publisher.workers.pool import Workers
from publisher.workers.surroundings import ADDRESS_SPACE, OPEN_FILES
from tests.attacked import Limits, attacked_by, listening, metadata
from tests.components import require_root
from tests.compromised import ATTEMPTS, permitted
from tests.layer_builder import (
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
from tests.trees import describe_tree
from tests.worker_stages import children, server_pid

BASE = layer(
    directory("d", 0o2755, uid=5),
    file("d/f", b"below"),
    file("d/g", b"other", uid=7),
    file("gone", b"x"),
    hardlink("d/same", "d/f"),
    directory("hidden"),
    file("hidden/x", b"hidden"),
    symlink("var", "srv"),
)
TOP = layer(
    file("d/f", b"on top"),
    whiteout("gone"),
    opaque("hidden"),
    file("hidden/y", b"visible"),
    hardlink("linked", "d/g"),
    hardlink("linked again", "linked"),
    fifo("fifo"),
    symlink("s", "../outside"),
    file("caf\udce9", b"no UTF-8"),
)
MORE = layer(file("more", b"more"))


@pytest.fixture(autouse=True)
def _all_images_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "_MANY_ENTRIES", 0)


@contextmanager
def opened(folder: Path, link: Link | None) -> Iterator[DirectoryRepository]:
    """A repository with the image of BASE and TOP, linked by `link`; layouts are beside it."""
    write_layout(image(BASE, TOP), folder / "layout", "1")
    write_layout(image(BASE, TOP, MORE), folder / "layout", "2")
    url = RepositoryURL("dir", str(folder / "images"))
    repository = DirectoryRepository(url, writable=True, may_be_new=True, link=link)
    try:
        outcome = publish(repository, folder, "1")
        assert outcome.status is Status.PUBLISHED, outcome.error
        yield repository
    finally:
        repository.close()


def left(repository: DirectoryRepository) -> list[str]:
    """What is in the private space of this process."""
    return [path.name for path in repository.staging.session.iterdir()]


def publish(repository: DirectoryRepository, folder: Path, tag: str) -> Outcome:
    request = Request(wish_for(f"oci:{folder}/layout:{tag}", name="tool"))
    with Sources() as sources:
        [outcome] = ingest([request], repository, sources).outcomes
    return outcome


def test_a_worker_links_what_the_publisher_links(workers: Workers, tmp_path: Path) -> None:
    jobs: list[LinkJob] = []

    def link(job: LinkJob) -> Mapping[str, int]:
        jobs.append(job)
        return workers.link(job)

    found = []
    for name, how in (("here", None), ("there", link)):
        (tmp_path / name).mkdir()
        with opened(tmp_path / name, how) as repository:
            [flat] = (repository.root / layout.FLAT).glob("*/*")
            found.append(describe_tree(flat))
            assert not verify(repository, deep=True).findings
            assert left(repository) in ([], ["deleting"])
    assert len(jobs) == 1 and found[0] == found[1]
    assert "hidden/y" in found[0] and "hidden/x" not in found[0]
    assert not children(server_pid(workers))


def test_only_large_images_have_a_process_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "_MANY_ENTRIES", 21)
    calls: list[LinkJob] = []

    def link(job: LinkJob) -> Mapping[str, int]:
        calls.append(job)
        return link_tree(job.destination, [], []).refused

    with opened(tmp_path, link) as repository:
        assert not calls
        assert publish(repository, tmp_path, "2").status is Status.PUBLISHED
    assert len(calls) == 1


@pytest.mark.parametrize(("count", "is_linked_there"), [(0, False), (3, False), (4, True)])
def test_flat_images_are_linked_by_workers_if_there_are_many(
    count: int, is_linked_there: bool, tmp_path: Path
) -> None:
    with Workers(count) as workers:
        repository = open_repository(
            f"dir:{tmp_path}/images", writable=True, may_be_new=True, workers=workers
        )
        assert isinstance(repository, DirectoryRepository)
        assert repository._writable.link == (workers.link if is_linked_there else None)
        repository.close()


def _remove(root: Path) -> None:
    (root / layout.layer_tree(BASE.digest) / "d/g").unlink()


def _replace(root: Path) -> None:
    (root / layout.layer_tree(TOP.digest) / "d/f").unlink()
    (root / layout.layer_tree(TOP.digest) / "d/f").mkdir()


def _cut(root: Path) -> None:
    os.truncate(root / layout.layer_index(TOP.digest), 60)


def _forge(root: Path) -> None:
    place = root / layout.layer_index(BASE.digest)
    lines = zstandard.ZstdDecompressor().stream_reader(place.read_bytes()).read()
    place.write_bytes(zstandard.compress(lines.replace(b'"path":"d/g"', b'"path":"../g"')))


def _lose(root: Path) -> None:
    shutil.rmtree(root / layout.layer_directory(BASE.digest))


@pytest.mark.parametrize("damage", [_remove, _replace, _cut, _forge, _lose])
def test_a_damaged_layer_is_the_same_error(
    damage: Callable[[Path], None], workers: Workers, tmp_path: Path
) -> None:
    errors = []
    for name, how in (("here", None), ("there", workers.link)):
        (tmp_path / name).mkdir()
        with opened(tmp_path / name, how) as repository:
            damage(repository.root)
            outcome = publish(repository, tmp_path / name, "2")
            errors.append((outcome.status, outcome.error.replace(f"/{name}/", "/")))
            assert left(repository) in ([], ["deleting"])
    assert errors[0] == errors[1]


def probed(workers: Workers, *words: str) -> Link:
    """Link by a worker that calls a function of tests/worker_server.py."""

    def link(job: LinkJob) -> Mapping[str, int]:
        job.destination.with_name("probe").write_text(json.dumps(words))
        return workers.link(job)

    return link


def test_an_image_whose_worker_is_killed_fails_and_the_next_run_publishes_it(
    workers: Workers, tmp_path: Path
) -> None:
    with opened(tmp_path, None) as repository:
        workspace = repository._writable
        for step in range(1, 200, 7):
            workspace.link = probed(workers, "kill_at", str(step))
            outcome = publish(repository, tmp_path, "2")
            if outcome.status is Status.PUBLISHED:
                break  # it has answered before that
            assert "cannot link the flat image" in outcome.error and "SIGKILL" in outcome.error
            assert left(repository) in ([], ["deleting"])
            assert not verify(repository, deep=True).findings
        assert step > 20
        assert not verify(repository, deep=True).findings
    assert not children(server_pid(workers))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("answer", "{}"), None),
        (("answer", "nothing"), "malformed"),
        (("answer", '{"refused": {"a": "b"}}'), "malformed"),
        (("flood",), "too long"),
        (("fail",), "unexpected error"),
        (("hang",), "takes longer"),
        (("exhaust_memory",), "more memory than it may use"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_worker_that_fails_is_an_error_of_the_image(
    words: tuple[str, ...], why: str | None, workers: Workers, tmp_path: Path
) -> None:
    chosen = workers
    if words == ("hang",):
        chosen = Workers(1, patience=0.1)
        chosen._server = workers._server
    with opened(tmp_path, None) as repository:
        repository._writable.link = probed(chosen, *words)
        outcome = publish(repository, tmp_path, "2")
        assert left(repository) in ([], ["deleting"])
        if why is not None:
            assert outcome.status is Status.FAILED and why in outcome.error


def test_nothing_that_a_worker_tries_outside_of_the_repository_succeeds(
    workers: Workers, tmp_path: Path
) -> None:
    require_root()
    limits = Limits(address_space=ADDRESS_SPACE, open_files=OPEN_FILES)
    with opened(tmp_path, None) as repository, listening(tmp_path) as sockets:
        target = attacked_by(os.geteuid(), tmp_path / "outside", sockets, limits)
        before = metadata(target)
        private = repository.staging.new_path()
        private.mkdir()
        layers = [repository.root / layout.layer_directory(BASE.digest)]
        with pytest.raises(LayerError) as raised:
            probed(workers, "attack", target.to_json())(
                LinkJob(repository.root, private / "1", layers, [])
            )
        assert metadata(target) == before
    results = json.loads(raised.value.why)
    assert results.keys() == ATTEMPTS.keys()
    # What flat images may have; see docs/security.md.
    assert permitted(results) == {
        "give a file capabilities",
        "make a device node in the staging area",
        "make a file in the staging area set user id",
        "make a set user id file in the staging area",
        "write a file beyond the limit",
    }
