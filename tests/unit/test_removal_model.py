"""Images come and go at random, and after every step the tree holds exactly what somebody needs.

PUBLISHER_SEQUENCES says how many sequences of steps to try: a few when all tests are run, thousands
by hand, in memory, with

    PUBLISHER_SEQUENCES=5000 pytest tests/unit/test_removal_model.py --basetemp=/dev/shm/removal
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from publisher.ingest import Request, Status, ingest
from publisher.ingest.publish import ImagePinned
from publisher.layout import RepositoryURL
from publisher.removal import pins, schedule
from publisher.removal.gc import Report, choose, collect
from publisher.removal.prune import GivenList, Guard, prune
from publisher.removal.schedule import NotScheduled
from publisher.repository import journal
from publisher.repository.directory import DirectoryRepository
from publisher.sources.open import Sources
from publisher.state import count_usage, load_publication, load_schedule
from publisher.verify import verify
from publisher.verify.repair import repair
from publisher.wishlist import Wish, WishList, wish_for
from tests.removal_model import (
    IMAGES,
    START,
    TAGS,
    Entry,
    Model,
    Published,
    Source,
    assert_tree_is,
    layers_of,
    name_of,
    users_of,
)
from tests.trees import tree_identity

SEQUENCES = int(os.environ.get("PUBLISHER_SEQUENCES", "20"))

tags = st.sampled_from(TAGS)
images = st.integers(0, len(IMAGES) - 1)
lists = st.sampled_from(["/lists/a", "/lists/b", ""])
graces = st.sampled_from([timedelta(0), timedelta(hours=10), timedelta(days=3)])
steps = st.sampled_from([-30, -5, 1, 10, 30, 80]).map(lambda hours: timedelta(hours=hours))
days = st.none() | st.integers(0, 3)

EXECUTED = {"sequences": 0, "steps": 0, "kills": 0}


class Removal(RuleBasedStateMachine):
    folder: Path
    source: Source

    @initialize()
    def begin(self) -> None:
        EXECUTED["sequences"] += 1
        self.root = Path(tempfile.mkdtemp(prefix="tree-", dir=self.folder))
        self.url = RepositoryURL("dir", str(self.root))
        self.repository = DirectoryRepository(self.url, writable=True)
        self.sources = Sources()
        self.model = Model()
        self.now = START
        self.at_source = dict.fromkeys(TAGS, 0)
        self.source.set(self.at_source)

    def teardown(self) -> None:
        self.repository.close()
        self.sources.close()
        shutil.rmtree(self.root)

    def clock(self) -> datetime:
        return self.now

    def wish(self, tag: str, grace: timedelta = timedelta(0)) -> Wish:
        return replace(wish_for(self.source.reference(tag)), grace=grace)

    # What happens elsewhere

    @rule(tag=tags, image=images)
    def a_tag_moves_at_the_source(self, tag: str, image: int) -> None:
        self.at_source[tag] = image
        self.source.set(self.at_source)

    @rule(step=steps)
    def the_clock_steps(self, step: timedelta) -> None:
        self.now += step

    # What people and jobs do

    @rule(tag=tags, image=st.none() | images, wish_list=lists, grace=graces)
    def ingest(self, tag: str, image: int | None, wish_list: str, grace: timedelta) -> None:
        if image is not None:
            self.a_tag_moves_at_the_source(tag, image)
        number = self.at_source[tag]
        found = self.model.published.get(tag)
        moves = found is not None and found.image != number
        held = moves and self.model.holds(tag, found.image, self.now)  # type: ignore[union-attr]
        report = self.run_ingest(tag, wish_list, grace)
        (outcome,) = report.outcomes
        assert not outcome.error
        assert (outcome.status is Status.PINNED) == held
        if moves and not held:
            assert outcome.status is Status.UPDATED
        if not held:
            self.model = self.model.ingested(tag, number, wish_list, grace, self.now)

    def run_ingest(self, tag: str, wish_list: str, grace: timedelta) -> Any:
        request = Request(self.wish(tag, grace), wish_list)
        return ingest([request], self.repository, self.sources, jobs=1, now=self.clock)

    @precondition(lambda self: self.model.published)
    @rule(data=st.data(), grace=st.none() | graces, drop_link=st.booleans())
    def remove(self, data: st.DataObject, grace: timedelta | None, drop_link: bool) -> None:
        tag = data.draw(st.sampled_from(sorted(self.model.published)))
        held = self.model.holds(tag, self.model.published[tag].image, self.now)

        def act() -> None:
            schedule.remove(
                self.repository, name_of(tag), self.clock, grace=grace, drop_link=drop_link
            )

        if held:
            with pytest.raises(ImagePinned):
                act()
            return
        act()
        self.model = self.model.scheduled(tag, self.now, grace)
        if drop_link:
            self.model = self.model.relinked(tag, False)

    @precondition(lambda self: self.model.schedule)
    @rule(data=st.data())
    def restore_by_name(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(sorted({e.tag for e in self.model.schedule})))
        current = [e for e in self.model.schedule if e.tag == tag and self.model.is_current(e)]
        if not current:
            with pytest.raises(NotScheduled):
                schedule.restore(self.repository, name_of(tag), self.clock)
            return
        assert schedule.restore(self.repository, name_of(tag), self.clock) == [name_of(tag)]
        self.model = self.model.unscheduled(tag, current[0].image).relinked(tag, True)

    @precondition(lambda self: self.model.schedule)
    @rule(data=st.data())
    def restore_one_manifest(self, data: st.DataObject) -> None:
        entry: Entry = data.draw(st.sampled_from(self.model.schedule))
        exact = f"{name_of(entry.tag)}@{IMAGES[entry.image].manifest.digest}"
        found = self.model.published.get(entry.tag)
        displaces = found is not None and found.image != entry.image
        if found and displaces and self.model.holds(entry.tag, found.image, self.now):
            with pytest.raises(ImagePinned):
                schedule.restore(self.repository, exact, self.clock)
            return
        schedule.restore(self.repository, exact, self.clock)
        after = self.model
        if displaces:
            after = after.unscheduled(entry.tag, entry.image)
            after = after.scheduled(entry.tag, self.now)
        after = after.unscheduled(entry.tag, entry.image)
        self.model = self.adopt(after, entry.tag, entry.image)

    def adopt(self, model: Model, tag: str, image: int) -> Model:
        """The model with what the record of a restored image says of its wish."""
        record = load_publication(self.repository, name_of(tag))
        assert record is not None
        before = model.published.get(tag)
        assert record.wish_lists == (before.lists if before else frozenset())
        model = model.copy()
        model.published[tag] = Published(
            image,
            record.wish_lists,
            timedelta(seconds=record.grace_seconds),
            record.published_at,
        )
        return model

    @precondition(lambda self: self.model.live())
    @rule(data=st.data(), until=days, exact=st.booleans())
    def pin(self, data: st.DataObject, until: int | None, exact: bool) -> None:
        tag, number = data.draw(st.sampled_from(sorted(self.model.live())))
        published = self.model.published.get(tag)
        if not exact and published is None:
            return
        if not exact and published is not None:
            number = published.image
        last: date | None = None if until is None else (self.now + timedelta(days=until)).date()
        text = name_of(tag) + (f"@{IMAGES[number].manifest.digest}" if exact else "")
        pins.pin(self.repository, text, self.clock, until=last)
        after = self.model.copy()
        after.pins[tag, number] = last
        if published is not None and published.image == number:
            after = after.unscheduled(tag, number).relinked(tag, True)
        self.model = after

    @precondition(lambda self: self.model.pins)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(sorted({tag for tag, _ in self.model.pins})))
        pins.unpin(self.repository, name_of(tag), self.clock)
        after = self.model.copy()
        since = self.model.latest(self.now)
        renewed = []
        kept = []
        for entry in after.schedule:
            if (entry.tag, entry.image) in after.pins and entry.tag == tag:
                renewed.append(Entry(tag, entry.image, since, since + (entry.due - entry.since)))
            else:
                kept.append(entry)
        after.schedule = (*kept, *renewed)
        after.pins = {key: until for key, until in after.pins.items() if key[0] != tag}
        self.model = after

    @rule(
        wished=st.dictionaries(tags, lists.filter(bool)),
        given=st.lists(lists.filter(bool), min_size=1, max_size=2, unique=True),
        whole=st.booleans(),
        drop_links=st.booleans(),
        guarded=st.booleans(),
    )
    def prune(
        self,
        wished: dict[str, str],
        given: list[str],
        whole: bool,
        drop_links: bool,
        guarded: bool,
    ) -> None:
        documents = [
            GivenList(
                each,
                WishList(
                    each, 2, "", None, tuple(self.wish(t) for t, n in wished.items() if n == each)
                ),
            )
            for each in given
        ]

        def run(dry_run: bool) -> Any:
            return prune(
                self.repository,
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
        foreseen = run(dry_run=True)
        assert tree_identity(self.root) == before
        report = run(dry_run=False)
        assert report == foreseen
        if not all(each.wish_list.wishes for each in documents):
            assert report.doubts and not report.scheduled
            return
        self.model = self.after_prune(wished, given, whole, drop_links, guarded, report)

    def after_prune(
        self,
        wished: dict[str, str],
        given: Sequence[str],
        whole: bool,
        drop_links: bool,
        guarded: bool,
        report: Any,
    ) -> Model:
        after = self.model
        withdrawn, in_question = [], 0
        again: list[str] = []
        for tag, published in sorted(self.model.published.items()):
            wishing = {wished[tag]} & set(given) if tag in wished else set()
            if self.model.find(tag, published.image) is not None:
                if wishing:
                    again.append(tag)
                continue
            if not whole and not published.lists & set(given):
                continue
            in_question += 1
            left = wishing if whole else published.lists - set(given) | wishing
            if left:
                if published.lists:
                    after = after.copy()
                    after.published[tag] = replace(published, lists=frozenset(left))
            elif not self.model.holds(tag, published.image, self.now):
                withdrawn.append(tag)
        assert sorted(report.withdrawn) == sorted(map(name_of, withdrawn))
        if guarded and len(withdrawn) > max(1, in_question // 5):
            assert report.refused and not report.scheduled
            return self.model
        assert not report.refused
        for tag in withdrawn:
            number = self.model.published[tag].image
            since = self.model.latest(max(self.now, self.model.published[tag].at))
            entry = Entry(tag, number, since, since + self.model.published[tag].grace)
            after = after.copy()
            after.schedule = (*after.schedule, entry)
            if drop_links:
                after = after.relinked(tag, False)
        for tag in again:
            after = after.unscheduled(tag, after.published[tag].image).relinked(tag, True)
        return after

    @rule(
        grace=st.none() | graces,
        at_once=st.booleans(),
        limit=st.none() | st.integers(1, 2),
        only=st.none() | tags,
    )
    def collect(
        self, grace: timedelta | None, at_once: bool, limit: int | None, only: str | None
    ) -> None:
        if only is not None and not any(t == only for t, _ in self.model.live()):
            only = None
        choice = choose(
            self.repository,
            grace=grace,
            at_once=at_once,
            limit=limit,
            image=None if only is None else name_of(only),
        )
        before = tree_identity(self.root)
        foreseen = collect(self.repository, choice, self.clock, dry_run=True)
        assert tree_identity(self.root) == before
        report = collect(self.repository, choice, self.clock)
        assert report == foreseen
        assert not report.kept
        due = self.due(grace, at_once, limit, only)
        assert len(report.released) == len(due)
        self.check_freed(report, due)
        self.model = self.model.collected(due)
        assert report.waiting == len(self.model.schedule)

    def due(
        self, grace: timedelta | None, at_once: bool, limit: int | None, only: str | None
    ) -> list[Entry]:
        def due_at(entry: Entry) -> datetime:
            return entry.due if grace is None else entry.since + grace

        found = [
            e
            for e in self.model.schedule
            if (at_once or due_at(e) <= self.now)
            and only in (None, e.tag)
            and not self.model.holds(e.tag, e.image, self.now)
        ]
        digests = {e: IMAGES[e.image].manifest.digest for e in found}
        return sorted(found, key=lambda e: (due_at(e), name_of(e.tag), digests[e]))[:limit]

    def check_freed(self, report: Report, due: list[Entry]) -> None:
        after = self.model.collected(due)
        assert report.layers == len(layers_of(self.model).keys() - layers_of(after).keys())
        assert report.flat_images == len(users_of(self.model).keys() - users_of(after).keys())

    # What goes wrong

    @precondition(lambda self: self.model.published)
    @rule(data=st.data(), operation=st.integers(0, 12))
    def a_removal_is_killed(self, data: st.DataObject, operation: int) -> None:
        tag = data.draw(st.sampled_from(sorted(self.model.published)))
        if self.model.holds(tag, self.model.published[tag].image, self.now):
            return
        self.killed(
            operation,
            lambda repository: schedule.remove(repository, name_of(tag), self.clock),
            self.model.scheduled(tag, self.now),
        )

    @precondition(lambda self: self.model.schedule)
    @rule(operation=st.integers(0, 25))
    def a_collection_is_killed(self, operation: int) -> None:
        due = self.due(None, True, None, None)
        self.killed(
            operation,
            lambda repository: collect(repository, choose(repository, at_once=True), self.clock),
            self.model.collected(due),
        )

    @rule(tag=tags, image=images, operation=st.integers(0, 16))
    def an_ingest_is_killed(self, tag: str, image: int, operation: int) -> None:
        found = self.model.published.get(tag)
        if found and found.image != image and self.model.holds(tag, found.image, self.now):
            return
        self.a_tag_moves_at_the_source(tag, image)
        request = Request(self.wish(tag), "")
        self.killed(
            operation,
            lambda repository: ingest([request], repository, self.sources, jobs=1, now=self.clock),
            self.model.ingested(tag, image, "", timedelta(0), self.now),
        )

    @precondition(lambda self: self.model.schedule)
    @rule(data=st.data(), content=st.sampled_from([None, b"", b"{", b'{"origin": 1}']))
    def a_record_is_damaged_and_repaired(self, data: st.DataObject, content: bytes | None) -> None:
        """Doubt keeps: what a collection can still tell goes, the rest stays until the repair."""
        records = [*self.root.glob(".layers/*/*/.metadata/origin.json")]
        records += self.root.glob(".metadata/.images/*/*.json")
        record: Path = data.draw(st.sampled_from(sorted(records)))
        record.unlink()
        if content is not None:
            record.write_bytes(content)
        report = collect(self.repository, choose(self.repository, at_once=True), self.clock)
        gone = {each.entry.key for each in report.released}
        due = self.due(None, True, None, None)
        assert len(report.released) + len(report.kept) == len(due)
        self.model = self.model.collected([e for e in due if key_of(e) in gone])
        mended = repair(self.repository, verify(self.repository).findings)
        assert not mended.failures

    def killed(
        self, operation: int, act: Callable[[DirectoryRepository], object], after: Model
    ) -> None:
        """Do it in a process that ends at its n-th step on the tree; then go on regardless."""
        EXECUTED["kills"] += 1
        pid = os.fork()
        if pid == 0:
            _die_at(operation)
            code = 1
            try:
                act(DirectoryRepository(self.url, writable=True))
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, KILLED)
        with self.repository.transaction("next") as transaction, transaction.exclusive():
            pass
        if self.recorded() != self.expected(self.model):
            note("it had happened")
            self.model = after

    def recorded(self) -> tuple[object, object]:
        """What the repository's records say; what the tree holds is looked at elsewhere."""
        entries = load_schedule(self.repository).entries
        records = {tag: load_publication(self.repository, name_of(tag)) for tag in TAGS}
        return {e.key: (e.scheduled_at, e.not_before) for e in entries}, {
            tag: (r.manifest_digest, r.wish_lists, float(r.grace_seconds), r.published_at)
            for tag, r in records.items()
            if r is not None
        }

    def expected(self, model: Model) -> tuple[object, object]:
        """What the model says that they are."""
        return {key_of(e): (e.since, e.due) for e in model.schedule}, {
            tag: (IMAGES[p.image].manifest.digest, p.lists, p.grace.total_seconds(), p.at)
            for tag, p in model.published.items()
        }

    # What must hold

    @invariant()
    def the_tree_is_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        EXECUTED["steps"] += 1
        assert_tree_is(self.root, self.model)

    @invariant()
    def the_records_are_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self.recorded() == self.expected(self.model)

    @invariant()
    def counting_anew_gives_what_is_recorded(self) -> None:
        if not hasattr(self, "model"):
            return
        usage = count_usage(self.repository)
        assert usage.layers == layers_of(self.model)
        assert usage.images == users_of(self.model)

    @invariant()
    def it_is_sound(self) -> None:
        if hasattr(self, "model"):
            assert not verify(self.repository).findings

    @invariant()
    def what_is_pinned_is_there(self) -> None:
        if not hasattr(self, "model"):
            return
        live = self.model.live()
        for key in self.model.pins:
            assert key in live or not self.model.holds(*key, self.now)


def key_of(entry: Entry) -> tuple[str, str]:
    return name_of(entry.tag), IMAGES[entry.image].manifest.digest


KILLED = 77


def _die_at(operation: int) -> None:
    """End this process, without any cleaning up, when it begins its n-th rename of a commit."""
    count = 0
    carry_out = journal._carry_out

    def counted(*arguments: Any) -> None:
        nonlocal count
        if count == operation:
            os._exit(KILLED)
        count += 1
        carry_out(*arguments)

    setattr(journal, "_carry_out", counted)  # noqa: B010  # mypy knows that it is a function


def test_the_tree_holds_exactly_what_somebody_needs(tmp_path: Path) -> None:
    class Here(Removal):
        folder = tmp_path
        source = Source(tmp_path / "app")

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate] if SEQUENCES > 100 else tuple(Phase),
        ),
    )
    print(EXECUTED)
