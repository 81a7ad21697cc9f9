"""How often clients may send requests."""

from __future__ import annotations

import json

import pytest
from starlette.requests import Request
from starlette.responses import Response

from publisher.service.access import Access, Anonymous, Verb
from publisher.service.configuration import Limits
from publisher.service.web import rates as rates_module
from publisher.service.web.application import application
from publisher.service.web.context import Context
from publisher.service.web.guard import GuardedRoute
from publisher.service.web.rates import Rate, Rates, TooManyRequests, network_of
from tests.asgi import request


class Clock:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(rate: Rate, sender: str) -> int:
    """How many requests a sender may send now."""
    count = 0
    while True:
        try:
            rate.take(sender)
        except TooManyRequests as error:
            assert error.seconds >= 1 and str(error.seconds) in error.hint
            return count
        count += 1


def test_a_sender_has_so_many_requests_at_once_and_then_so_many_in_a_minute() -> None:
    clock, allowed = Clock(), 60
    rate = Rate("requests", lambda: allowed, clock, share=0.5)
    assert taken(rate, "a") == 30 and taken(rate, "b") == 30
    clock.now += 10
    assert taken(rate, "a") == 10
    clock.now -= 1000  # a clock that is set back gives nothing, and takes nothing
    assert taken(rate, "a") == 0
    clock.now += 100_000
    assert taken(rate, "a") == 30
    allowed = 2  # another configuration
    clock.now += 100_000
    assert taken(rate, "a") == 1


def test_the_memory_of_senders_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "_MOST_SENDERS", 3)
    rate = Rate("requests", lambda: 1, Clock())
    for sender in "abcd":
        assert taken(rate, sender) == 1
    assert taken(rate, "d") == 0 and taken(rate, "a") == 1


def test_wrong_tokens_are_counted_by_network_and_end_no_other_requests() -> None:
    clock = Clock()
    rates = Rates(Limits, clock)
    for _ in range(30):
        rates.refused("2001:db8::1")
    with pytest.raises(TooManyRequests):
        rates.refused("2001:db8::2")
    rates.refused("2001:db8:0:1::1")
    rates.refused("192.0.2.1")
    rates.arrived("2001:db8::1")  # it may be the address of a proxy
    clock.now += 60
    rates.refused("2001:db8::2")
    assert network_of("testclient") == "testclient"


def test_writes_are_counted_by_name_or_by_address() -> None:
    rates = Rates(lambda: Limits(writes=1), Clock())
    rates.changing("a", "192.0.2.1")
    rates.changing("b", "192.0.2.1")
    with pytest.raises(TooManyRequests):
        rates.changing("a", "192.0.2.2")
    rates.changing("", "192.0.2.1")
    with pytest.raises(TooManyRequests):
        rates.changing("", "192.0.2.1")


def test_a_browser_receives_a_page_with_the_cure_also_if_requests_are_too_many_or_fail() -> None:
    async def fails(received: Request) -> Response:
        raise RuntimeError("a defect")

    async def answers(received: Request) -> Response:
        return Response("page")

    context = Context(
        lambda: (), lambda: Access(Anonymous.EVERYTHING), limits=lambda: Limits(requests=6)
    )
    routes = [
        GuardedRoute("/a/broken", fails, Verb.PROBE),
        GuardedRoute("/a/page", answers, Verb.LOGIN),
        GuardedRoute("/b/{path:path}", answers, Verb.BROWSE),
    ]
    app = application(context, routes)
    html = {"Accept": "text/html"}
    assert request(app, "GET", "/a/page", html).status_code == 200  # the only one in ten seconds
    for path, status, cure in (
        ("/a/page", 429, "send the request again after 10 seconds"),
        ("/a/broken", 500, "report the traceback in the log as a defect"),
    ):
        page = request(app, "GET", path, html)
        assert (page.status_code, page.header("content-type")) == (
            status,
            "text/html; charset=utf-8",
        )
        assert f"<p>{cure}</p>" in page.text and 'href="../static/site.css?' in page.text
        document = request(app, "GET", path)
        assert document.header("content-type") == "application/problem+json"
        assert json.loads(document.body)["hint"] == cure
        assert page.header("retry-after") == document.header("retry-after")
    assert page.header("retry-after") == ""
    refused = request(app, "GET", "/api/v1/repositories", html)
    assert (refused.status_code, refused.json()["status"]) == (429, 429)
    assert refused.header("retry-after") == "10"
    deep = [request(app, "GET", "/b" + "/" * depth, html) for depth in (100, 8000)]
    assert [each.status_code for each in deep] == [429, 429]
    assert deep[0].body == deep[1].body and len(deep[0].body) < 10_000
