"""Exclusive, shared and freed sizes, compared with a computation without any bookkeeping."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.browse.statistics.growth import growth
from publisher.browse.statistics.holdings import Holder, Holdings, LayerSize
from publisher.browse.statistics.shares import (
    Share,
    images_of,
    lists_of,
    owners_of,
    selection_of,
    shares,
)
from publisher.browse.statistics.totals import layer_users, totals
from publisher.tree.history import Change, Record

LAYERS = [f"layer-{number}" for number in range(6)]
LISTS = st.frozensets(st.sampled_from(["one.yaml", "two.yaml"]))


@st.composite
def all_holdings(draw: st.DrawFn) -> Holdings:
    """Few layers, images and names, so that much is shared."""
    images = {
        f"image-{number}": tuple(draw(st.lists(st.sampled_from(LAYERS), max_size=4, unique=True)))
        for number in range(4)
    }
    holders: dict[tuple[str, str], Holder] = {}
    for number in range(draw(st.integers(0, 7))):
        image_id = draw(st.sampled_from(sorted(images)))
        name = draw(st.sampled_from(["a/x:1", "a/x:2", ".multiarch/arm64/a/x:1"]))
        holder = Holder(
            name,
            f"manifest-{image_id}-{number % 2}",
            image_id,
            images[image_id],
            published=name not in {key[0] for key, each in holders.items() if each.published},
            since=datetime(2026, draw(st.integers(1, 3)), 1, tzinfo=UTC),
            owner=draw(st.sampled_from(["", "astro", "bio"])),
            wish_lists=draw(LISTS),
        )
        holders.setdefault((name, holder.manifest_digest), holder)
    sizes = {
        digest: LayerSize(10**at, 2 * 10**at, draw(st.sampled_from([at, at, None])))
        for at, digest in enumerate(LAYERS)
        if draw(st.integers(0, 9))
    }
    return Holdings(tuple(holders.values()), sizes, {"image-0": 10**9, "image-1": 2 * 10**9})


def in_use(holdings: Holdings) -> int:
    """The bytes that a repository with these manifests has, once nothing is left to collect."""
    layers = {digest for holder in holdings.holders for digest in holder.layers}
    files = {holder.image_id for holder in holdings.holders} & holdings.single_files.keys()
    return sum(holdings.layers[each].stored for each in layers & holdings.layers.keys()) + sum(
        holdings.single_files[each] for each in files
    )


def without(holdings: Holdings, removed: list[Holder]) -> Holdings:
    return replace(holdings, holders=tuple(h for h in holdings.holders if h not in removed))


@settings(max_examples=50)
@given(all_holdings(), st.sets(st.sampled_from(["a/x:1", "a/x:2"])))
def test_what_is_freed_is_the_difference_that_the_removal_makes(
    holdings: Holdings, names: set[str]
) -> None:
    published = [holder for holder in holdings.holders if holder.published]
    images, owners, lists = (shares(holdings, of) for of in (images_of, owners_of, lists_of))
    chosen = shares(holdings, selection_of(names))
    removals: list[tuple[Share, list[Holder]]] = [
        *((share, [h for h in published if h.plain_name == key]) for key, share in images.items()),
        *((share, [h for h in published if h.owner == key]) for key, share in owners.items()),
        *((share, [h for h in published if h.wish_lists == {key}]) for key, share in lists.items()),
        *((share, [h for h in published if h.name in names]) for share in chosen.values()),
    ]
    for share, removed in removals:
        assert share.freed == in_use(holdings) - in_use(without(holdings, removed))
        assert 0 <= share.exclusive <= share.stored == share.exclusive + share.shared
    assert set(images) == {holder.plain_name for holder in published}
    assert set(owners) == {holder.owner for holder in published if holder.owner}
    members = [h for h in published if "one.yaml" in h.wish_lists]
    assert ("one.yaml" in lists) == bool(members)
    if members:
        share = lists["one.yaml"]
        used = {digest for holder in members for digest in holder.layers}
        known = used & holdings.layers.keys()
        assert (share.manifests, share.layers) == (len(members), len(used))
        assert share.unknown == len(used) - len(known)
        assert share.stored == sum(holdings.layers[each].stored for each in known)
        assert share.entries == sum(holdings.layers[each].entries for each in known)
        assert share.files is None or share.files <= share.entries


@settings(max_examples=25)
@given(all_holdings())
def test_the_sums_are_those_of_the_parts(holdings: Holdings) -> None:
    found = totals(holdings)
    users = layer_users(holdings)
    assert sum(each.layers for each in users) == found.layers
    assert (
        sum(each.stored for each in users)
        == found.stored
        == in_use(replace(holdings, single_files={}))
    )
    assert sum(each.stored * each.images for each in users) == found.separate
    assert found.saved == sum(each.stored * (each.images - 1) for each in users)
    published = tuple(holder for holder in holdings.holders if holder.published)
    assert found.retired_only == found.stored - totals(replace(holdings, holders=published)).stored


def record(time: str, *changes: tuple[str, str]) -> Record:
    made = tuple(Change(name, what) for name, what in changes)
    return Record("1", time, "u", "h", 1, "ingest", made, {})


def test_growth_has_every_month_and_only_readable_times() -> None:
    january, march = datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    holdings = Holdings(
        (
            Holder("a:2", "m2", "i2", ("x", "y"), published=True, since=march),
            Holder("a:1", "m1", "i1", ("x",), published=True, since=january),
            Holder("a:0", "m0", "i0", ("z",), published=False, since=january),
            Holder("a:3", "m3", "i3", ("x",), published=True),
        ),
        {"x": LayerSize(1, 1, 1), "y": LayerSize(10, 1, 1), "z": LayerSize(100, 1, 1)},
    )
    history = [
        record("2026-03-01T00:00:00Z", ("a:2", "published"), ("a:1", "scheduled")),
        record("2026-01-31T00:00:00Z", ("a:1", "published"), ("b:1", "collected")),
        record("2025-12-31T23:59:59Z", ("b:1", "published")),
        record("yesterday", ("c:1", "published")),
        record("2026-13-01T00:00:00Z", ("c:1", "published")),
    ]
    rows = [
        (each.month, each.published, each.removed, each.images, each.stored)
        for each in growth(holdings, history)
    ]
    assert rows == [
        ("2025-12", 1, 0, 0, 0),
        ("2026-01", 1, 1, 1, 101),
        ("2026-02", 0, 0, 1, 101),
        ("2026-03", 1, 0, 2, 111),
    ]
    wrong_clock = [record("0001-01-01T00:00:00Z", ("a:1", "published"))]
    assert len(growth(holdings, wrong_clock)) == 3
    assert growth(Holdings((), {}), []) == ()
