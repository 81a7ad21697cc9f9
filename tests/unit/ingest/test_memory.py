from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from publisher.errors import DigestMismatch, InvalidReference, PublisherError
from publisher.ingest.causes import cause_of
from publisher.ingest.memory import Memory, Remembered
from publisher.ingest.report import Outcome, Report, Status
from publisher.ingest.run import ingest
from publisher.ingest.space import NotEnoughSpace
from publisher.repository import RepositoryBusy
from publisher.sources import AuthenticationFailed, ImageNotFound, SourceError
from publisher.state import Cause, News
from publisher.state.store import State, open_state
from publisher.wishlist import Wish, wish_for
from publisher.wishlist.model import Request
from publisher.workers.errors import WorkerNotStarted
from tests.layer_builder import file, image, layer, write_layout
from tests.memory_repository import MemoryRepository
from tests.registry import OwnRegistry
from tests.registry_faults import status
from tests.registry_images import fast_sources, sample_image

START = datetime(2026, 11, 1, tzinfo=UTC)
LIST = "/lists/l.yaml"


class World:
    """A registry, a repository, a state, and a clock that tests advance."""

    def __init__(self, registry: OwnRegistry, state: State) -> None:
        self.registry = registry
        self.state = state
        self.repository = MemoryRepository()
        self.now = START

    def wish(self, image: str, **settings: object) -> Request:
        wish: Wish = replace(wish_for(f"{self.registry.url}/{image}"), line=3, **settings)  # type: ignore[arg-type]
        return Request(wish, LIST)

    def pattern(self, image: str, *tags: str) -> Request:
        request = self.wish(image)
        return Request(replace(request.wish, tags=tags), LIST)

    def run(self, *requests: Request, **options: object) -> Report:
        with fast_sources() as sources:
            return ingest(
                requests,
                self.repository,
                sources,
                state=self.state,
                now=lambda: self.now,
                **options,  # type: ignore[arg-type]
            )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with (
        OwnRegistry() as registry,
        open_state(tmp_path, "dir:/images", writable=True) as state,
    ):
        yield World(registry, state)


def test_a_failing_image_costs_no_request_until_its_next_try(world: World) -> None:
    image = sample_image(1000)
    world.registry.add("good", "1", image)
    good, dead = world.wish("good:1"), world.wish("dead:1", owner="astro")
    first, second = world.run(good, dead).outcomes
    assert (first.status, first.news, first.cause) == (Status.PUBLISHED, None, "")
    assert (second.status, second.news, second.cause) == (
        Status.FAILED,
        News.STARTED,
        "image-missing",
    )
    known = world.state.wish(LIST, second.name)
    assert known is not None and known.next_try == second.next_try
    assert (known.owner, known.line, known.tries, known.failing_since) == ("astro", 3, 1, START)
    assert known.error == second.error
    assert known.next_try is not None
    assert START + timedelta(minutes=3) < known.next_try <= START + timedelta(minutes=5)

    world.now = START + timedelta(minutes=2)
    world.registry.requests.clear()
    report = world.run(good, dead)
    waiting = report.outcomes[1]
    assert (waiting.status, waiting.error) == (Status.WAITING, second.error)
    assert (waiting.failing_since, waiting.next_try) == (START, known.next_try)
    assert report.failed == (waiting,)
    assert not world.registry.seen(path="dead") and world.registry.seen(path="good")
    assert world.state.wish(LIST, second.name) == known

    assert world.run(good, dead, retry_failed=True).outcomes[1].status is Status.FAILED
    known = world.state.wish(LIST, second.name)
    assert known is not None and (known.tries, known.failing_since) == (2, START)

    world.state.record_reported(LIST, second.name, world.now)
    world.registry.add("dead", "1", image)
    world.now += timedelta(minutes=10)
    [recovered] = world.run(dead).outcomes
    assert (recovered.status, recovered.news) == (Status.PUBLISHED, News.RECOVERED)
    known = world.state.wish(LIST, second.name)
    assert known is not None and not known.is_failing and known.tries == 0
    assert (known.last_success, known.digest) == (world.now, image.manifest.digest)
    assert known.first_seen == START
    assert world.run(dead).outcomes[0].news is None


def test_an_image_on_this_host_is_tried_in_each_run(world: World, tmp_path: Path) -> None:
    wish = wish_for(f"oci:{tmp_path}/layout:2", name="tool")
    built = image(layer(file("a", b"1")))
    write_layout(built, tmp_path / "layout", "1")
    for _ in range(2):
        [missing] = world.run(Request(wish, LIST)).outcomes
        assert (missing.status, missing.next_try) == (Status.FAILED, None)
    write_layout(built, tmp_path / "layout", "2")
    assert world.run(Request(wish, LIST)).outcomes[0].status is Status.PUBLISHED


def test_a_wish_that_is_changed_is_tried_at_once(world: World) -> None:
    dead = world.wish("dead:1")
    world.run(dead)
    for changed in (
        world.wish("dead:1", note="please"),
        Request(dead.wish, LIST, {dead.wish.image: "sha256:" + "0" * 64}),
    ):
        [failed] = world.run(changed).outcomes
        assert (failed.status, failed.news) == (Status.FAILED, News.STARTED)
        [known] = world.state.wishes()
        assert (known.tries, known.failing_since) == (1, world.now)
        assert world.run(changed).outcomes[0].status is Status.WAITING
        world.now += timedelta(seconds=1)
    elsewhere = replace(changed.wish, line=99)
    [moved] = world.run(replace(changed, wish=elsewhere)).outcomes
    assert (moved.status, moved.line) == (Status.WAITING, 99)
    assert world.run(replace(changed, wish_list="other")).outcomes[0].status is Status.FAILED


def test_what_is_remembered_is_written_before_all_images_of_a_wish_are_processed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.state.store._FLUSH_SECONDS", 0)
    request = world.wish("some:1")
    memory = Memory(world.state, lambda: world.now)
    for name, error in (("a", ""), ("b", "no")):
        memory.record(
            Remembered(request, name, ""), Outcome(name, name, Status.FAILED, error=error)
        )
        with open_state(tmp_path, "dir:/images", writable=False) as written:
            assert written.wishes()[-1].name == name


def test_a_pattern_without_tags_and_each_failing_image_of_a_pattern_are_put_off(
    world: World,
) -> None:
    world.registry.add("some", "1.1", sample_image(1000))
    world.registry.add("some", "1.2", sample_image(1000, seed=1))
    world.registry.misbehave(status(403), path="some/manifests/1.2")
    some, none = world.pattern("some", "1.*"), world.pattern("none", "2.*")
    for expected in ("failed", "waiting"):
        world.registry.requests.clear()
        good, bad, missing = world.run(some, none).outcomes
        assert good.status in (Status.PUBLISHED, Status.UNCHANGED)
        assert (bad.status, bad.cause) == (expected, "refused")
        assert (missing.status, missing.cause, missing.name) == (
            expected,
            "image-missing",
            str(none.wish),
        )
    assert not world.registry.seen(path="none|manifests/1.2")
    assert len(world.registry.seen(path="some/tags")) == 1

    world.state.record_reported(LIST, str(none.wish), world.now)
    world.registry.add("none", "2.0", sample_image(1000))
    report = world.run(some, none, retry_failed=True)
    assert [each.name for each in report.recovered] == [str(none.wish)]
    assert world.run(some, none).recovered == ()


def test_an_image_recovers_from_a_reported_failure_when_its_wish_is_corrected(world: World) -> None:
    [failed] = world.run(world.wish("tool:1")).outcomes
    world.state.record_reported(LIST, failed.name, world.now)
    world.registry.add("tool", "1", sample_image(1000))
    corrected = world.wish("tool:1", note="its second version")
    assert world.run(corrected).outcomes[0].news is News.RECOVERED
    assert world.run(corrected).outcomes[0].news is None


def test_what_is_found_without_a_request_is_never_put_off(world: World) -> None:
    world.registry.add("some", "1", sample_image(1000))
    first, second = world.wish("some:1"), world.wish("some:1", note="other")
    for _ in range(2):
        contradiction = world.run(first, second, jobs=1).outcomes[1]
        assert (contradiction.status, contradiction.cause) == (Status.FAILED, "contradiction")
        assert contradiction.next_try is None
    names = [tries.name for tries in world.state.wishes()]
    assert names == [contradiction.name, f"{contradiction.name} (contradicts another wish)"]


def test_an_interrupted_run_and_a_run_without_a_state_remember_nothing(world: World) -> None:
    stop = threading.Event()
    stop.set()
    assert world.run(world.wish("dead:1"), stop=stop).interrupted
    assert world.state.wishes() == []
    with fast_sources() as sources:
        [outcome] = ingest([world.wish("dead:1")], world.repository, sources).outcomes
    assert (outcome.cause, outcome.news) == ("image-missing", None)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (status(401), Cause.REFUSED),
        (status(403), Cause.REFUSED),
        (status(429), Cause.RATE_LIMITED),
        (status(500), Cause.UNREACHABLE),
    ],
)
def test_the_cause_of_a_refused_request(
    world: World, fault: Callable[..., object], cause: Cause
) -> None:
    world.registry.add("some", "1", sample_image(1000))
    world.registry.misbehave(fault, path="some")  # type: ignore[arg-type]
    [outcome] = world.run(world.wish("some:1")).outcomes
    assert outcome.cause == cause, outcome.error


def test_the_cause_of_other_failures() -> None:
    for error, cause in (
        (ImageNotFound("x"), Cause.IMAGE_MISSING),
        (AuthenticationFailed("x"), Cause.REFUSED),
        (SourceError("x"), Cause.UNREACHABLE),
        (NotEnoughSpace("x", needed=1, free=0, why="", hint=""), Cause.NO_SPACE),
        (OSError(28, "No space left on device"), Cause.NO_SPACE),
        (OSError(11, "Resource temporarily unavailable"), Cause.HOST),
        (RuntimeError("can't start new thread"), Cause.HOST),
        (WorkerNotStarted("x"), Cause.HOST),
        (OSError(5, "Input/output error"), Cause.REPOSITORY),
        (RepositoryBusy("x"), Cause.REPOSITORY),
        (InvalidReference("x"), Cause.WISH_LIST),
        (DigestMismatch("x", expected="a", actual="b"), Cause.INVALID_IMAGE),
        (PublisherError("x"), Cause.OTHER),
        (ValueError("x"), Cause.OTHER),
    ):
        assert cause_of(error) is cause, error
    assert not Cause.HOST.is_of_the_image  # so that the next run tries the image
