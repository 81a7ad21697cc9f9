"""Prune schedules images that no list requests; uncertain and other lists' images stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.ingest.report import Status
from publisher.removal import pins, schedule
from publisher.removal.prune import GivenList, Report, prune
from publisher.removal.withdrawal import Decision, Guard, Image, decide
from publisher.repository.reading import load_publication, load_schedule
from publisher.tree.publication import Publication
from publisher.wishlist import WishList, parse_wish_list, wish_for
from tests.any_repository import KINDS
from tests.layer_builder import file, image, layer
from tests.registry import OwnRegistry
from tests.registry_faults import status
from tests.removal_tree import NOON, Tree, new_tree
from tests.trees import tree_identity

IMAGE = image(layer(file("x")))
A, B = "/lists/a", "/lists/b"


@pytest.fixture(params=KINDS)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    with new_tree(request.param, tmp_path) as made:
        yield made


def run(tree: Tree, *lists: WishList, **options: object) -> Report:
    given = [GivenList(each.name, each) for each in lists]
    return prune(tree.repository, given, tree.sources, tree.clock, **options)  # type: ignore[arg-type]


def scheduled(tree: Tree) -> list[str]:
    return [entry.name.rpartition(":")[2] for entry in load_schedule(tree.repository).entries]


def record(tree: Tree, tag: str) -> Publication:
    found = load_publication(tree.repository, f"local/app:{tag}")
    assert found is not None
    return found


def test_a_list_that_is_not_used_any_more_is_withdrawn_without_being_read(tree: Tree) -> None:
    for tag, lists in (("x", (A,)), ("y", (A, B)), ("z", (B,)), ("hand", ("",))):
        for each in lists:
            tree.publish(tag, IMAGE, each, days=7)
    report = run(tree, withdrawn=[A, "/lists/unknown"])
    assert "1 of 2 images are not requested any more" not in report.refused
    assert [(e.name, e.not_before - NOON) for e in report.scheduled] == [
        ("local/app:x", timedelta(days=7))
    ]
    assert report.unknown_lists == ("/lists/unknown",)
    assert record(tree, "y").wish_lists == {B}
    assert run(tree, withdrawn=[A]).scheduled == ()
    # The guard applies as for lists that are read.
    for tag in ("v", "w"):
        tree.publish(tag, IMAGE, B)
    report = run(tree, withdrawn=[B])
    assert "4 of 4 images are not requested any more" in report.refused
    assert scheduled(tree) == ["x"]
    run(tree, withdrawn=[B], guard=Guard(off=True))
    assert sorted(scheduled(tree)) == ["v", "w", "x", "y", "z"]


def test_a_withdrawn_image_stays_usable_for_the_grace_period_of_its_wish(tree: Tree) -> None:
    for tag, days in (("x", 7), ("y", 90), ("z", 30)):
        tree.publish(tag, IMAGE, days=days)
    report = run(tree, tree.wish_list("z"), guard=Guard(at_most=2))
    assert [(e.name, e.not_before - NOON) for e in report.scheduled] == [
        ("local/app:x", timedelta(days=7)),
        ("local/app:y", timedelta(days=90)),
    ]
    assert tree.links() == ["local/app:x", "local/app:y", "local/app:z"]
    tree.assert_sound()


def test_a_changed_grace_period_is_recorded_by_the_next_ingest(tree: Tree) -> None:
    tree.publish("x", IMAGE, days=7)
    assert tree.publish("x", IMAGE, days=7).status is Status.UNCHANGED
    assert tree.publish("x", IMAGE, days=60).status is Status.RECORDED
    assert record(tree, "x").grace_seconds == 60 * 86400


def test_links_can_be_removed_at_once_and_are_created_when_requested_again(tree: Tree) -> None:
    tree.publish("x", IMAGE)
    tree.publish("y", IMAGE)
    run(tree, tree.wish_list("y"), drop_links=True)
    assert (scheduled(tree), tree.links()) == (["x"], ["local/app:y"])
    tree.assert_sound()
    assert run(tree, tree.wish_list("x", "y")).restored == ("local/app:x",)
    assert (scheduled(tree), tree.links()) == ([], ["local/app:x", "local/app:y"])
    tree.assert_sound()


def test_an_ingest_takes_what_is_requested_again_off_the_schedule(tree: Tree) -> None:
    tree.publish("x", IMAGE)
    tree.publish("y", IMAGE)
    run(tree, tree.wish_list("y"), drop_links=True)
    assert tree.ingest(tree.wish("x")).status is Status.RECORDED
    assert (scheduled(tree), tree.links()) == ([], ["local/app:x", "local/app:y"])


def test_what_one_list_published_is_never_scheduled_because_of_another(tree: Tree) -> None:
    tree.publish("a1", IMAGE, A)
    tree.publish("b1", IMAGE, B)
    tree.publish("b2", IMAGE, B)
    tree.publish("hand", IMAGE, "")
    report = run(tree, tree.wish_list("b1", name=B))
    assert (scheduled(tree), report.others) == (["b2"], 2)


def test_lists_can_decide_about_the_whole_repository(tree: Tree) -> None:
    tree.publish("a1", IMAGE, A)
    tree.publish("b1", IMAGE, B)
    tree.publish("hand", IMAGE, "")
    report = run(tree, tree.wish_list("b1", name=B), whole=True, guard=Guard(off=True))
    assert (sorted(scheduled(tree)), report.others) == (["a1", "hand"], 0)


def test_an_image_that_two_lists_request_is_scheduled_when_the_second_withdraws_it(
    tree: Tree,
) -> None:
    tree.publish("x", IMAGE, A)
    tree.publish("x", IMAGE, B)
    tree.publish("a", IMAGE, A)
    tree.publish("b", IMAGE, B)
    assert record(tree, "x").wish_lists == {A, B}
    report = run(tree, tree.wish_list("a", name=A))
    assert scheduled(tree) == [] and "local/app:x" in report.kept
    assert record(tree, "x").wish_lists == {B}
    run(tree, tree.wish_list("b", name=B))
    assert scheduled(tree) == ["x"]


def test_an_image_moves_from_one_list_to_another_without_being_scheduled(tree: Tree) -> None:
    tree.publish("x", IMAGE, A)
    tree.publish("a", IMAGE, A)
    run(tree, tree.wish_list("a", name=A), tree.wish_list("x", name=B))
    assert scheduled(tree) == []
    assert record(tree, "x").wish_lists == {B}


def test_of_several_lists_the_longest_grace_period_counts(tree: Tree) -> None:
    tree.publish("x", IMAGE, A, days=90)
    tree.publish("x", IMAGE, B, days=7)
    assert record(tree, "x").grace_seconds == 90 * 86400
    for wish_list, days in ((A, 90), (B, 7)):
        again = tree.publish("x", IMAGE, wish_list, days=days)
        assert again.status is Status.UNCHANGED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2\nimages:\n  - 'oci:nowhere:1'\n  - 'not an image'\n", "not an image"),
        ("version: 2\nimages:\n  - {image: 'oci:x:1', platforms: [linux/pdp11/]}\n", "pdp11"),
        (
            "version: 1\nuser: u\ncvmfs_repo: r\noutput_format: 'https://r.example.org/$(image)'\n"
            "input:\n  - 'https://registry.example.org/x:1'\n  - 'https://'\n",
            "https://",
        ),
    ],
)
def test_a_list_with_an_error_schedules_nothing(tree: Tree, text: str, message: str) -> None:
    tree.publish("x", IMAGE, A)
    report = run(tree, parse_wish_list(text, A), guard=Guard(off=True))
    assert scheduled(tree) == [] and not report.scheduled
    assert any(message in doubt for doubt in report.uncertain)


def test_an_empty_list_schedules_nothing(tree: Tree) -> None:
    tree.publish("x", IMAGE, A)
    report = run(tree, tree.wish_list(), guard=Guard(off=True))
    assert scheduled(tree) == []
    assert report.uncertain == (f"{A}: the list requests nothing",)


def test_one_uncertain_list_makes_all_uncertain(tree: Tree) -> None:
    tree.publish("x", IMAGE, A)
    tree.publish("y", IMAGE, A)
    run(tree, tree.wish_list("y"), tree.wish_list(name=B), guard=Guard(off=True))
    assert scheduled(tree) == []


def patterned(registry: OwnRegistry, *patterns: str) -> WishList:
    images = "".join(f"  - '{registry.url}/tool:{pattern}'\n" for pattern in patterns)
    return parse_wish_list(f"version: 2\nimages:\n{images}", A)


def publish_from(registry: OwnRegistry, tree: Tree, *tags: str) -> None:
    for tag in tags:
        registry.add("tool", tag, IMAGE)
        tree.ingest(wish_for(f"{registry.url}/tool:{tag}"), A)


def test_a_pattern_means_the_tags_that_the_registry_has_now(tree: Tree) -> None:
    with OwnRegistry() as registry:
        publish_from(registry, tree, "1.0", "1.1", "2.0")
        del registry.tags["tool"]["1.0"]
        report = run(tree, patterned(registry, "1.*", "2.*"))
    assert [entry.name.rpartition(":")[2] for entry in report.scheduled] == ["1.0"]


def test_while_a_registry_does_not_answer_nothing_is_scheduled(tree: Tree) -> None:
    with OwnRegistry() as registry:
        publish_from(registry, tree, "1.0", "1.1", "2.0")
        lists = patterned(registry, "1.*")
        registry.misbehave(status(404), path="/tags/list")
        report = run(tree, lists, guard=Guard(off=True))
        assert report.uncertain and not report.scheduled
        registry.heal()
        registry.tags["tool"] = {"other": registry.tags["tool"]["1.0"]}
        report = run(tree, lists, guard=Guard(off=True))
        assert "no tag matches" in report.uncertain[0]
    assert scheduled(tree) == []


def test_a_registry_that_fails_in_the_middle_makes_all_uncertain(tree: Tree) -> None:
    with OwnRegistry() as registry:
        publish_from(registry, tree, "1.0", "1.1", "2.0")
        with OwnRegistry() as other:
            other.add("tool", "1.0", IMAGE)
            there = patterned(registry, "1.*")
            lists = replace(there, wishes=(*there.wishes, *patterned(other, "1.*").wishes))
            assert not run(tree, lists, guard=Guard(off=True), dry_run=True).uncertain
        report = run(tree, lists, guard=Guard(off=True), jobs=1)
    assert len(report.uncertain) == 1 and other.host in report.uncertain[0]
    assert scheduled(tree) == []


def test_an_expired_wish_requests_nothing_and_is_not_ingested(tree: Tree) -> None:
    tree.publish("x", IMAGE)
    tree.publish("y", IMAGE)
    expired = tree.wish("x", expires=NOON.date())
    outcome = tree.ingest(expired)
    assert outcome.status is Status.EXPIRED and "2026-11-20" in outcome.remark
    wishes = replace(tree.wish_list("y"), wishes=(expired, tree.wish("y")))
    tomorrow = replace(wishes, wishes=(tree.wish("x", expires=date(2026, 11, 21)), tree.wish("y")))
    assert not run(tree, tomorrow).scheduled
    assert len(run(tree, wishes).scheduled) == 1


def test_a_pinned_image_is_kept_and_named(tree: Tree) -> None:
    tree.publish("x", IMAGE)
    tree.publish("y", IMAGE)
    pins.pin(tree.repository, "local/app:x", tree.clock)
    report = run(tree, tree.wish_list("y"))
    assert report.kept == {"local/app:x": "it is pinned"} and scheduled(tree) == []


@pytest.mark.parametrize(("guard", "passes"), [(Guard(), False), (Guard(at_most=2), False)])
def test_more_than_a_share_is_refused(tree: Tree, guard: Guard, passes: bool) -> None:
    for number in range(10):
        tree.publish(f"x{number}", IMAGE)
    requested = tree.wish_list(*(f"x{number}" for number in range(7)))
    report = run(tree, requested, guard=guard)
    assert bool(report.scheduled) is passes
    assert "3 of 10" in report.refused and len(report.withdrawn) == 3
    assert scheduled(tree) == []
    assert len(run(tree, requested, guard=Guard(at_most=3)).scheduled) == 3


def test_the_guard_allows_a_fifth_and_always_one() -> None:
    assert [Guard().allowed(n) for n in (1, 4, 9, 10, 100)] == [1, 1, 1, 2, 20]
    assert Guard(off=True).allowed(5) == 5
    assert Guard(at_most=0).allowed(100) == 0


def test_an_image_whose_records_cannot_be_read_is_kept_and_named(tree: Tree) -> None:
    tree.publish("x", IMAGE)
    tree.publish("y", IMAGE)
    (tree.root / ".metadata/local/app:x/publication.json").write_bytes(b"{")
    report = run(tree, tree.wish_list("y"), guard=Guard(off=True))
    assert list(report.unreadable) == ["local/app:x"]
    assert scheduled(tree) == []


def test_a_dry_run_touches_nothing(tree: Tree) -> None:
    tree.publish("x", IMAGE)
    tree.publish("y", IMAGE)
    before = tree_identity(tree.root)
    foreseen = run(tree, tree.wish_list("y"), dry_run=True)
    assert tree_identity(tree.root) == before
    assert run(tree, tree.wish_list("y")) == foreseen
    assert scheduled(tree) == ["x"]


def test_what_is_ingested_while_a_prune_decides_is_not_scheduled(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.publish("x", IMAGE)
    tree.publish("y", IMAGE)

    def decide_late(*arguments: object, **options: object) -> Decision:
        decision = decide(*arguments, **options)  # type: ignore[arg-type]
        tree.publish("x", image(layer(file("new"))), B)
        return decision

    monkeypatch.setattr("publisher.removal.prune.decide", decide_late)
    report = run(tree, tree.wish_list("y"))
    assert report.withdrawn == ("local/app:x",) and report.scheduled == ()
    assert [e.reason for e in load_schedule(tree.repository).entries] == ["tag-moved"]


def test_what_was_removed_by_hand_and_is_requested_is_restored(tree: Tree) -> None:
    tree.publish("x", IMAGE)
    schedule.remove(tree.repository, ["local/app:x"], tree.clock)
    assert run(tree, tree.wish_list("x")).restored == ("local/app:x",)


NAMES = st.sampled_from(["x", "y", "z"])
LISTS = st.frozensets(st.sampled_from([A, B, "/lists/c"]))
IMAGES = st.lists(
    st.builds(Image, NAMES, st.just("sha256:1"), LISTS, st.booleans(), st.booleans()),
    unique_by=lambda each: each.name,
)


@given(IMAGES, st.dictionaries(NAMES, LISTS.filter(bool)), LISTS, st.booleans())
def test_only_what_all_its_lists_withdrew_is_withdrawn(
    images: list[Image],
    requested: dict[str, frozenset[str]],
    given_lists: frozenset[str],
    whole: bool,
) -> None:
    requested = {
        name: lists & given_lists for name, lists in requested.items() if lists & given_lists
    }
    decision = decide(images, requested, given_lists, whole=whole)
    for each in images:
        if each.name in decision.withdrawn:
            assert each.name not in requested
            assert not (each.pinned or each.scheduled)
            assert whole or (each.lists and each.lists <= given_lists)
        elif not whole and each.lists and each.lists <= given_lists:
            assert each.name in requested or each.pinned or each.scheduled
        if each.name in decision.requested_again:
            assert each.scheduled and each.name in requested
