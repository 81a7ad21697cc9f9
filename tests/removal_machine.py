"""Random publications and removals of images, by which `publisher.removal` is tested.

Each rule does something to the repository and to the model; `EXECUTED` counts the situations, and
`REACHED` names those that every sufficient run has to reach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from publisher.ingest.report import Status
from publisher.ingest.run import ingest
from publisher.removal import pins, schedule
from publisher.removal.gc import Report, choose, collect
from publisher.removal.prune import GivenList, prune
from publisher.removal.restore import NotScheduled, restore
from publisher.removal.withdrawal import Guard
from publisher.tree.pins import ImagePinned
from publisher.verify.derive import derive
from publisher.verify.run import verify
from publisher.wishlist import WishList
from publisher.wishlist.model import Request
from tests.removal_model import IMAGES, TAGS, Entry, Model, layers_of, name_of, users_of
from tests.removal_world import EXECUTED, KILLED, World, key_of
from tests.trees import tree_identity

__all__ = ["EXECUTED", "KILLED", "REACHED", "Removal"]

TWICE = 2
"""The image that has one layer twice."""

REACHED = (
    "ingest: new",
    "ingest: the same again",
    "ingest: the tag moved",
    "ingest: taken off the schedule",
    "ingest: pinned",
    "ingest: two tags on one image",
    "ingest: one config in two manifests",
    "ingest: one layer twice in an image",
    "remove",
    "remove: scheduled already",
    "remove: pinned",
    "restore",
    "restore: only earlier images are scheduled",
    "restore: an earlier image",
    "restore: an earlier image of a tag that has gone",
    "restore: pinned",
    "pin",
    "pin: until a day",
    "pin: what its tag has left",
    "unpin",
    "unpin: with fresh grace",
    "prune: withdrawn",
    "prune: requested again",
    "prune: other lists still request it",
    "prune: left to other lists",
    "prune: pinned",
    "prune: an empty list",
    "prune: the guard",
    "collect: due",
    "collect: not due",
    "collect: on the second",
    "collect: in the last second before",
    "collect: pinned",
    "collect: a pin whose time is over",
    "collect: limit",
    "collect: one of several names of an image",
    "collect: one of several manifests of a config",
    "collect: the last user of a layer",
    "collect: a layer that others use",
    "collect: one layer twice in an image",
    "clock: forward",
    "clock: set back while something is scheduled",
    "schedule: counted from a later time than the clock's",
    "damage: kept",
    "damage: nothing was in doubt",
    "damage: repaired",
    "damage: repair killed",
    "killed before its commit",
    "killed after its commit",
    "ended without being killed",
    *(
        f"kill: {what}"
        for what in ("ingest", "remove", "restore", "pin", "unpin", "prune", "collect")
    ),
)

tags = st.sampled_from(TAGS)
images = st.integers(0, len(IMAGES) - 1)
lists = st.sampled_from(["/lists/a", "/lists/b", "/lists/a", "/lists/b", ""])
graces = st.sampled_from([timedelta(0), timedelta(hours=10), timedelta(days=3)])
steps = st.sampled_from([1, 10, 80, 30, -5, -30]).map(lambda hours: timedelta(hours=hours))
days = st.sampled_from([None, 0, 1, 3])
deaths = st.sampled_from([None] * 36 + list(range(12)))
"""The step on the tree at which the process is killed; None if it is not."""


DAMAGE = [None, b"", b"{", b'{"origin": 1}', b'{"origin": []}', b'{"version": 1, "users": []}']
"""Damaged forms of a record of users: missing, unreadable, or without one user."""


class Removal(World):
    def apply_step(
        self, what: str, dies_at: int | None, act: Callable[[Any], object], after: Model
    ) -> None:
        """Execute `act`, which changes the model to `after`, unless it is killed."""
        if dies_at is None:
            act(self.repository)
            EXECUTED[what] += 1
            self.model = after
        else:
            EXECUTED[f"kill: {what}"] += 1
            self.killed(dies_at, act, after)

    def refused(self, what: str, act: Callable[[Any], object], error: type[Exception]) -> None:
        with pytest.raises(error):
            act(self.repository)
        EXECUTED[what] += 1

    # Events at registries

    @rule(tag=tags, image=images)
    def a_tag_moves_at_the_source(self, tag: str, image: int) -> None:
        self.at_source[tag] = image
        self.source.set(self.at_source)

    @rule(step=steps)
    def the_clock_steps(self, step: timedelta) -> None:
        self.now += step
        EXECUTED["clock: forward"] += step > timedelta(0)
        EXECUTED["clock: set back while something is scheduled"] += bool(
            step < timedelta(0) and self.model.schedule
        )

    # Actions of users and jobs

    @rule(tag=tags, image=st.none() | images, wish_list=lists, grace=graces, dies_at=deaths)
    def ingest(
        self, tag: str, image: int | None, wish_list: str, grace: timedelta, dies_at: int | None
    ) -> None:
        if image is not None:
            self.a_tag_moves_at_the_source(tag, image)
        number = self.at_source[tag]
        found = self.model.published.get(tag)
        moves = found is not None and found.image != number
        held = moves and self.holds(tag)
        after = self.model.ingested(tag, number, wish_list, grace, self.now)
        if dies_at is not None and not held:
            self.apply_step(
                "ingest", dies_at, lambda r: self.run_ingest(r, tag, wish_list, grace), after
            )
            return
        (outcome,) = self.run_ingest(self.repository, tag, wish_list, grace).outcomes
        assert not outcome.error
        assert (outcome.status is Status.PINNED) == held
        if held:
            EXECUTED["ingest: pinned"] += 1
            return
        assert (outcome.status is Status.UPDATED) == moves
        self.count_ingest(tag, number, after)
        self.model = after

    @rule(
        several=st.lists(st.tuples(tags, images, lists, graces), min_size=2, max_size=5),
    )
    def several_ingests(self, several: Sequence[tuple[str, int, str, timedelta]]) -> None:
        """Several ingests, so that there are images to remove."""
        for tag, image, wish_list, grace in several:
            self.ingest(tag, image, wish_list, grace, None)

    def run_ingest(self, repository: Any, tag: str, wish_list: str, grace: timedelta) -> Any:
        request = Request(self.wish(tag, grace), wish_list)
        return ingest([request], repository, self.sources, jobs=1, now=self.clock)

    def count_ingest(self, tag: str, number: int, after: Model) -> None:
        found = self.model.published.get(tag)
        EXECUTED["ingest: new"] += found is None
        EXECUTED["ingest: the same again"] += found is not None and found.image == number
        EXECUTED["ingest: the tag moved"] += found is not None and found.image != number
        EXECUTED["ingest: taken off the schedule"] += self.model.find(tag, number) is not None
        self.count_late_schedule(after)
        others = {image for other, image in after.live() if other != tag}
        EXECUTED["ingest: two tags on one image"] += number in others
        EXECUTED["ingest: one config in two manifests"] += any(
            IMAGES[each].image_id == IMAGES[number].image_id for each in others - {number}
        )
        EXECUTED["ingest: one layer twice in an image"] += number == TWICE

    def count_late_schedule(self, after: Model) -> None:
        new = set(after.schedule) - set(self.model.schedule)
        EXECUTED["schedule: counted from a later time than the clock's"] += any(
            entry.since > self.now for entry in new
        )

    @precondition(lambda self: self.model.published)
    @rule(data=st.data(), grace=st.none() | graces, drop_link=st.booleans(), dies_at=deaths)
    def remove(
        self, data: st.DataObject, grace: timedelta | None, drop_link: bool, dies_at: int | None
    ) -> None:
        tag = data.draw(st.sampled_from(sorted(self.model.published)))

        def act(repository: Any) -> None:
            schedule.remove(
                repository, [name_of(tag)], self.clock, grace=grace, drop_link=drop_link
            )

        if self.holds(tag):
            self.refused("remove: pinned", act, ImagePinned)
            return
        after = self.model.scheduled(tag, self.now, grace)
        self.count_late_schedule(after)
        EXECUTED["remove: scheduled already"] += after.schedule == self.model.schedule
        if drop_link:
            after = after.relinked(tag, False)
        self.apply_step("remove", dies_at, act, after)

    @precondition(lambda self: self.model.schedule)
    @rule(data=st.data(), dies_at=deaths)
    def restore_by_name(self, data: st.DataObject, dies_at: int | None) -> None:
        tag = data.draw(st.sampled_from(sorted({e.tag for e in self.model.schedule})))
        current = [e for e in self.model.schedule if e.tag == tag and self.model.is_current(e)]

        def act(repository: Any) -> None:
            assert restore(repository, name_of(tag), self.clock) == [name_of(tag)]

        if not current:
            self.refused("restore: only earlier images are scheduled", act, NotScheduled)
            return
        self.apply_step("restore", dies_at, act, self.model.restored(current[0], self.now))

    @precondition(lambda self: self.model.schedule)
    @rule(data=st.data(), dies_at=deaths)
    def restore_one_manifest(self, data: st.DataObject, dies_at: int | None) -> None:
        entry: Entry = data.draw(st.sampled_from(self.model.schedule))
        found = self.model.published.get(entry.tag)

        def act(repository: Any) -> None:
            exact = f"{name_of(entry.tag)}@{IMAGES[entry.image].manifest.digest}"
            restore(repository, exact, self.clock)

        if found is not None and found.image != entry.image and self.holds(entry.tag):
            self.refused("restore: pinned", act, ImagePinned)
            return
        after = self.model.restored(entry, self.now)
        EXECUTED["restore: an earlier image"] += bool(found and found.image != entry.image)
        EXECUTED["restore: an earlier image of a tag that has gone"] += found is None
        self.apply_step("restore", dies_at, act, after)

    @precondition(lambda self: self.model.live())
    @rule(data=st.data(), until=days, exact=st.booleans(), dies_at=deaths)
    def pin(self, data: st.DataObject, until: int | None, exact: bool, dies_at: int | None) -> None:
        candidates = {(e.tag, e.image) for e in self.model.schedule} if exact else set()
        tag, number = data.draw(st.sampled_from(sorted(candidates or self.model.live())))
        published = self.model.published.get(tag)
        if not exact and published is not None:
            number = published.image
        is_current = published is not None and published.image == number
        last: date | None = None if until is None else (self.now + timedelta(days=until)).date()
        exactly = f"@{IMAGES[number].manifest.digest}" if exact or not is_current else ""

        def act(repository: Any) -> None:
            pins.pin(repository, name_of(tag) + exactly, self.clock, until=last)

        after = self.model.copy()
        after.pins[tag, number] = last
        if is_current:
            after = after.unscheduled(tag, number).relinked(tag, True)
        EXECUTED["pin: until a day"] += last is not None
        EXECUTED["pin: what its tag has left"] += not is_current
        self.apply_step("pin", dies_at, act, after)

    @precondition(lambda self: self.model.pins)
    @rule(data=st.data(), dies_at=deaths)
    def unpin(self, data: st.DataObject, dies_at: int | None) -> None:
        tag = data.draw(st.sampled_from(sorted({tag for tag, _ in self.model.pins})))
        since = self.model.latest(self.now)
        pinned = [
            e for e in self.model.schedule if e.tag == tag and (tag, e.image) in self.model.pins
        ]
        after = self.model.copy()
        after.schedule = (
            *(e for e in after.schedule if e not in pinned),
            *(replace(e, since=since, due=since + (e.due - e.since)) for e in pinned),
        )
        after.pins = {key: until for key, until in after.pins.items() if key[0] != tag}
        EXECUTED["unpin: with fresh grace"] += bool(pinned)

        def act(repository: Any) -> None:
            pins.unpin(repository, name_of(tag), self.clock)

        self.apply_step("unpin", dies_at, act, after)

    @rule(
        requested=st.dictionaries(tags, lists.filter(bool), min_size=1),
        given=st.sampled_from([None] * 9 + [["/lists/a"], ["/lists/b"], ["/lists/c"]]),
        whole=st.booleans(),
        drop_links=st.booleans(),
        guarded=st.booleans(),
        dies_at=deaths,
    )
    def prune(
        self,
        requested: dict[str, str],
        given: list[str] | None,
        whole: bool,
        drop_links: bool,
        guarded: bool,
        dies_at: int | None,
    ) -> None:
        """With the lists that are `given`, or with all that request an image."""
        given = given or sorted(set(requested.values()))
        documents = [GivenList(each, self.document(each, requested)) for each in given]

        def run(repository: Any, dry_run: bool = False) -> Any:
            return prune(
                repository,
                documents,
                self.sources,
                self.clock,
                whole=whole,
                guard=Guard() if guarded else Guard(off=True),
                drop_links=drop_links,
                dry_run=dry_run,
                jobs=1,
            )

        before = tree_identity(self.root)
        foreseen = run(self.repository, dry_run=True)
        assert tree_identity(self.root) == before
        if not all(each.wish_list.wishes for each in documents):
            assert foreseen.uncertain and not foreseen.scheduled
            assert run(self.repository) == foreseen
            EXECUTED["prune: an empty list"] += 1
            return
        after = self.after_prune(requested, given, whole, drop_links, guarded, foreseen)
        if dies_at is not None:
            self.apply_step("prune", dies_at, run, after)
            return
        assert run(self.repository) == foreseen
        self.model = after

    def document(self, name: str, requested: dict[str, str]) -> WishList:
        wishes = tuple(self.wish(tag) for tag, wishing in requested.items() if wishing == name)
        return WishList(name, 2, "", None, wishes)

    def after_prune(
        self,
        requested: dict[str, str],
        given: Sequence[str],
        whole: bool,
        drop_links: bool,
        guarded: bool,
        foreseen: Any,
    ) -> Model:
        after = self.model
        withdrawn, in_question = [], 0
        again: list[str] = []
        for tag, published in sorted(self.model.published.items()):
            wishing = {requested[tag]} & set(given) if tag in requested else set()
            if self.model.find(tag, published.image) is not None:
                if wishing:
                    again.append(tag)
                continue
            if not whole and not published.lists & set(given):
                EXECUTED["prune: left to other lists"] += 1
                continue
            in_question += 1
            left = wishing if whole else published.lists - set(given) | wishing
            if left:
                EXECUTED["prune: other lists still request it"] += not wishing
                if published.lists:
                    after = after.copy()
                    after.published[tag] = replace(published, lists=frozenset(left))
            elif self.holds(tag):
                EXECUTED["prune: pinned"] += 1
            else:
                withdrawn.append(tag)
        assert sorted(foreseen.withdrawn) == sorted(map(name_of, withdrawn))
        if guarded and len(withdrawn) > max(1, in_question // 5):
            assert foreseen.refused and not foreseen.scheduled
            EXECUTED["prune: the guard"] += 1
            return self.model
        assert not foreseen.refused
        for tag in withdrawn:
            number = self.model.published[tag].image
            # Not before an entry of the same prune: the clock may have been set back between them.
            since = after.latest(max(self.now, self.model.published[tag].at))
            entry = Entry(tag, number, since, since + self.model.published[tag].grace)
            after = after.copy()
            after.schedule = (*after.schedule, entry)
            if drop_links:
                after = after.relinked(tag, False)
        for tag in again:
            after = after.unscheduled(tag, after.published[tag].image).relinked(tag, True)
        self.count_late_schedule(after)
        EXECUTED["prune: withdrawn"] += bool(withdrawn)
        EXECUTED["prune: requested again"] += bool(again)
        return after

    @precondition(lambda self: self.model.published or self.model.schedule)
    @rule(
        grace=st.none() | graces,
        at_once=st.sampled_from([False, False, True]),
        limit=st.sampled_from([None, None, 1, 2]),
        data=st.data(),
        only=st.sampled_from(["", "", "name", "manifest"]),
        dies_at=deaths,
    )
    def collect(
        self,
        grace: timedelta | None,
        at_once: bool,
        limit: int | None,
        data: st.DataObject,
        only: str,
        dies_at: int | None,
    ) -> None:
        """Collect everything that is due, or of one tag, or one exact image."""
        tag, number = data.draw(st.sampled_from(sorted(self.model.live()))) if only else (None, 0)
        exact = number if only == "manifest" else None
        self.run_collection(grace, at_once, limit, tag, exact, dies_at)

    def run_collection(
        self,
        grace: timedelta | None,
        at_once: bool,
        limit: int | None = None,
        tag: str | None = None,
        exact: int | None = None,
        dies_at: int | None = None,
    ) -> None:
        digest = "" if exact is None else f"@{IMAGES[exact].manifest.digest}"
        choice = choose(
            self.repository,
            grace=grace,
            at_once=at_once,
            limit=limit,
            image=None if tag is None else name_of(tag) + digest,
        )
        before = tree_identity(self.root)
        foreseen = collect(self.repository, choice, self.clock, dry_run=True)
        assert tree_identity(self.root) == before
        due = [
            e for e in self.due(grace, at_once) if tag in (None, e.tag) and exact in (None, e.image)
        ]
        EXECUTED["collect: limit"] += limit is not None and len(due) > limit
        due = due[:limit]
        assert sorted(r.entry.key for r in foreseen.released) == sorted(map(key_of, due))
        assert not foreseen.kept
        after = self.model.collected(due)
        self.check_freed(foreseen, after)
        assert foreseen.waiting == len(after.schedule)
        if dies_at is not None and due:
            self.apply_step("collect", dies_at, lambda r: collect(r, choice, self.clock), after)
            return
        assert collect(self.repository, choice, self.clock) == foreseen
        self.count_collection(due, after)
        self.model = after

    @precondition(lambda self: self.model.schedule)
    @rule(data=st.data(), early=st.booleans())
    def collect_at_the_very_second(self, data: st.DataObject, early: bool) -> None:
        """Collect when an entry is due, or in the last second before."""
        entry = data.draw(st.sampled_from(self.model.schedule))
        self.now = entry.due - timedelta(seconds=early)
        EXECUTED["collect: in the last second before" if early else "collect: on the second"] += 1
        self.run_collection(None, at_once=False)

    @precondition(lambda self: self.model.published)
    @rule(data=st.data())
    def remove_and_collect_at_once(self, data: st.DataObject) -> None:
        """Remove the published image while images that its tag has left may still be scheduled."""
        tag = data.draw(st.sampled_from(sorted(self.model.published)))
        number = self.model.published[tag].image
        if not self.holds(tag):
            schedule.remove(self.repository, [name_of(tag)], self.clock)
            self.model = self.model.scheduled(tag, self.now)
        self.run_collection(None, at_once=True, tag=tag, exact=number)

    def due(self, grace: timedelta | None, at_once: bool) -> list[Entry]:
        """Return what a collection has to remove, the longest due first."""

        def due_at(entry: Entry) -> datetime:
            return entry.due if grace is None else entry.since + grace

        found = [
            e
            for e in self.model.schedule
            if (at_once or due_at(e) <= self.now) and not self.model.holds(e.tag, e.image, self.now)
        ]
        return sorted(found, key=lambda e: (due_at(e), key_of(e)))

    def check_freed(self, report: Report, after: Model) -> None:
        assert report.layers == len(layers_of(self.model).keys() - layers_of(after).keys())
        assert report.flat_images == len(users_of(self.model).keys() - users_of(after).keys())

    def count_collection(self, due: Sequence[Entry], after: Model) -> None:
        staying = {image for _, image in after.live()}
        kept_ids = {IMAGES[image].image_id for image in staying}
        layers, left = layers_of(self.model), layers_of(after)
        EXECUTED["collect: due"] += bool(due)
        EXECUTED["collect: not due"] += any(e.due > self.now for e in after.schedule)
        EXECUTED["collect: pinned"] += any(
            self.model.holds(e.tag, e.image, self.now) for e in after.schedule
        )
        for entry in due:
            image = IMAGES[entry.image]
            digests = {layer.digest for layer in image.layers}
            EXECUTED["collect: a pin whose time is over"] += (
                entry.tag,
                entry.image,
            ) in self.model.pins
            EXECUTED["collect: one of several names of an image"] += entry.image in staying
            EXECUTED["collect: one of several manifests of a config"] += (
                entry.image not in staying and image.image_id in kept_ids
            )
            EXECUTED["collect: the last user of a layer"] += not digests <= left.keys()
            EXECUTED["collect: a layer that others use"] += bool(digests & left.keys())
            EXECUTED["collect: one layer twice in an image"] += (
                entry.image == TWICE and digests <= layers.keys() - left.keys()
            )

    # Failures

    @precondition(lambda self: self.model.schedule)
    @rule(
        data=st.data(),
        content=st.sampled_from(DAMAGE),
        dies_at=st.none() | st.none() | st.integers(0, 4),
    )
    def a_record_is_damaged_and_repaired(
        self, data: st.DataObject, content: bytes | None, dies_at: int | None
    ) -> None:
        """Images with uncertain records stay until the repair; all others are removed."""
        records = [*self.root.glob(".layers/*/*/.metadata/origin.json")]
        records += self.root.glob(".metadata/.images/*/*.json")
        record: Path = data.draw(st.sampled_from(sorted(records)))
        record.unlink()
        if content is not None:
            record.write_bytes(content)
        report = collect(self.repository, choose(self.repository, at_once=True), self.clock)
        gone = {each.entry.key for each in report.released}
        due = self.due(None, at_once=True)
        assert gone | {each.entry.key for each in report.kept} == set(map(key_of, due))
        self.model = self.model.collected([e for e in due if key_of(e) in gone])
        EXECUTED["damage: kept" if report.kept else "damage: nothing was in doubt"] += 1
        if dies_at is not None and record.parent.exists():
            EXECUTED["damage: repair killed"] += 1
            self.killed(dies_at, lambda r: derive(r, verify(r).findings, self.now), self.model)
        findings = verify(self.repository).findings
        EXECUTED["damage: repaired"] += bool(findings)
        # As verify --repair does: the links by chain ID need the records that were repaired.
        while findings:
            derive(self.repository, findings, self.now)
            findings, before = verify(self.repository).findings, findings
            assert findings != before
