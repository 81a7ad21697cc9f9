"""Metadata files follow their schemas, are read back unchanged, and are never misread."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.codec import JsonObject
from publisher.errors import InvalidManifest
from publisher.times import format_time, parse_time
from publisher.tree.origin import Origin
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import (
    RemoveSchedule,
    ScheduledRemoval,
    ScheduleSummary,
    parse_summary,
)
from tests.mutations import JSON_VALUES, mutated, nested
from tests.schemas import layout_schema, refuses

PATH = ".metadata/x/record.json"
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)

PUBLICATIONS = st.builds(
    Publication,
    name=st.text(min_size=1),
    reference=st.text(min_size=1),
    source_digest=DIGESTS,
    manifest_digest=DIGESTS,
    image_id=DIGESTS,
    platform=st.sampled_from(["linux/amd64", "linux/arm/v6"]),
    outputs=st.lists(st.sampled_from(["flat", "layers", "thin"]), unique=True).map(tuple),
    published_at=MOMENTS,
    wish_list=st.text(),
    owner=st.text(),
    note=st.text(),
    grace_seconds=st.integers(0, 10**10),
)
SCHEDULED = st.builds(
    ScheduledRemoval,
    name=st.sampled_from(["quay.io/a/b:1", "local/x:1"]) | st.text(min_size=1),
    reference=st.text(),
    manifest_digest=DIGESTS,
    image_id=DIGESTS,
    manifest=st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())).map(
        lambda value: JsonObject(json.dumps(value))
    ),
    reason=st.sampled_from(["tag-moved", "withdrawn", "removed"]),
    scheduled_at=MOMENTS,
    not_before=MOMENTS,
)
SCHEDULES = st.lists(SCHEDULED, max_size=4).map(tuple).map(RemoveSchedule)


@given(MOMENTS)
def test_times_are_read_back(moment: datetime) -> None:
    assert parse_time(format_time(moment)) == moment


def test_times_are_written_in_utc() -> None:
    eastern = timezone(timedelta(hours=-5))
    assert format_time(datetime(2026, 11, 20, 7, 0, tzinfo=eastern)) == "2026-11-20T12:00:00Z"


@given(st.frozensets(st.text()), st.dictionaries(st.text(), st.text() | st.lists(st.integers())))
def test_an_origin_is_read_back_with_keys_of_others(
    images: frozenset[str], extra: dict[str, Any]
) -> None:
    extra.pop("origin", None)
    origin = Origin(images, extra)
    assert Origin.parse(origin.to_bytes(), PATH) == origin
    plain = json.dumps({**extra, "origin": sorted(images)}, indent=1) + "\n"
    assert origin.to_bytes().decode() == plain


@given(*[st.frozensets(DIGESTS)] * 3)
def test_an_origin_is_read_back_with_its_chain_ids(
    images: frozenset[str], chains: frozenset[str], alternatives: frozenset[str]
) -> None:
    origin = Origin(images, {"other": 1}, chains, alternatives)
    assert Origin.parse(origin.to_bytes(), PATH) == origin
    lists = {"chains": chains, "alternatives": alternatives, "origin": images}
    written = {key: sorted(value) for key, value in lists.items() if value or key == "origin"}
    assert json.loads(origin.to_bytes()) == {"other": 1} | written
    layout_schema("origin").validate(json.loads(origin.to_bytes()))


@given(st.permutations(["sha256:1", "sha256:2", "sha256:3"]))
def test_equal_origins_are_equal_files_sorted_and_without_duplicates(order: list[str]) -> None:
    data = json.dumps({"origin": [*order, order[0]]}).encode()
    assert Origin.parse(data, PATH).to_bytes() == Origin(frozenset(order)).to_bytes()
    assert json.loads(Origin(frozenset(order)).to_bytes()) == {
        "origin": ["sha256:1", "sha256:2", "sha256:3"]
    }


@given(st.frozensets(st.text(max_size=3)), st.text(max_size=3))
def test_an_image_is_added_to_an_origin_and_removed(images: frozenset[str], image: str) -> None:
    origin = Origin(images, {"other": 1})
    assert origin.with_image(image).images == images | {image}
    assert origin.with_image(image).without_image(image).images == images - {image}
    assert origin.without_image(image).without_image(image) == origin.without_image(image)
    assert origin.with_image(image).extra == {"other": 1}


@given(PUBLICATIONS)
def test_a_publication_is_read_back(publication: Publication) -> None:
    assert Publication.parse(publication.to_bytes(), PATH) == publication


@given(PUBLICATIONS)
def test_a_publication_matches_its_schema(publication: Publication) -> None:
    layout_schema("publication").validate(json.loads(publication.to_bytes()))


@given(SCHEDULES)
def test_a_schedule_is_read_back(schedule: RemoveSchedule) -> None:
    assert RemoveSchedule.parse(schedule.to_bytes(), PATH) == schedule


@given(SCHEDULES)
def test_a_schedule_matches_its_schema(schedule: RemoveSchedule) -> None:
    layout_schema("schedule").validate(json.loads(schedule.to_bytes()))


@given(MOMENTS | st.none())
def test_a_summary_of_the_schedule_is_read_back_and_fits_its_schema(
    moment: datetime | None,
) -> None:
    summary = ScheduleSummary(moment)
    assert parse_summary(summary.to_bytes(), PATH) == summary
    layout_schema("remove-schedule").validate(json.loads(summary.to_bytes()))


@given(SCHEDULES)
def test_a_schedule_of_an_earlier_release_is_read_with_all_its_entries(
    schedule: RemoveSchedule,
) -> None:
    assert parse_summary(schedule.to_bytes(), PATH) == schedule


def test_the_manifest_in_an_entry_is_kept_as_it_is() -> None:
    manifest = '{"b": 1.50, "a": [{}, null, -0.0, 1e3, "\\ud800\\u00e9"], "": 12345678901234567890}'
    value = json.loads(RemoveSchedule((entry(),)).to_bytes())
    value["entries"][0]["manifest"] = json.loads(manifest)
    data = (json.dumps(value, indent=1) + "\n").encode()
    [found] = RemoveSchedule.parse(data, PATH).entries
    assert found.manifest == JsonObject.parse(manifest)
    assert found.manifest != JsonObject.parse("{}")
    assert RemoveSchedule((found,)).to_bytes() == data


def test_a_manifest_that_is_nested_too_deeply_makes_the_record_invalid() -> None:
    value = RemoveSchedule((entry(),)).to_bytes().decode()
    for depth in (900, 100_000):
        deep = '{"a":' * depth + "1" + "}" * depth
        data = value.replace('"manifest": {}', f'"manifest": {deep}').encode()
        with pytest.raises((InvalidRecord, InvalidManifest)):
            RemoveSchedule.parse(data, PATH).entries[0].parse_manifest()


@given(st.frozensets(DIGESTS), st.dictionaries(st.text(), JSON_VALUES))
def test_an_origin_matches_its_schema(images: frozenset[str], extra: dict[str, Any]) -> None:
    layout_schema("origin").validate(json.loads(Origin(images, extra).to_bytes()))


def entry(name: str = "quay.io/a/b:1", digit: str = "1", **others: Any) -> ScheduledRemoval:
    digest = f"sha256:{digit * 64}"
    found = ScheduledRemoval(
        name, name, digest, digest, JsonObject("{}"), "tag-moved", NOON, NOON + timedelta(days=30)
    )
    return replace(found, **others)


PUBLICATION = Publication(
    name="quay.io/a/b:1",
    reference="quay.io/a/b:1",
    source_digest="sha256:" + "1" * 64,
    manifest_digest="sha256:" + "2" * 64,
    image_id="sha256:" + "3" * 64,
    platform="linux/amd64",
    outputs=("flat", "layers"),
    published_at=NOON,
    wish_list="lists/astro.yaml",
    owner="astro",
    note="for the survey pipeline",
    grace_seconds=2592000,
)
SCHEDULE = RemoveSchedule((entry(), entry(digit="2", manifest=JsonObject('{"schemaVersion": 2}'))))
ORIGIN = Origin(frozenset({"sha256:1"}), {"other": {"a": [1]}})
DOCUMENTS = [json.loads(r.to_bytes()) for r in (PUBLICATION, SCHEDULE, ORIGIN)]


@given(mutated(*DOCUMENTS) | st.binary())
def test_a_damaged_record_is_read_correctly_or_refused_as_invalid(data: bytes) -> None:
    for record in (Origin, Publication, RemoveSchedule):
        try:
            found = record.parse(data, PATH)
        except InvalidRecord as error:
            assert PATH in str(error)
        else:
            # What was accepted is what can be written again.
            assert record.parse(found.to_bytes(), PATH) == found


@given(mutated(*DOCUMENTS))
def test_what_a_schema_accepts_is_what_the_program_reads(data: bytes) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    for record, schema in (
        (Origin, "origin"),
        (Publication, "publication"),
        (RemoveSchedule, "schedule"),
    ):
        if not refuses(layout_schema(schema), value):
            record.parse(data, PATH)


@pytest.mark.parametrize(
    ("record", "data", "why"),
    [
        (Origin, b"", "not JSON"),
        (Origin, b"[]", "not a JSON object"),
        (Origin, b'{"origin": "sha256:1"}', "origin is not a list"),
        (Origin, b'{"origin": [1]}', "origin[0] is not a string"),
        (Publication, b'{"version": 1}', "name"),
        (RemoveSchedule, b'{"version": 1}', "entries is missing"),
        (RemoveSchedule, b'{"version": 1, "entries": [[]]}', "entries[0] is not an object"),
    ],
)
def test_a_record_that_cannot_be_read_gives_the_reason_and_a_command(
    record: type[Origin], data: bytes, why: str
) -> None:
    with pytest.raises(InvalidRecord) as caught:
        record.parse(data, PATH)
    assert why in caught.value.why
    assert "publisher" in caught.value.hint


@pytest.mark.parametrize("record", [PUBLICATION, SCHEDULE])
@pytest.mark.parametrize("version", [2, 0, None, "1", True])
def test_a_record_of_another_version_is_refused(
    record: Publication | RemoveSchedule, version: object
) -> None:
    data = json.dumps({**json.loads(record.to_bytes()), "version": version}).encode()
    with pytest.raises(InvalidRecord, match="version"):
        type(record).parse(data, PATH)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("graceSeconds", 1e999),
        ("graceSeconds", -1),
        ("graceSeconds", "30"),
        ("outputs", "flat"),
        ("outputs", [1]),
        ("owner", None),
        ("note", {}),
        ("publishedAt", "yesterday"),
    ],
)
def test_a_publication_with_a_value_of_the_wrong_kind_is_refused(key: str, value: object) -> None:
    data = json.dumps({**json.loads(PUBLICATION.to_bytes()), key: value}).encode()
    with pytest.raises(InvalidRecord):
        Publication.parse(data, PATH)


@pytest.mark.parametrize("key", ["manifestDigest", "imageId"])
@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../..", "0" * 64, "sha256:" + "G" * 64])
def test_a_digest_that_would_lead_elsewhere_in_the_tree_is_refused(key: str, digest: str) -> None:
    publication = {**json.loads(PUBLICATION.to_bytes()), key: digest}
    with pytest.raises(InvalidRecord, match=key):
        Publication.parse(json.dumps(publication).encode(), PATH)
    schedule = {"version": 1, "entries": [{**entry().to_value(), key: digest}]}
    with pytest.raises(InvalidRecord, match=key):
        RemoveSchedule.parse(json.dumps(schedule).encode(), PATH)


@pytest.mark.parametrize("record", [Origin, Publication, RemoveSchedule])
@pytest.mark.parametrize("depth", [300, 900, 5000])
def test_deep_nesting_is_refused_without_a_recursion_error(
    record: type[Origin], depth: int
) -> None:
    with pytest.raises(InvalidRecord):
        record.parse(nested(depth), PATH)
