"""A pinned image stays as it is: not moved, not scheduled, not collected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.ingest.plan import plan
from publisher.ingest.report import Status
from publisher.removal.pins import InvalidPin, NotPinned, list_pins, pin, unpin
from publisher.removal.schedule import list_schedule, remove
from publisher.repository.reading import load_schedule
from publisher.tree.pins import ImagePinned, Pin, Pins
from publisher.tree.record import InvalidRecord
from publisher.tree.users import ImageUsers, SquashfsFile
from publisher.wishlist.model import Request
from tests.any_repository import KINDS
from tests.command import error_data
from tests.layer_builder import file, image, layer, write_layout
from tests.mutations import mutated
from tests.removal_tree import NOON, Tree, new_tree
from tests.schemas import layout_schema, refuses

FIRST, SECOND = image(layer(file("one"))), image(layer(file("two")))
X = "local/app:x"
EXACT = f"{X}@{FIRST.manifest.digest}"


@pytest.fixture(params=KINDS)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    with new_tree(request.param, tmp_path) as made:
        yield made


def test_the_tag_of_a_pinned_image_does_not_move(tree: Tree) -> None:
    tree.publish("x", FIRST)
    pin(tree.repository, X, tree.clock, reason="survey")
    outcome = tree.publish("x", SECOND)
    assert outcome.status is Status.PINNED and "survey" in outcome.remark
    assert outcome.digest == SECOND.manifest.digest
    assert (tree.root / X / "one").exists()
    assert tree.publish("x", FIRST).status is Status.UNCHANGED
    unpin(tree.repository, X, tree.clock)
    assert tree.publish("x", SECOND).status is Status.UPDATED


def test_a_plan_reports_what_is_pinned_and_what_has_expired(tree: Tree) -> None:
    tree.publish("x", FIRST)
    pin(tree.repository, X, tree.clock)
    write_layout(SECOND, tree.layout, "x")
    requests = [Request(tree.wish("x")), Request(tree.wish("y", expires=NOON.date()))]
    planned = plan(requests, tree.repository, tree.sources, NOON, jobs=1)
    assert [image.status for image in planned] == [Status.PINNED, Status.EXPIRED]


def test_a_pin_that_comes_while_an_image_is_prepared_still_holds_its_tag(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.publish("x", FIRST)

    def check_then_pin(*arguments: object) -> None:
        pin(tree.repository, X, tree.clock)

    monkeypatch.setattr("publisher.ingest.wanted._check_pins", check_then_pin)
    assert tree.publish("x", SECOND).status is Status.PINNED
    assert (tree.root / X / "one").exists()


def test_a_pinned_image_cannot_be_removed_and_the_error_has_the_reason(tree: Tree) -> None:
    tree.publish("x", FIRST)
    pin(tree.repository, X, tree.clock, until=date(2026, 12, 1), reason="survey")
    with pytest.raises(ImagePinned, match="until 2026-12-01: survey") as caught:
        remove(tree.repository, [X], tree.clock)
    error = caught.value
    assert (error.name, error.until, error.reason) == (X, date(2026, 12, 1), "survey")


def test_pinning_takes_an_image_off_the_schedule(tree: Tree) -> None:
    tree.publish("x", FIRST)
    remove(tree.repository, [X], tree.clock, drop_link=True)
    pin(tree.repository, X, tree.clock)
    assert not load_schedule(tree.repository).entries
    assert tree.links() == [X]
    tree.assert_sound()


def test_an_image_that_its_tag_left_can_be_pinned_and_is_not_collected(tree: Tree) -> None:
    tree.publish("x", FIRST, days=10)
    tree.publish("x", SECOND, days=10)
    with pytest.raises(InvalidPin) as raised:
        pin(tree.repository, EXACT, tree.clock, until=date(2026, 11, 19))
    assert error_data(raised.value) == {"image": EXACT, "until": "2026-11-19"}
    pin(tree.repository, EXACT, tree.clock, until=date(2026, 12, 24))
    tree.now = datetime(2026, 12, 24, 23, 59, 59, tzinfo=UTC)
    assert tree.collected(at_once=True) == []
    tree.now += timedelta(seconds=1)
    assert tree.collected() == [X]
    assert list_pins(tree.repository) == ()


def test_the_last_representable_day_is_accepted_for_a_pin_and_the_clock(tree: Tree) -> None:
    tree.publish("x", FIRST, days=10)
    tree.now = datetime(9999, 12, 30, tzinfo=UTC)
    tree.publish("x", SECOND, days=10)
    (planned,) = list_schedule(tree.repository, tree.now)
    assert planned.entry.not_before == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    pin(tree.repository, EXACT, tree.clock, until=date(9999, 12, 31))
    (planned,) = list_schedule(tree.repository, tree.now)
    assert planned.held_until == planned.entry.not_before
    unpin(tree.repository, EXACT, tree.clock)
    remove(tree.repository, [X], tree.clock)
    assert tree.collected() == []
    assert len(tree.collected(at_once=True)) == 2


def test_unpinning_gives_the_whole_grace_period_again(tree: Tree) -> None:
    tree.publish("x", FIRST, days=10)
    tree.publish("x", SECOND, days=10)
    pin(tree.repository, EXACT, tree.clock)
    tree.now += timedelta(days=100)
    unpin(tree.repository, EXACT, tree.clock)
    assert tree.collected() == []
    tree.now += timedelta(days=10)
    assert tree.collected() == [X]


def test_what_is_not_pinned_cannot_be_unpinned(tree: Tree) -> None:
    tree.publish("x", FIRST)
    with pytest.raises(NotPinned) as raised:
        unpin(tree.repository, X, tree.clock)
    assert error_data(raised.value) == {"name": X}


def test_an_earlier_image_is_not_pinned_by_the_name_alone(tree: Tree) -> None:
    tree.publish("x", FIRST)
    tree.publish("x", SECOND)
    remove(tree.repository, [X], tree.clock, grace=timedelta(0))
    assert tree.collected() == [X]
    with pytest.raises(NotPinned, match="only earlier images of its tag exist") as raised:
        pin(tree.repository, X, tree.clock)
    assert error_data(raised.value) == {"name": X}


def test_only_what_is_published_is_pinned_unless_one_manifest_is_named(tree: Tree) -> None:
    tree.publish("x", FIRST)
    tree.publish("x", SECOND)
    (made,) = pin(tree.repository, X, tree.clock)
    assert made.manifest_digest == SECOND.manifest.digest


DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
PINS = st.lists(
    st.builds(
        Pin, st.text(min_size=1), DIGESTS, MOMENTS, st.none() | st.dates(), st.text(max_size=9)
    ),
    max_size=3,
).map(lambda pins: Pins(tuple(pins)))
USERS_OF_IMAGES = st.frozensets(st.tuples(st.text(min_size=1), DIGESTS), max_size=4)
USERS = st.builds(
    ImageUsers,
    USERS_OF_IMAGES,
    st.just(0) | st.integers(2, 9),
    st.none() | st.builds(SquashfsFile, DIGESTS, st.integers(0)),
)
SAMPLE_PINS = Pins((Pin(X, FIRST.manifest.digest, NOON, date(2027, 1, 1), "why"),))
SAMPLE_USERS = ImageUsers(frozenset({(X, FIRST.manifest.digest)}))


@given(PINS)
def test_pins_are_read_back_and_match_their_schema(pins: Pins) -> None:
    assert Pins.parse(pins.to_bytes(), "pins.json") == pins
    layout_schema("pins").validate(json.loads(pins.to_bytes()))


@given(USERS)
def test_users_are_read_back_and_match_their_schema(users: ImageUsers) -> None:
    assert ImageUsers.parse(users.to_bytes(), "x.json") == users
    layout_schema("image-users").validate(json.loads(users.to_bytes()))


@given(mutated(*(json.loads(r.to_bytes()) for r in (SAMPLE_PINS, SAMPLE_USERS))) | st.binary())
def test_damaged_records_are_refused_as_invalid(data: bytes) -> None:
    for kind, schema in ((Pins, "pins"), (ImageUsers, "image-users")):
        try:
            found = kind.parse(data, "record.json")
        except InvalidRecord as error:
            assert "record.json" in str(error)
            try:
                value = json.loads(data)
            except (ValueError, RecursionError):
                continue
            assert refuses(layout_schema(schema), value)
        else:
            assert kind.parse(found.to_bytes(), "record.json") == found
