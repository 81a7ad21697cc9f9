"""The record of a pushed thin image: read back as written, and refused when damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from publisher.tree.record import InvalidRecord
from publisher.tree.thin_image import ThinRecord
from tests.schemas import layout_schema

RECORD = ThinRecord(
    reference="registry.example.org/thin/a:1",
    digest=f"sha256:{'a' * 64}",
    source_digest=f"sha256:{'b' * 64}",
    platforms=("linux/amd64", "linux/arm64"),
    base_url="file:///srv/images",
    pushed_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)


def test_a_record_is_read_back_as_it_was_written_and_fits_its_schema() -> None:
    data = RECORD.to_bytes()
    assert ThinRecord.parse(data, "x") == RECORD
    layout_schema("thin-image").validate(json.loads(data))


@pytest.mark.parametrize(
    "changed",
    [
        replace(RECORD, reference="registry.example.org/thin/a:2"),
        replace(RECORD, source_digest=f"sha256:{'c' * 64}"),
        replace(RECORD, platforms=("linux/amd64",)),
        replace(RECORD, base_url="file:///mnt/images"),
    ],
)
def test_any_change_of_the_thin_image_requires_another_push(changed: ThinRecord) -> None:
    assert RECORD.terms != changed.terms
    pushed_again = replace(RECORD, digest=f"sha256:{'d' * 64}", pushed_at=datetime.now(UTC))
    assert RECORD.terms == pushed_again.terms


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        RECORD.to_bytes()[:-20],
        RECORD.to_bytes().replace(b'"version": 1', b'"version": 2'),
        RECORD.to_bytes().replace(b'"linux/arm64"', b"1"),
        RECORD.to_bytes().replace(b"2026-01-02T", b"yesterday "),
        b"[" * 100_000,
    ],
)
def test_a_damaged_record_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(InvalidRecord, match=r"cannot read x"):
        ThinRecord.parse(data, "x")
