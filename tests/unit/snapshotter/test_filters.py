"""Filters of List have the syntax of containerd's filters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.snapshotter.filters import parse_filters
from publisher.snapshotter.model import InvalidArgument, Kind, Snapshot

CHAIN = "sha256:" + "ab" * 32
SNAPSHOT = Snapshot(
    1,
    "default/1/x",
    'de"f',
    Kind.COMMITTED,
    0,
    0,
    {"containerd.io/snapshot.ref": CHAIN, "a": "b", "a.b": "c"},
)


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        ([], True),
        ([""], True),
        (["name==default/1/x"], True),
        (["name==default/1/y"], False),
        (["name==default/1/y", "kind==committed"], True),
        ([f'labels."containerd.io/snapshot.ref"=={CHAIN},parent=="de\\"f"'], True),
        ([f'labels."containerd.io/snapshot.ref"=={CHAIN},parent=="other"'], False),
        (["labels.a"], True),
        (["labels.c"], False),
        (["labels.a.b==c"], True),
        (['labels."a".b==c'], True),
        (["labels.a!=b"], False),
        (["labels.c!=b"], True),
        (["kind~=^comm"], True),
        (['name~="/y$"'], False),
        (['name=="default\\x2f1\\u002fx"'], True),
        (["unknown"], False),
        (["unknown==x"], False),
    ],
)
def test_a_snapshot_matches(filters: list[str], matches: bool) -> None:
    assert parse_filters(filters)(SNAPSHOT) is matches


@pytest.mark.parametrize(
    "text", ["==x", "name==", "name=x", "name==x,", ",name==x", "name==x y", 'name=="x', "name~=("]
)
def test_what_is_not_a_filter_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_filters([text])
    assert caught.value.why


@given(st.text())
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        parse_filters([text])(SNAPSHOT)
    except InvalidArgument:
        return
