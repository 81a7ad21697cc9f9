"""The images of all wishes are shared among threads: the tags of one wish too, and the result does
not depend on which thread or registry is faster."""

from __future__ import annotations

import itertools
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.ingest.check import check
from publisher.ingest.expand import expand
from publisher.ingest.plan import plan
from publisher.ingest.report import Outcome, Silent
from publisher.ingest.run import ingest
from publisher.ingest.wanted import RequestedImage
from publisher.ingest.work import WishWork, for_all_images
from publisher.oci.reference import parse_reference
from publisher.repository import Repository
from publisher.repository.reading import load_publication
from publisher.sources.open import Sources
from publisher.wishlist import Places, parse_wish_list, wish_for
from publisher.wishlist.model import Request
from tests.any_repository import make_repository
from tests.layer_builder import file, image, layer
from tests.registry import Change, OwnRegistry, Reply
from tests.registry import Request as Received
from tests.registry_faults import status
from tests.registry_images import fast_sources

JOBS = 4
TAGS = 2 * JOBS
SECONDS = 20
"""How long a thread waits for others that never come, if a test fails."""


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    repository = make_repository("directory", tmp_path).open()
    yield repository
    repository.close()


@pytest.fixture
def registry() -> Iterator[OwnRegistry]:
    with OwnRegistry() as registry:
        for number in range(TAGS):
            registry.add("team/x", f"v{number}", image(layer(file(f"x{number}"))))
        registry.add("team/other", "1", image(layer(file("other"))))
        yield registry


class Together:
    """Answers requests only when `JOBS` of them are there; counts them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(JOBS)
        self.now = self.most = 0

    def __call__(self, received: Received, reply: Reply) -> Reply:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self._barrier.wait(SECONDS)
        except threading.BrokenBarrierError:
            return Reply(404)
        finally:
            with self._lock:
                self.now -= 1
        return reply


def wishes(text: str, name: str = "list") -> list[Request]:
    wish_list = parse_wish_list(f"version: 2\nimages:\n{text}\n".encode(), name)
    assert not wish_list.problems
    return [Request(wish, name) for wish in wish_list.wishes]


@pytest.mark.parametrize("command", ["ingest", "plan", "check", "expand"])
def test_as_many_tags_of_one_pattern_as_there_are_jobs_are_looked_up_at_a_time(
    repository: Repository, registry: OwnRegistry, command: str
) -> None:
    text = f"- {{image: '{registry.url}/team/x', tags: ['v*']}}"
    together = Together()
    registry.misbehave(together, path="/manifests/v[0-7]$")
    now = datetime.now(UTC)
    with fast_sources() as sources:
        names: list[str]
        errors: list[str]
        if command == "ingest":
            outcomes = ingest(wishes(text), repository, sources, jobs=JOBS).outcomes
            names, errors = [o.name for o in outcomes], [o.error for o in outcomes]
        elif command == "plan":
            planned = plan(wishes(text), repository, sources, now, jobs=JOBS)
            names, errors = [p.name for p in planned], [p.error for p in planned]
        elif command == "check":
            document = f"version: 2\nimages:\n{text}\n".encode()
            images = check([("list", document)], sources, jobs=JOBS).images
            names, errors = [i.name for i in images], [i.error for i in images]
        else:
            expanded = expand(wishes(text), sources, now, resolve=True, jobs=JOBS)
            names, errors = [e.name for e in expanded], [e.error for e in expanded]
    assert not any(errors)
    assert names == [f"{registry.host}/team/x:v{number}" for number in range(TAGS)]
    assert together.most == JOBS


def until_other_is_requested() -> tuple[Change, Change]:
    """Return a change that delays an answer until the other change has been applied once."""
    seen = threading.Event()

    def delayed(received: Received, reply: Reply) -> Reply:
        return reply if seen.wait(SECONDS) else Reply(404)

    def other(received: Received, reply: Reply) -> Reply:
        seen.set()
        return reply

    return delayed, other


def test_of_two_wishes_for_one_image_the_first_has_it_though_its_tags_are_listed_late(
    repository: Repository, registry: OwnRegistry
) -> None:
    image_of = f"image: '{registry.url}/team/x"
    requests = [
        *wishes(f"- {{{image_of}', tags: ['v[0-3]'], owner: ann}}", "a"),
        *wishes(f"- {{{image_of}:v1', owner: ben}}", "b"),
        *wishes(f"- {{{image_of}:v2', owner: zoe}}", "a"),
        *wishes(f"- image: '{registry.url}/team/other:1'", "c"),
    ]
    delayed, other = until_other_is_requested()
    registry.misbehave(delayed, path="team/x/tags/list")
    registry.misbehave(other, path="team/other/manifests/1$")
    registry.misbehave(status(403), path="team/x/manifests/v3$")
    with fast_sources() as sources:
        report = ingest(requests, repository, sources, jobs=JOBS)
    kinds = [(o.name.rpartition("/")[2], o.wish_list, str(o.status)) for o in report.outcomes]
    assert kinds == [
        ("x:v0", "a", "published"),
        ("x:v1", "a", "published"),
        ("x:v2", "a", "published"),
        ("x:v3", "a", "failed"),
        ("x:v1", "b", "recorded"),
        ("x:v2", "a", "failed"),
        ("other:1", "c", "published"),
    ]
    assert "with other settings" in report.outcomes[5].error
    found = load_publication(repository, f"{registry.host}/team/x:v1")
    assert found is not None and (found.wish_list, found.owner) == ("a", "ann")
    assert found.other_lists == ("b",)


class StopAtFirst(Silent):
    """Stops the run as soon as one image is published."""

    def __init__(self) -> None:
        self.stop = threading.Event()

    def image_done(self, outcome: Outcome) -> None:
        self.stop.set()


def test_a_stopped_run_begins_no_other_tag_of_a_pattern(
    repository: Repository, registry: OwnRegistry
) -> None:
    requests = wishes(f"- {{image: '{registry.url}/team/x', tags: ['v*']}}")
    progress = StopAtFirst()
    with fast_sources() as sources:
        report = ingest(
            requests, repository, sources, jobs=2, progress=progress, stop=progress.stop
        )
    assert report.interrupted
    assert not report.failed
    assert 1 <= len(report.outcomes) <= 2
    assert registry.count("HEAD") <= 2
    with fast_sources() as sources:
        assert len(ingest(requests, repository, sources).outcomes) == TAGS


class Recorded(WishWork[tuple[str, str, str]]):
    """The work on a wish that looks up nothing; it records the order for each name."""

    def __init__(
        self, request: Request, places: Places, number: int, order: list[tuple[str, int]]
    ) -> None:
        super().__init__(request, places)
        self.number = number
        self.order = order

    def act(self, image: RequestedImage) -> tuple[str, str, str]:
        self.order.append((image.name, self.number))
        if image.name.endswith("bad"):
            raise ValueError(image.name)
        return str(self.number), image.name, ""

    def failed(self, name: str, reference: str, error: Exception) -> tuple[str, str, str]:
        return str(self.number), name, str(error)


TAG = st.sampled_from(["1", "2", "3", "bad"])
WISH = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from(["r.example/x", "r.example/y"]),
    st.lists(TAG, max_size=4, unique=True),
    st.sampled_from(["", "ann"]),
)


@settings(max_examples=30)
@given(st.lists(WISH, max_size=12), st.integers(2, 6), st.booleans())
def test_the_results_do_not_depend_on_the_number_of_threads(
    drawn: list[tuple[str, str, list[str], str]], jobs: int, with_repeated: bool
) -> None:
    requests = []
    for line, (name, repository, tags, owner) in enumerate(drawn):
        locked = {parse_reference(f"{repository}:{tag}"): "sha256:" + "0" * 64 for tag in tags}
        wish = replace(wish_for(f"{repository}:1"), owner=owner, line=line)
        requests.append(Request(wish, name, locked))

    def run(threads: int) -> tuple[list[tuple[str, str, str]], dict[str, list[int]]]:
        order: list[tuple[str, int]] = []
        places = Places()
        work = [Recorded(each, places, number, order) for number, each in enumerate(requests)]
        with Sources() as sources:
            results = for_all_images(iter(work), sources, jobs=threads, with_repeated=with_repeated)
        assert results.complete
        by_name: dict[str, list[int]] = {}
        for name, number in order:
            by_name.setdefault(name, []).append(number)
        return results.items, by_name

    assert run(jobs) == run(1)


def test_the_memory_for_thousands_of_tags_is_that_of_their_names_and_results() -> None:
    tags = 10_000
    name = "r.example/team/x"
    locked = {parse_reference(f"{name}:{tag}"): "sha256:" + "0" * 64 for tag in range(tags)}
    request = Request(wish_for(f"{name}:1"), "list", locked)
    processed = itertools.count(1)
    threads = 0

    class Counted(WishWork[int]):
        def act(self, image: RequestedImage) -> int:
            nonlocal threads
            threads = max(threads, threading.active_count())
            return next(processed)

        def failed(self, name: str, reference: str, error: Exception) -> int:
            raise error

    before = threading.active_count()
    tracemalloc.start()
    try:
        with Sources() as sources:
            results = for_all_images([Counted(request, Places())], sources, jobs=JOBS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sorted(results.items) == list(range(1, tags + 1))
    assert threads <= before + JOBS
    assert peak < 1500 * tags, peak / tags
