"""Whatever exception one image causes, at whatever call, the others are published."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import PublisherError
from publisher.ingest.check import check
from publisher.ingest.plan import plan
from publisher.ingest.report import Outcome, Report, Silent, Status
from publisher.ingest.run import ingest
from publisher.ingest.thin_push import Pushed
from publisher.removal.prune import GivenList, prune
from publisher.repository import RepositoryBusy, RepositoryError
from publisher.sources.open import Sources
from publisher.wishlist import Wish, WishList, wish_for
from publisher.wishlist.model import Request
from tests.layer_builder import file, image, layer, write_layout
from tests.memory_repository import MemoryRepository

GOOD, BAD = "good", "bad"
MOST_CALLS = 300


class Unexpected(Exception):
    """An exception that no code expects."""


class Fault:
    """Raises at the n-th call while it is armed."""

    def __init__(self, number: int, error: BaseException) -> None:
        self.left = number
        self.error = error
        self.armed = False
        self.raised = False

    def call(self) -> None:
        if not self.armed:
            return
        self.left -= 1
        if self.left == 0:
            self.raised = True
            raise self.error


class Proxy:
    """Anything, with a fault before each call of one of its methods, and of what those return."""

    def __init__(self, target: Any, fault: Fault) -> None:
        self._target = target
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def called(*arguments: Any, **options: Any) -> Any:
            self._fault.call()
            result = found(*arguments, **options)
            if isinstance(result, AbstractContextManager):
                return self._entered(result)
            return Proxy(result, self._fault) if hasattr(result, "resolve") else result

        return called

    @contextmanager
    def _entered(self, context: AbstractContextManager[Any]) -> Iterator[Any]:
        with context as value:
            plain = value is None or isinstance(value, Iterator)
            yield value if plain else Proxy(value, self._fault)


class Arming(Silent):
    """Arms a fault as long as the bad image is processed."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault

    def image_step(self, name: str, step: str) -> None:
        self.fault.armed = BAD in name

    def image_done(self, outcome: Outcome) -> None:
        self.fault.armed = False


@pytest.fixture
def wishes(tmp_path: Path) -> list[Wish]:
    for tag in (BAD, GOOD):
        write_layout(image(layer(file(tag))), tmp_path / "app", tag)
    return [wish_for(f"oci:{tmp_path}/app:{tag}") for tag in (BAD, GOOD)]


def published_with(
    wishes: list[Wish], fault: Fault, moved: Callable[[], object] = lambda: None
) -> Report:
    """Publish both images; then move the bad tag, and publish again with the fault."""
    repository = MemoryRepository()
    requests = [Request(wish, "/lists/a") for wish in wishes]
    with Sources() as sources:
        ingest(requests[:1], repository, sources, jobs=1)
        moved()
        return ingest(
            requests,
            Proxy(repository, fault),
            Proxy(sources, fault),  # type: ignore[arg-type]
            jobs=1,
            progress=Arming(fault),
        )


def test_an_unexpected_error_at_any_call_is_the_failure_of_its_image(
    tmp_path: Path, wishes: list[Wish], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="publisher")
    failed = 0
    for number in range(1, MOST_CALLS):
        fault = Fault(number, Unexpected("boom"))
        write_layout(image(layer(file(BAD))), tmp_path / "app", BAD)
        moved = image(layer(file("moved", b"%d" % number)))
        report = published_with(wishes, fault, partial(write_layout, moved, tmp_path / "app", BAD))
        bad, good = report.outcomes
        assert good.status is Status.PUBLISHED, number
        if not fault.raised:
            assert bad.status is Status.UPDATED
            break
        assert bad.status is Status.FAILED, number
        assert "unexpected error: Unexpected: boom" in bad.error
        failed += 1
    else:
        pytest.fail("the calls have no end")
    assert failed > 30


def test_an_unexpected_error_of_one_tag_of_a_pattern_is_the_failure_of_that_tag(
    wishes: list[Wish],
) -> None:
    image = replace(wishes[0].image, tag=None)
    request = Request(replace(wishes[0], image=image, tags=("*",)), "/lists/a")
    with FailingSources() as sources:
        report = ingest([request], MemoryRepository(), sources, jobs=1)
    bad, good = sorted(report.outcomes, key=lambda outcome: outcome.name)
    assert (bad.name, bad.status) == ("local/app:bad", Status.FAILED)
    assert "unexpected error: Unexpected: boom" in bad.error
    assert (good.name, good.status, good.error) == ("local/app:good", Status.PUBLISHED, "")


class NoRecordsOfThinImages(MemoryRepository):
    """Raises an error where the run records which thin images it pushed."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def transaction(self, purpose: str) -> Any:
        if purpose == "recording thin images":
            raise self.error
        return super().transaction(purpose)


@pytest.fixture
def thin_request(wishes: list[Wish], monkeypatch: pytest.MonkeyPatch) -> Request:
    pushed = Pushed("example.org/thin:1", "sha256:" + "a" * 64, True)
    monkeypatch.setattr("publisher.ingest.thin_push.push_thin", lambda *_: pushed)
    wish = replace(wishes[0], outputs=("flat", "thin"), thin="example.org/thin:1")
    return Request(wish, "/lists/a")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, "full"), "No space left on device"),
        (PublisherError("cannot write"), "cannot write"),
        (Unexpected("boom"), "unexpected error: Unexpected: boom"),
    ],
)
def test_a_failure_to_record_thin_images_is_that_of_their_images_alone(
    wishes: list[Wish], thin_request: Request, error: Exception, why: str
) -> None:
    with Sources() as sources:
        requests = [thin_request, Request(wishes[1], "/lists/a")]
        report = ingest(requests, NoRecordsOfThinImages(error), sources, jobs=1)
    bad, good = report.outcomes
    assert (bad.status, good.status) == (Status.PUBLISHED, Status.PUBLISHED)
    assert "thin image was pushed, but not recorded" in bad.error
    assert why in bad.error
    assert not good.error


def test_a_repository_that_fails_while_thin_images_are_recorded_ends_the_run(
    thin_request: Request,
) -> None:
    with Sources() as sources, pytest.raises(RepositoryError, match="gone"):
        ingest([thin_request], NoRecordsOfThinImages(RepositoryError("gone")), sources, jobs=1)


def test_the_traceback_of_an_unexpected_error_is_logged(
    wishes: list[Wish], caplog: pytest.LogCaptureFixture
) -> None:
    published_with(wishes, Fault(1, Unexpected("boom")))
    (record,) = [each for each in caplog.records if each.exc_info]
    assert record.exc_info is not None and "local/app:bad" in record.getMessage()


def test_an_error_of_the_whole_repository_ends_the_run(wishes: list[Wish]) -> None:
    with pytest.raises(RepositoryBusy):
        published_with(wishes, Fault(3, RepositoryBusy("busy")))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_an_interruption_ends_the_run(wishes: list[Wish], error: BaseException) -> None:
    with pytest.raises(type(error)):
        published_with(wishes, Fault(3, error))


class FailingSources(Sources):
    """Raises an unexpected error for one image."""

    def open(self, reference: Any) -> Any:
        if reference.tag == BAD:
            raise Unexpected("boom")
        return super().open(reference)


def test_plan_and_check_report_an_unexpected_error_as_the_failure_of_its_image(
    tmp_path: Path, wishes: list[Wish]
) -> None:
    with FailingSources() as sources:
        requests = [Request(wish) for wish in wishes]
        planned = plan(requests, MemoryRepository(), sources, datetime.now(UTC), jobs=1)
        lines = [f"- 'oci:{tmp_path}/app:{tag}'" for tag in (BAD, GOOD)]
        text = "\n".join(["version: 2", "images:", *lines]).encode()
        checked = check([("list.yaml", text)], sources)
    assert [each.status for each in planned] == [Status.FAILED, Status.PUBLISHED]
    assert "unexpected error: Unexpected: boom" in planned[0].error
    assert [bool(each.error) for each in checked.images] == [True, False]
    assert "unexpected error: Unexpected: boom" in checked.images[0].error


def test_an_unexpected_error_keeps_prune_from_scheduling_anything(wishes: list[Wish]) -> None:
    repository = MemoryRepository()
    with FailingSources() as sources:
        with Sources() as all_sources:
            ingest([Request(wish, "/lists/a") for wish in wishes], repository, all_sources)
        by_pattern = replace(wishes[1], image=wishes[1].image.with_tag(BAD), tags=("*",))
        given = GivenList("/lists/a", WishList("a", 2, "", None, (by_pattern,)))
        report = prune(repository, [given], sources, lambda: datetime.now(UTC))
    assert not report.scheduled
    assert "unexpected error" in report.uncertain[0]


def test_prune_keeps_an_image_whose_records_cause_an_unexpected_error(wishes: list[Wish]) -> None:
    class Failing(MemoryRepository):
        def read(self, path: str) -> bytes | None:
            if failing and path.endswith(f":{BAD}/manifest.json"):
                raise Unexpected("boom")
            return super().read(path)

    failing = False
    repository = Failing()
    with Sources() as sources:
        ingest([Request(wish, "/lists/a") for wish in wishes], repository, sources)
        failing = True
        given = GivenList("/lists/a", WishList("a", 2, "", None, (wishes[1],)))
        report = prune(repository, [given], sources, lambda: datetime.now(UTC))
    assert list(report.unreadable) == ["local/app:bad"]
    assert not report.scheduled
