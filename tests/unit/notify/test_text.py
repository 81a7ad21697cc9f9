"""The text that services show has no markup, mention or control character from outside."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from publisher.notify.model import MOST_EVENTS, Event, Kind, Message, Run
from publisher.notify.text import body_of, kind_of, title_of

RUN = Run("ingest", "dir:/srv/images", "build3", "2026-11-26T12:00:00Z")


def message(*events: Event) -> Message:
    return Message.of("id", RUN, events)


def test_a_message_has_a_line_for_each_event() -> None:
    digest = f"sha256:{'a' * 64}"
    value = message(
        Event(Kind.PUBLISHED, "docker.io/library/debian:12", f"is debian@{digest}"),
        Event(Kind.FAILED, "local/x:1", "no such tag", wish_list="/srv/w.yaml", line=4),
    ).value
    assert title_of(value) == "publisher ingest: 1 published, 1 failed (dir:/srv/images)"
    assert body_of(value).splitlines() == [
        f"published: docker.io/library/debian:12: is debian@{digest}",
        "failed: local/x:1: no such tag (/srv/w.yaml:4)",
        "on build3, 2026-11-26T12:00:00Z",
    ]
    assert kind_of(value) == "failure"
    assert kind_of(message(Event(Kind.RECOVERED, "x")).value) == "success"
    assert kind_of(message(Event(Kind.COLLECTED, "x")).value) == "info"


def test_of_very_many_events_the_first_are_named_and_the_others_counted() -> None:
    value = message(*[Event(Kind.FAILED, f"image{n}", "x" * 5000) for n in range(2000)]).value
    assert value["counts"] == {"failed": 2000}
    assert len(value["events"]) == MOST_EVENTS  # type: ignore[arg-type]
    lines = body_of(value).splitlines()
    assert len(lines) == 42 and lines[-2] == "and 1960 more"
    assert max(map(len, lines)) <= 300


@given(st.text(), st.text())
def test_no_text_from_outside_is_interpreted(name: str, text: str) -> None:
    hostile = f"<!channel> @everyone [x](http://e) `rm` {text}\n\x1b[2J\u202e\udcff"
    value = message(Event(Kind.FAILED, name, hostile, owner=text, wish_list=text, line=1)).value
    for shown in (title_of(value), *body_of(value).split("\n")):
        assert shown.isprintable()
        assert not set(shown) & set("<>[]`*|~")
        assert "@" not in re.sub("@sha(256|512):[0-9a-f]", "", shown)
    assert len(body_of(value).split("\n")) == 2
