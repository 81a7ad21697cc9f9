"""A repository, its model and a clock, for random publications, removals and kills.

The rules are in tests/removal_machine.py. This module executes them, and checks the invariants
after each.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import note
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from publisher.repository.directory import journal
from publisher.repository.directory.repository import DirectoryRepository
from publisher.repository.reading import count_usage, load_pins, load_publication, load_schedule
from publisher.sources.open import Sources
from publisher.tree.layout import RepositoryURL
from publisher.verify.run import verify
from publisher.wishlist import Wish, wish_for
from tests.removal_model import (
    IMAGES,
    START,
    TAGS,
    Entry,
    Model,
    Source,
    assert_tree_is,
    layers_of,
    name_of,
    users_of,
)

EXECUTED: Counter[str] = Counter({"sequences": 0, "steps": 0, "kills": 0})
"""How often each case was reached, by rules whose preconditions held."""

KILLED = 77


class World(RuleBasedStateMachine):
    folder: Path
    source: Source

    @initialize()
    def begin(self) -> None:
        EXECUTED["sequences"] += 1
        self.root = Path(tempfile.mkdtemp(prefix="tree-", dir=self.folder))
        self.url = RepositoryURL("dir", str(self.root))
        self.repository: Any = DirectoryRepository(self.url, writable=True, may_be_new=True)
        self.sources = Sources()
        self.model = Model()
        self.now = START
        self.at_source = dict.fromkeys(TAGS, 0)
        self.source.set(self.at_source)

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.repository.close()
            self.sources.close()
            shutil.rmtree(self.root)

    def clock(self) -> datetime:
        return self.now

    def wish(self, tag: str, grace: timedelta = timedelta(0)) -> Wish:
        return replace(wish_for(self.source.reference(tag)), grace=grace)

    def holds(self, tag: str) -> bool:
        """Whether a pin holds the image that is published under the tag."""
        return self.model.holds(tag, self.model.published[tag].image, self.now)

    def killed(self, operation: int, act: Callable[[Any], object], after: Model) -> None:
        """Execute `act` in a process that is killed at its n-th step on the tree; then continue."""
        pid = os.fork()
        if pid == 0:
            die_at(operation)
            code = 1
            try:
                act(DirectoryRepository(self.url, writable=True, may_be_new=True))
                code = 0
            finally:
                os._exit(code)
        self.survive(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), after)

    def survive(self, code: int, after: Model) -> None:
        """Continue after a process ended with `code`, with or without the change to `after`."""
        assert code in (0, KILLED)
        EXECUTED["kills"] += 1
        with self.repository.transaction("next") as transaction, transaction.exclusive():
            pass
        if self.recorded() != self.expected(self.model):
            note("its commit was executed")
            EXECUTED["killed after its commit" if code else "ended without being killed"] += 1
            self.model = after
        elif code:
            EXECUTED["killed before its commit"] += 1

    def recorded(self) -> tuple[object, ...]:
        """Return the contents of the repository's records; the tree is compared elsewhere."""
        records = {tag: load_publication(self.repository, name_of(tag)) for tag in TAGS}
        return (
            {e.key: (e.scheduled_at, e.not_before) for e in load_schedule(self.repository).entries},
            {(p.name, p.manifest_digest): p.until for p in load_pins(self.repository).pins},
            {
                tag: (r.manifest_digest, r.wish_lists, float(r.grace_seconds), r.published_at)
                for tag, r in records.items()
                if r is not None
            },
            {tag for tag in TAGS if self.repository.link_text(name_of(tag)) is not None},
        )

    def expected(self, model: Model) -> tuple[object, ...]:
        """Return the records that the model expects."""
        return (
            {key_of(e): (e.since, e.due) for e in model.schedule},
            {
                (name_of(tag), IMAGES[image].manifest.digest): until
                for (tag, image), until in model.pins.items()
            },
            {
                tag: (IMAGES[p.image].manifest.digest, p.lists, p.grace.total_seconds(), p.at)
                for tag, p in model.published.items()
            },
            {tag for tag, p in model.published.items() if p.linked},
        )

    @invariant()
    def the_tree_matches_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        EXECUTED["steps"] += 1
        assert_tree_is(self.root, self.model)

    @invariant()
    def the_records_match_the_model(self) -> None:
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
            findings = verify(self.repository).findings
            assert not findings, str(findings)

    @invariant()
    def what_is_pinned_is_there(self) -> None:
        if not hasattr(self, "model"):
            return
        live = self.model.live()
        for key in self.model.pins:
            assert key in live or not self.model.holds(*key, self.now)


def key_of(entry: Entry) -> tuple[str, str]:
    """The key of the entry in the repository's schedule."""
    return name_of(entry.tag), IMAGES[entry.image].manifest.digest


def die_at(operation: int) -> None:
    """End this process, without any clean-up, when it begins its n-th rename of a commit.

    The one before the first writes the journal that makes a commit of it.
    """
    count = 0
    write, execute = journal.write, journal._execute

    def step() -> None:
        nonlocal count
        if count == operation:
            os._exit(KILLED)
        count += 1

    def written(*arguments: Any) -> None:
        step()
        write(*arguments)

    def counted_execute(*arguments: Any) -> None:
        step()
        execute(*arguments)

    setattr(journal, "write", written)  # noqa: B010  # mypy knows that it is a function
    setattr(journal, "_execute", counted_execute)  # noqa: B010
