"""Images that are ready at the same time are committed together; one that fails is left out."""

from __future__ import annotations

import errno
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from publisher.ingest.group import Commits
from publisher.ingest.report import Report, Status
from publisher.ingest.run import ingest
from publisher.repository import ContentRefused, Repository, RepositoryError, disk
from publisher.repository.cvmfs import execution
from publisher.repository.directory import journal
from publisher.repository.reading import load_schedule
from publisher.sources.open import Sources
from publisher.state import Cause
from publisher.state.store import open_state
from publisher.verify.run import verify
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.any_repository import KINDS, NAME, AnyRepository, environment_of, make_repository
from tests.command import succeed
from tests.gathering import gathered_commits
from tests.layer_builder import (
    Image,
    directory,
    file,
    hardlink,
    image,
    layer,
    opaque,
    whiteout,
    write_layout,
)
from tests.registry import OwnRegistry
from tests.registry_images import fast_sources

BASE = layer(directory("etc"), file("etc/motd", b"hello"), file("gone"))
TOP = layer(whiteout("gone"), opaque("etc"), hardlink("again", "etc/motd"))


def small(number: int) -> Image:
    """An image that shares its two lower layers with the others."""
    return image(BASE, TOP, layer(file(f"own/{number}", b"%d" % number)))


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyRepository]:
    made = make_repository(request.param, tmp_path)
    with environment_of(made):
        yield made


def run(
    place: AnyRepository,
    layouts: Path,
    tags: Sequence[str],
    *,
    together: int,
    group: int = 16,
    before: Callable[[], object] = lambda: None,
    ended: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Ingest the images of a layout, each under its own name."""
    repository = place.open()
    requests = [Request(wish_for(f"oci:{layouts}:{tag}", name=tag)) for tag in tags]
    try:
        with Sources() as sources, gathered_commits(together, before):
            return ingest(requests, repository, sources, jobs=len(tags), group=group, ended=ended)
    finally:
        repository.close()


def publications(place: AnyRepository) -> list[set[str]]:
    """The images that each transaction published, the latest first."""
    found = [
        {change.name for change in record.changes if change.what == "published"}
        for record in place.open(writable=False).history()
    ]
    return [names for names in found if names]


def assert_sound(place: AnyRepository) -> None:
    assert verify(place.open(writable=False), deep=True).findings == ()


def test_six_images_that_are_ready_together_are_one_commit_and_a_moved_tag_is_scheduled(
    place: AnyRepository, tmp_path: Path
) -> None:
    layouts = tmp_path / "layouts"
    tags = [f"i{number}" for number in range(6)]
    for number, tag in enumerate(tags):
        write_layout(small(number), layouts, tag)
    write_layout(small(0), layouts, "same")  # two names of one image
    before = place.machine.revision(NAME) if place.machine else 0

    report = run(place, layouts, [*tags, "same"], together=7)

    assert [each.status for each in report.outcomes] == [Status.PUBLISHED] * 7
    everything = {f"local/{tag}:{tag}" for tag in (*tags, "same")}
    assert publications(place) == [everything]
    if place.machine:
        assert place.machine.revision(NAME) == before + 1
    for number, tag in enumerate(tags):
        root = place.root / f"local/{tag}:{tag}"
        assert (root / f"own/{number}").read_bytes() == b"%d" % number
        assert (root / "again").read_bytes() == b"hello"
        assert not (root / "gone").exists()
    assert_sound(place)

    # Two tags move to one image, in one commit; both replaced images are scheduled.
    for tag in ("i0", "i1"):
        write_layout(small(9), layouts, tag)
    report = run(place, layouts, tags[:3], together=2)
    assert sorted(each.status for each in report.outcomes) == [
        Status.UNCHANGED,
        Status.UPDATED,
        Status.UPDATED,
    ]
    assert publications(place) == [{"local/i0:i0", "local/i1:i1"}, everything]
    scheduled = load_schedule(place.open(writable=False)).entries
    assert {each.name for each in scheduled} == {"local/i0:i0", "local/i1:i1"}
    assert_sound(place)


def test_an_image_that_cannot_be_published_is_left_out_of_its_group(
    place: AnyRepository, tmp_path: Path
) -> None:
    layouts = tmp_path / "layouts"
    for number in range(4):
        write_layout(small(number), layouts, f"i{number}")
    run(place, layouts, ["i0"], together=1)
    # The tag of one image moves, and it is pinned meanwhile; the place of another one is taken.
    write_layout(small(9), layouts, "i0")
    taken = place.root / "local/i1:i1"
    taken.mkdir()
    (taken / "file").write_text("of another program")
    before: list[int] = []

    def pin() -> None:
        succeed("pin", "local/i0:i0", "--repository", place.url, env=place.env)
        before.append(place.machine.revision(NAME) if place.machine else 0)

    tags = ["i0", "i1", "i2", "i3"]
    report = run(place, layouts, tags, together=4, before=pin)

    statuses = {each.name: each.status for each in report.outcomes}
    assert statuses["local/i2:i2"] == statuses["local/i3:i3"] == Status.PUBLISHED
    assert statuses["local/i0:i0"] is Status.PINNED
    assert statuses["local/i1:i1"] is Status.FAILED
    if place.machine:
        assert place.machine.revision(NAME) == before[0] + 2  # each by itself
    assert {"local/i2:i2", "local/i3:i3"} <= set().union(*publications(place))
    assert (place.root / "local/i2:i2/own/2").read_bytes() == b"2"
    assert (place.root / "local/i3:i3/again").read_bytes() == b"hello"


def test_a_group_beside_another_publisher_of_the_same_images(
    place: AnyRepository, tmp_path: Path
) -> None:
    """When the group is ready, another process publishes its layers, and two of its names."""
    layouts, others = tmp_path / "layouts", tmp_path / "others"
    tags = [f"i{number}" for number in range(4)]
    for number, tag in enumerate(tags):
        write_layout(small(number), layouts, tag)
    write_layout(small(0), others, "i0")
    write_layout(small(7), others, "i1")
    before: list[int] = []

    def publish_others() -> None:
        for tag in ("i0", "i1"):
            words = ("ingest-image", f"oci:{others}:{tag}", "--name", tag)
            succeed(*words, "--repository", place.url, env=place.env)
        before.append(place.machine.revision(NAME) if place.machine else 0)

    report = run(place, layouts, tags, together=4, before=publish_others)

    assert not report.failed, [each.error for each in report.failed]
    statuses = {each.name: each.status for each in report.outcomes}
    assert statuses["local/i2:i2"] == statuses["local/i3:i3"] == Status.PUBLISHED
    for number, tag in enumerate(tags):
        root = place.root / f"local/{tag}:{tag}"
        assert (root / f"own/{number}").read_bytes() == b"%d" % number, "that of this run"
        assert (root / "again").read_bytes() == b"hello"
    scheduled = load_schedule(place.open(writable=False)).entries
    assert [each.name for each in scheduled] == ["local/i1:i1"], "what the other published"
    assert_sound(place)


def test_a_run_that_is_interrupted_when_a_group_is_ready_publishes_it_and_nothing_else(
    place: AnyRepository, tmp_path: Path
) -> None:
    layouts, tags = tmp_path / "layouts", [f"i{number}" for number in range(6)]
    for number, tag in enumerate(tags):
        write_layout(small(number), layouts, tag)
    requests = [Request(wish_for(f"oci:{layouts}:{tag}", name=tag)) for tag in tags]
    stop = threading.Event()  # which the first SIGINT or SIGTERM sets
    repository = place.open()
    with Sources() as sources, gathered_commits(3, stop.set):
        report = ingest(requests, repository, sources, jobs=3, stop=stop)
    repository.close()
    assert report.interrupted
    assert [each.status for each in report.outcomes] == [Status.PUBLISHED] * 3
    assert publications(place) == [{each.name for each in report.outcomes}]
    assert not list((place.state / "sessions").iterdir())
    if place.machine:
        assert b"transaction" not in place.machine.server("list").stdout
    assert_sound(place)
    report = run(place, layouts, tags, together=3)
    statuses = Counter(each.status for each in report.outcomes)
    assert statuses == {Status.UNCHANGED: 3, Status.PUBLISHED: 3}


@pytest.mark.parametrize("moment", ["opened", "streaming", "read", "applied"])
def test_a_server_that_is_killed_in_the_commit_of_a_group_costs_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    place, layouts = make_repository("cvmfs", tmp_path), tmp_path / "layouts"
    machine, tags = place.machine, ["i0", "i1", "i2"]
    assert machine is not None
    for number, tag in enumerate(tags):
        write_layout(small(number), layouts, tag)
    before = machine.revision(NAME)
    with environment_of(place):
        monkeypatch.setenv("CVMFS_STANDIN_KILL", moment)  # once
        report = run(place, layouts, tags, together=3)
        assert (machine.root / "standin-killed").exists()
        assert [each.status for each in report.outcomes] == [Status.PUBLISHED] * 3
        assert b"transaction" not in machine.server("list").stdout
        # Killed after the revision was made, it has published the group; else each is by itself.
        assert machine.revision(NAME) == before + (1 if moment == "applied" else 3)
        assert_sound(place)


def refuse(monkeypatch: pytest.MonkeyPatch, part: str, message: str) -> None:
    """Let the server refuse archives with a file whose path has this part."""
    monkeypatch.setenv("CVMFS_STANDIN_REFUSE", part)
    monkeypatch.setenv("CVMFS_STANDIN_REFUSAL", message)


@pytest.fixture
def cvmfs(tmp_path: Path) -> Iterator[AnyRepository]:
    """A repository with a server, and three images in `layouts`."""
    for number in range(3):
        write_layout(small(number), tmp_path / "layouts", f"i{number}")
    made = make_repository("cvmfs", tmp_path)
    with environment_of(made):
        yield made


@pytest.mark.parametrize("together", [1, 3])
def test_an_image_that_the_server_refuses_is_left_out_and_the_run_goes_on(
    cvmfs: AnyRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    together: int,
) -> None:
    layouts, tags = tmp_path / "layouts", ["i0", "i1", "i2"]
    assert cvmfs.machine is not None
    caplog.set_level(logging.INFO, logger="publisher")
    refuse(monkeypatch, "own/1", "panic: own/1 is odd")
    report = run(cvmfs, layouts, tags, together=together, group=together)
    assert [each.status for each in report.outcomes] == [
        Status.PUBLISHED,
        Status.FAILED,
        Status.PUBLISHED,
    ]
    refused = report.outcomes[1]
    assert "panic: own/1 is odd" in refused.error and "--debug" in refused.error
    assert refused.cause == Cause.CONTENT_REFUSED and not report.interrupted
    assert "the repository refused local/i1:i1" in caplog.text and "Traceback" in caplog.text
    assert set().union(*publications(cvmfs)) == {"local/i0:i0", "local/i2:i2"}
    assert b"transaction" not in cvmfs.machine.server("list").stdout
    assert_sound(cvmfs)
    monkeypatch.delenv("CVMFS_STANDIN_REFUSE")
    report = run(cvmfs, layouts, tags, together=1)
    assert [each.status for each in report.outcomes] == [
        Status.UNCHANGED,
        Status.PUBLISHED,
        Status.UNCHANGED,
    ]
    assert report.outcomes[1].layers_fetched == 0
    assert_sound(cvmfs)


def test_a_refused_image_is_put_off(
    cvmfs: AnyRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse(monkeypatch, "own/1", "panic")
    statuses = []
    repository = cvmfs.open()
    with (
        OwnRegistry() as registry,
        open_state(tmp_path / "state", cvmfs.url, writable=True) as state,
        fast_sources() as sources,
    ):
        registry.add("tool", "1", small(1))
        requests = [Request(wish_for(f"{registry.url}/tool:1"))]
        for retry_failed in (False, False, True):
            report = ingest(requests, repository, sources, state=state, retry_failed=retry_failed)
            statuses.append(report.outcomes[0].status)
            if retry_failed is False:
                assert report.outcomes[0].next_try is not None
                monkeypatch.delenv("CVMFS_STANDIN_REFUSE", raising=False)
    repository.close()
    assert statuses == [Status.FAILED, Status.WAITING, Status.PUBLISHED]


@pytest.mark.parametrize("together", [1, 3])
def test_a_full_server_ends_the_run_with_what_was_done(
    cvmfs: AnyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Two images in a row are refused. If only one is, the others are published."""
    layouts, tags = tmp_path / "layouts", ["i0", "i1", "i2"]
    assert cvmfs.machine is not None
    refuse(monkeypatch, "own/", "cannot write: No space left on device")
    ended: list[Report] = []
    with pytest.raises(RepositoryError, match="No space left") as caught:
        run(cvmfs, layouts, tags, together=together, group=together, ended=ended.append)
    assert not isinstance(caught.value, ContentRefused)
    assert "one after another" in caught.value.why and "free space" in caught.value.hint
    [report] = ended
    [failed] = report.outcomes
    assert (failed.status, failed.cause) == (Status.FAILED, Cause.NO_SPACE)
    assert len(report.unfinished) == 2 and not report.interrupted
    calls = [call for call in cvmfs.machine.calls() if call[0] == "ingest"]
    assert len(calls) == (2 if together == 1 else 3), "no other image is sent"
    assert b"transaction" not in cvmfs.machine.server("list").stdout
    refuse(monkeypatch, "own/1", "cannot write: No space left on device")
    report = run(cvmfs, layouts, tags, together=together, group=together)
    assert sorted(each.status for each in report.outcomes) == [
        Status.FAILED,
        Status.PUBLISHED,
        Status.PUBLISHED,
    ]
    assert_sound(cvmfs)


def fail_after_the_commit_point(
    place: AnyRepository, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """The first commits, of this number, fail when their changes are certain."""
    subject: Any = execution.Execution if place.machine else journal
    name = "require_visible" if place.machine else "apply"
    original, failures = getattr(subject, name), 0

    def failing(*arguments: Any) -> None:
        nonlocal failures
        if place.machine or arguments[1].exists():  # a journal that was written
            failures += 1
            if failures <= times:
                raise OSError(errno.EIO, "Input/output error", "of the disk")
        original(*arguments)

    monkeypatch.setattr(subject, name, failing)


def test_a_lone_image_that_its_failed_commit_has_published_is_reported_as_published(
    place: AnyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts = tmp_path / "layouts"
    write_layout(small(0), layouts, "i0")
    with monkeypatch.context() as context:
        fail_after_the_commit_point(place, context, 1)
        report = run(place, layouts, ["i0"], together=1)
    assert [(each.status, each.error) for each in report.outcomes] == [(Status.PUBLISHED, "")]
    assert_sound(place)
    write_layout(small(1), layouts, "i0")
    with monkeypatch.context() as context:
        fail_after_the_commit_point(place, context, 1)
        report = run(place, layouts, ["i0"], together=1)
    assert [each.status for each in report.outcomes] == [Status.UPDATED]
    assert_sound(place)


def test_a_commit_that_fails_before_its_commit_point_keeps_the_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also layers that need something from those below them."""
    place, layouts = make_repository("directory", tmp_path), tmp_path / "layouts"
    write_layout(small(0), layouts, "i0")

    def refuse(draft: Path, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error", str(draft))

    with monkeypatch.context() as context:
        context.setattr(journal, "_reserve", refuse)
        report = run(place, layouts, ["i0"], together=1)
    [outcome] = report.outcomes
    assert outcome.status is Status.FAILED
    report = run(place, layouts, ["i0"], together=1)
    [outcome] = report.outcomes
    assert (outcome.status, outcome.layers_fetched) == (Status.PUBLISHED, 0)
    assert (place.root / "local/i0:i0/again").read_bytes() == b"hello"
    assert_sound(place)


@pytest.mark.parametrize("times", [1, 2])
def test_images_that_a_failed_commit_has_published_are_reported_as_published(
    place: AnyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """An I/O error after the commit point; the next transaction completes the commit."""
    layouts = tmp_path / "layouts"
    for number in range(3):
        write_layout(small(number), layouts, f"i{number}")
    fail_after_the_commit_point(place, monkeypatch, times)
    report = run(place, layouts, ["i0", "i1", "i2"], together=3)
    statuses = Counter(each.status for each in report.outcomes)
    if times == 1:
        assert statuses == {Status.PUBLISHED: 3}
    elif place.machine is None:
        # The transaction of the first image cannot complete it; that of the second one does.
        assert statuses == {Status.FAILED: 1, Status.PUBLISHED: 2}
    if place.machine is None:
        assert publications(place) == [{f"local/i{n}:i{n}" for n in range(3)}]
    assert_sound(place)


def test_a_group_takes_as_many_syncs_as_one_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[object] = []

    def counted(path: Path) -> None:
        synced.append(path)
        disk.sync_filesystem(path)

    monkeypatch.setattr(journal, "sync_filesystem", counted)
    counts = []
    for size in (1, 6):
        folder = tmp_path / str(size)
        folder.mkdir()
        place, tags = make_repository("directory", folder), [f"i{n}" for n in range(size)]
        for number, tag in enumerate(tags):
            write_layout(small(number), folder / "layouts", tag)
        synced.clear()
        report = run(place, folder / "layouts", tags, together=size)
        assert [each.status for each in report.outcomes] == [Status.PUBLISHED] * size
        counts.append(len(synced))
    assert counts[0] == counts[1] > 0


def test_a_tag_that_a_list_has_twice_is_committed_once(tmp_path: Path) -> None:
    place, layouts = make_repository("directory", tmp_path), tmp_path / "layouts"
    for number in range(2):
        write_layout(small(number), layouts, f"i{number}")
    report = run(place, layouts, ["i0", "i0", "i1"], together=2)
    assert {each.status for each in report.outcomes} == {Status.PUBLISHED}
    assert publications(place) == [{"local/i0:i0", "local/i1:i1"}]
    assert_sound(place)


def test_the_size_of_a_group_is_limited(
    tmp_path: Path,
) -> None:
    place, layouts = make_repository("directory", tmp_path), tmp_path / "layouts"
    for number in range(4):
        write_layout(small(number), layouts, f"i{number}")
    run(place, layouts, [f"i{number}" for number in range(4)], together=4, group=3)
    assert Counter(map(len, publications(place))) == {3: 1, 1: 1}
    (tmp_path / "other").mkdir()
    place = make_repository("directory", tmp_path / "other")
    run(place, layouts, [f"i{number}" for number in range(4)], together=4, group=1)
    assert Counter(map(len, publications(place))) == {1: 4}
    assert_sound(place)


def test_images_that_become_ready_during_a_commit_are_committed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, layouts = make_repository("directory", tmp_path), tmp_path / "layouts"
    for number in range(6):
        write_layout(small(number), layouts, f"i{number}")
    repository: Repository = place.open()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with repository.transaction("test") as other, other.exclusive():
            held.set()
            done.wait(60)

    original = Commits._next_group
    waiting = set[int]()

    def next_group(self: Commits, own: object) -> object:
        waiting.add(id(own))
        if len(waiting) == 6:
            done.set()
        return original(self, own)  # type: ignore[arg-type]

    monkeypatch.setattr(Commits, "_next_group", next_group)
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    requests = [Request(wish_for(f"oci:{layouts}:i{n}", name=f"i{n}")) for n in range(6)]
    with Sources() as sources:
        report = ingest(requests, repository, sources, jobs=6)
    holder.join()
    repository.close()
    assert not report.failed
    assert list(map(len, publications(place))) == [5, 1]
    assert_sound(place)
