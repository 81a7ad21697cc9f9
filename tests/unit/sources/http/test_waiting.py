from __future__ import annotations

import contextlib
import datetime
import email.utils
import itertools
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.oci.reference import parse_reference
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.http.answer import parse_retry_after
from publisher.sources.http.clock import Clock
from publisher.sources.http.deadline import RATE, Deadline, OutOfTime
from publisher.sources.http.exchange import Exchange
from publisher.sources.http.hosts import PROBE_SECONDS
from publisher.sources.http.retries import MAX_WAIT, backoff
from publisher.sources.open import Sources
from publisher.sources.settings import RegistrySettings, Settings
from tests.clocks import SkippingClock, StoppedClock
from tests.registry import OwnRegistry, wait_for
from tests.registry_auth import BearerAuth
from tests.registry_faults import dropped, held, slow, status
from tests.registry_images import fast_sources, open_image, read_blob, sample_image
from tests.threads import threads_in

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.fixture
def clock() -> SkippingClock:
    return SkippingClock()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999", None),
        ("Mon, 01 Jan 2024 99:99:99 GMT", None),
        ("Mon, 01 Jan 0000 00:00:00 GMT", 0),
        ("Mon, 31 Dec 9999 23:59:59 -9999", None),
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60),
        ("Friday, 02-Jan-26 03:04:15 GMT", 10),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("9" * 5000, 999_999_999),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(header: str, seconds: float | None) -> None:
    assert parse_retry_after(header, NOW) == seconds


@given(st.text())
def test_any_retry_after_header_is_parsed_without_an_error(header: str) -> None:
    found = parse_retry_after(header, NOW)
    assert found is None or found >= 0


@given(st.integers(1, 8))
def test_the_backoff_doubles_with_jitter(tries: int) -> None:
    assert 2 ** (tries - 1) / 2 <= backoff(tries, 1.0) <= 2 ** (tries - 1)


@pytest.mark.parametrize("code", [429, 503])
def test_a_requested_wait_in_seconds_is_observed(
    registry: OwnRegistry, clock: SkippingClock, code: int
) -> None:
    registry.add("library/x", "latest", sample_image())
    registry.misbehave(status(code, retry_after="1"), times=1)
    messages: list[str] = []
    with fast_sources(on_wait=messages.append, clock=clock) as sources:
        open_image(sources, registry).resolve()
    assert clock.waits == [1]
    assert messages == [f"waiting 1 s for {registry.host}: status {code}"]


def test_a_requested_wait_until_a_date_is_observed(
    registry: OwnRegistry, clock: SkippingClock
) -> None:
    registry.add("library/x", "latest", sample_image())
    until = email.utils.format_datetime(
        clock.utc_now() + datetime.timedelta(seconds=3), usegmt=True
    )
    registry.misbehave(status(429, retry_after=until), times=1)
    with fast_sources(clock=clock) as sources:
        open_image(sources, registry).resolve()
    assert clock.waits == [3]


def test_a_requested_wait_applies_to_all_requests_to_the_host(registry: OwnRegistry) -> None:
    registry.add("library/x", "latest", sample_image())
    registry.add("library/y", "latest", sample_image())
    registry.misbehave(status(429, retry_after="1"), path="/x/", times=1)
    clock = StoppedClock()
    with fast_sources(clock=clock) as sources, ThreadPoolExecutor(2) as pool:
        first = pool.submit(open_image(sources, registry, "library/x").resolve)
        wait_for(lambda: clock.waiting == 1)
        second = pool.submit(open_image(sources, registry, "library/y").resolve)
        wait_for(lambda: clock.waiting == 2)
        assert registry.count() == 1
        clock.advance(1)
        assert first.result(60) and second.result(60)


def test_other_hosts_do_not_wait(registry: OwnRegistry) -> None:
    clock = StoppedClock()
    with (
        OwnRegistry() as other,
        fast_sources(clock=clock) as sources,
        ThreadPoolExecutor(1) as pool,
    ):
        other.add("library/x", "latest", sample_image())
        registry.add("library/x", "latest", sample_image())
        registry.misbehave(status(429, retry_after="2"), times=1)
        waiting = pool.submit(open_image(sources, registry).resolve)
        wait_for(lambda: clock.waiting == 1)
        assert open_image(sources, other).resolve()
        assert not waiting.done()
        clock.advance(2)
        assert waiting.result(60)


def test_a_requested_wait_above_the_limit_is_an_error_for_all_requests_to_the_host(
    registry: OwnRegistry, clock: SkippingClock
) -> None:
    registry.misbehave(status(429, retry_after="7200"))
    with fast_sources(clock=clock) as sources:
        for name in ("a", "b", "c"):
            with pytest.raises(SourceError, match="asks to wait 7200 seconds"):
                open_image(sources, registry, name).resolve()
    assert not clock.waits
    assert registry.count() == 1
    assert MAX_WAIT < 7200


def test_a_registry_that_never_stops_asking_to_wait_is_an_error(
    registry: OwnRegistry, sources: Sources
) -> None:
    registry.misbehave(status(429, retry_after="0"))
    with pytest.raises(SourceError, match="status 429"):
        open_image(sources, registry).resolve()
    assert registry.count() <= 10


def test_no_more_than_four_requests_to_a_host_are_in_flight(
    registry: OwnRegistry, sources: Sources
) -> None:
    released = threading.Event()
    registry.add("library/x", "latest", sample_image())
    registry.misbehave(held(released))
    with ThreadPoolExecutor(12) as pool:
        futures = [pool.submit(open_image(sources, registry).resolve) for _ in range(40)]
        try:
            wait_for(lambda: registry.count() == 4)
            wait_for(lambda: threads_in(threading.Semaphore.acquire) == 8)
            assert registry.count() == 4
        finally:
            released.set()
        assert all(future.result(60) for future in futures)
    assert registry.connections == 4


def test_one_slot_is_enough_for_tokens_refusals_and_blobs() -> None:
    """No request waits for a slot that its own caller holds."""
    built = sample_image()
    with OwnRegistry(BearerAuth()) as registry:
        registry.add("library/x", "latest", built)
        registry.misbehave(status(404), path="/absent/")
        settings = Settings({registry.host: RegistrySettings(max_concurrent=1)})

        def use(sources: Sources) -> None:
            source = open_image(sources, registry)
            assert source.manifest() == built.manifest
            assert read_blob(source, built.layers[0].descriptor) == built.layers[0].blob
            with pytest.raises(ImageNotFound):
                open_image(sources, registry, "absent/x").resolve()

        with fast_sources(settings) as sources, ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(use, sources) for _ in range(4)]:
                future.result(timeout=30)


def test_slow_downloads_from_one_host_do_not_delay_another(sources: Sources) -> None:
    released = threading.Event()
    with OwnRegistry() as lame, OwnRegistry() as swift:
        for registry in (lame, swift):
            registry.add("library/x", "latest", sample_image())
        lame.misbehave(held(released))
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(open_image(sources, lame).resolve) for _ in range(8)]
            try:
                wait_for(lambda: lame.count() == 4)
                assert open_image(sources, swift).resolve()
                assert not any(future.done() for future in futures)
            finally:
                released.set()
            assert all(future.result(60) for future in futures)


SILENT = ("publisher.sources.http.exchange.TIMEOUTS", (60.0, 0.05))
"""A short time for the next piece of an answer, where the test's registry sends none."""


def test_few_images_wait_for_a_host_that_never_answers(
    registry: OwnRegistry, clock: SkippingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of thousands of wishes would wait for it, and keep those of other hosts waiting."""
    monkeypatch.setattr(*SILENT)
    registry.add("library/x", "latest", sample_image())
    registry.misbehave(slow(delay=300))
    with fast_sources(clock=clock) as sources:
        for number in range(200):
            with pytest.raises(SourceError, match="no answer in time") as caught:
                open_image(sources, registry, f"library/x{number}").resolve()
            assert not isinstance(caught.value, ImageNotFound)
        assert registry.count() == 5, "the tries of the first image"


def test_a_host_that_was_down_is_used_again_when_one_request_gets_through(
    registry: OwnRegistry, clock: SkippingClock
) -> None:
    registry.add("library/x", "latest", sample_image())
    registry.misbehave(slow(delay=300))
    with fast_sources(clock=clock) as sources:
        source = open_image(sources, registry)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*SILENT)
            with pytest.raises(SourceError, match="tried 5 times"):
                source.resolve()
            with pytest.raises(SourceError, match="shortly before: no answer in time"):
                source.resolve()
            clock.advance(PROBE_SECONDS)
            with pytest.raises(SourceError, match=r"latest: no answer in time$"):
                source.resolve()
            assert registry.count() == 6
        registry.heal()
        with pytest.raises(SourceError, match="shortly before: no answer in time"):
            source.resolve()
        clock.advance(PROBE_SECONDS)
        for _ in range(3):
            assert source.resolve()


def test_a_host_is_not_down_because_one_of_its_addresses_never_works(registry: OwnRegistry) -> None:
    """Another request is answered before the last try for that address ends."""
    answered = threading.Event()
    registry.add("library/good", "latest", sample_image())
    registry.misbehave(dropped(), path="/bad/", times=4)
    registry.misbehave(held(answered, dropped()), path="/bad/", skip=4)
    with fast_sources() as sources, ThreadPoolExecutor(1) as pool:
        bad = pool.submit(open_image(sources, registry, "library/bad").resolve)
        try:
            wait_for(lambda: registry.count(path="/bad/") == 5)
            assert open_image(sources, registry, "library/good").resolve()
        finally:
            answered.set()
        with pytest.raises(SourceError, match="tried 5 times"):
            bad.result(60)
        assert open_image(sources, registry, "library/good").resolve()


def test_a_wait_of_zero_is_not_reported_as_a_wait(registry: OwnRegistry) -> None:
    registry.add("library/x", "latest", sample_image())
    registry.misbehave(status(429, retry_after="0"), times=3)
    reported: list[str] = []
    with fast_sources(on_wait=reported.append) as sources:
        assert open_image(sources, registry).resolve()
    assert not reported


def limited(registry: OwnRegistry, seconds: float) -> Settings:
    timeout = datetime.timedelta(seconds=seconds)
    return Settings({registry.host: RegistrySettings(image_timeout=timeout)})


def test_an_image_whose_registry_asks_to_wait_again_and_again_ends_at_its_timeout(
    registry: OwnRegistry, clock: SkippingClock
) -> None:
    registry.misbehave(status(429, retry_after="1"))
    with fast_sources(limited(registry, 2), clock=clock) as sources:
        source = open_image(sources, registry)
        with pytest.raises(OutOfTime, match=r"not served within 2 s \(status 429\)"):
            source.manifest()
        assert clock.waits == [1, 1]
        with pytest.raises(OutOfTime):
            source.manifest()
        assert clock.waits == [1, 1]
        assert registry.count() == 3


@pytest.mark.parametrize("where", ["manifest", "blob"])
def test_an_image_whose_registry_sends_byte_by_byte_ends_at_its_timeout(
    registry: OwnRegistry, where: str
) -> None:
    built = sample_image()
    registry.add("library/x", "latest", built)
    registry.misbehave(slow(pause=0.05, piece=1), method="GET")
    with fast_sources(limited(registry, 0.2)) as sources:
        source = open_image(sources, registry)
        with pytest.raises(OutOfTime, match="not served within"):
            if where == "manifest":
                source.manifest()
            else:
                read_blob(source, built.layers[0].descriptor)


class _CountingClock(Clock):
    """Each look at the clock takes a second."""

    def __init__(self) -> None:
        self._looks = itertools.count()

    def monotonic(self) -> float:
        return float(next(self._looks))


def test_waiting_for_the_rest_of_an_answer_that_is_not_used_takes_time_of_the_image(
    registry: OwnRegistry,
) -> None:
    """A registry may announce a short body with each redirect or refusal, and never send it."""
    with closing(Exchange(Settings(), clock=_CountingClock())) as exchange:
        deadline = exchange.deadline_after(100)
        with exchange.request("GET", f"{registry.url}/v2/", deadline=deadline):
            left = deadline.left
        assert deadline.left < left
        with exchange.request("GET", f"{registry.url}/v2/", deadline=deadline) as answer:
            while deadline.left > 0:
                with deadline.waiting():
                    pass
            left = deadline.left
        assert deadline.left == left  # nothing is awaited any more
        assert answer.status == 200


def test_a_registry_that_sends_a_header_byte_by_byte_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("publisher.sources.http.connections.SLOW_AFTER", 0.2)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client, contextlib.suppress(OSError):
                    client.recv(65536)
                    client.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                    while not stop.wait(0.05):
                        client.sendall(b"y")

        threading.Thread(target=serve, daemon=True).start()
        name = f"http://127.0.0.1:{listener.getsockname()[1]}/x:1"
        with fast_sources() as sources, pytest.raises(SourceError, match="bytes arrived in"):
            sources.open(parse_reference(name)).manifest()
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)


def test_a_download_that_makes_progress_may_take_longer_than_the_timeout() -> None:
    """64 KiB give one second back, up to the whole time."""
    clock = SkippingClock()
    deadline = Deadline(900, clock)
    for _ in range(100):
        with deadline.waiting():
            clock.advance(60)
        deadline.received(60 * RATE)
    assert deadline.left == 900
    with deadline.waiting(), deadline.waiting():
        clock.advance(600)
    assert deadline.left == 300, "two threads that wait together use the time once"
    clock.advance(10_000)
    assert deadline.left == 300, "unpacking uses none of it"
    deadline.check("cannot", "status 429", 300)
    with pytest.raises(OutOfTime):
        deadline.check("cannot", "status 429", 301)
