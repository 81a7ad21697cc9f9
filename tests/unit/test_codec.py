"""The codec of JSON records: strict types, kept keys, versions, and errors that name fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.codec import (
    AsArray,
    Check,
    Codec,
    JsonObject,
    Malformed,
    UnknownVersion,
    load_object,
    omit_default,
)
from tests.mutations import mutated, nested


@dataclass(frozen=True, slots=True)
class Move(AsArray):
    source: str
    target: str
    count: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    digest: Annotated[str, Check(lambda text: text.startswith("sha256:"), "is not a digest")]
    size: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    full_name: str
    moment: datetime
    parts: tuple[Part, ...] = ()
    moves: tuple[Move, ...] = ()
    names: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)
    last_day: date | None = None
    flag: bool = omit_default(False)
    extra: Mapping[str, Any] = field(default_factory=dict)


CODEC = Codec(Example, version=3, extra="extra")
EXAMPLE = Example(
    "a",
    datetime(2026, 11, 20, 12, tzinfo=UTC),
    (Part("sha256:1", 4), Part("sha256:2")),
    (Move("x", "y"), Move("\udc80", "z", 2)),
    frozenset({"b", "a"}),
    {"n": 1},
    date(2026, 1, 2),
    True,
    {"other": [1]},
)
TEXT = json.loads(CODEC.dump(EXAMPLE))


def test_a_record_is_written_as_json_dumps_with_one_space_and_read_back() -> None:
    assert CODEC.dump(EXAMPLE) == json.dumps(TEXT, indent=1).encode() + b"\n"
    assert list(TEXT) == [
        *("version", "fullName", "moment", "parts", "moves", "names", "counts"),
        *("lastDay", "flag", "other"),
    ]
    assert TEXT["names"] == ["a", "b"]
    assert TEXT["moves"] == [["x", "y", 0], ["\udc80", "z", 2]]
    assert CODEC.parse(CODEC.dump(EXAMPLE)) == EXAMPLE


def test_a_missing_key_has_the_default_of_its_field() -> None:
    found = CODEC.parse(b'{"version": 3, "fullName": "a", "moment": "2026-11-20T12:00:00Z"}')
    assert found == Example("a", EXAMPLE.moment)
    assert "flag" not in json.loads(CODEC.dump(found))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fullName", 1, "fullName is not a string"),
        ("fullName", None, "fullName is not a string"),
        ("moment", "yesterday", "moment is not a time such as 2026-11-20T08:15:00Z"),
        ("parts", {}, "parts is not a list"),
        ("parts", [{"digest": "sha256:1"}, {"digest": "1"}], "parts[1].digest is not a digest"),
        ("parts", [{}], "parts[0].digest is missing"),
        ("parts", [{"digest": "sha256:1", "size": True}], "parts[0].size is not an integer"),
        ("parts", [{"digest": "sha256:1", "size": 1.5}], "parts[0].size is not an integer"),
        ("moves", [["x"]], "moves[0] is not an array of 3 values"),
        ("moves", [["x", "y", "z"]], "moves[0][2] is not an integer"),
        ("names", [1], "names[0] is not a string"),
        ("counts", {"n": "1"}, "counts.n is not an integer"),
        ("lastDay", "2026-13-01", "lastDay is not a day such as 2026-11-20"),
        ("flag", 1, "flag is neither true nor false"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_the_name_of_its_field(
    key: str, value: object, message: str
) -> None:
    with pytest.raises(Malformed) as caught:
        CODEC.parse(json.dumps(TEXT | {key: value}))
    assert str(caught.value).startswith(message)
    assert caught.value.field.startswith(key)


@pytest.mark.parametrize("version", [2, 4, "3", True])
def test_another_version_is_refused(version: object) -> None:
    with pytest.raises(UnknownVersion, match="and this program reads 3"):
        CODEC.parse(json.dumps(TEXT | {"version": version}))


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", nested(100_000), b'{"version": null}'])
def test_json_that_is_not_a_record_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        CODEC.parse(data)


def test_a_whole_number_may_be_written_with_a_fraction() -> None:
    parts = [{"digest": "sha256:1", "size": 4.0}]
    assert CODEC.parse(json.dumps(TEXT | {"parts": parts})).parts[0].size == 4


@given(mutated(TEXT) | st.binary())
def test_damaged_records_are_malformed_or_can_be_written_again(data: bytes) -> None:
    try:
        found = CODEC.parse(data)
    except Malformed:
        return
    assert CODEC.parse(CODEC.dump(found)) == found


def test_an_object_is_needed() -> None:
    assert load_object(b'{"a": 1}') == {"a": 1}
    with pytest.raises(Malformed, match="not a JSON object"):
        load_object(b"1")


@dataclass(frozen=True, slots=True)
class Measured:
    seconds: float
    other: JsonObject = field(default_factory=lambda: JsonObject("{}"))


def test_a_number_is_read_from_any_json_number_and_from_nothing_else() -> None:
    codec = Codec(Measured)
    assert codec.parse('{"seconds": 3}').seconds == codec.parse('{"seconds": 3.0}').seconds == 3
    for value in ("true", "null", '"3"', "1" + "0" * 400):
        with pytest.raises(Malformed, match="seconds is not a number"):
            codec.parse(f'{{"seconds": {value}}}')


def test_a_json_object_of_another_format_is_kept_as_it_is() -> None:
    codec = Codec(Measured)
    other = '{"b": [1.0, null], "a": {"\\ud800": true}}'
    data = f'{{"seconds": 1.5, "other": {other}}}'
    found = codec.parse(data)
    assert found.other == JsonObject(other) == JsonObject.parse(other)
    assert json.dumps(codec.to_value(found)) == data
    with pytest.raises(Malformed, match="other is not an object"):
        codec.parse('{"seconds": 1.5, "other": []}')
