"""Read the lists to check, and compare each with its earlier version."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date

from publisher.ingest.findings import POLICY, Finding, Level, Rule, of_problem, of_wish
from publisher.lazy import dataclass
from publisher.policy import PolicyFile
from publisher.policy.rules import PolicyCheck
from publisher.sources.revisions import EarlierList
from publisher.wishlist import (
    Problem,
    Severity,
    Wish,
    WishList,
    WishListError,
    parse_wish_list,
)
from publisher.wishlist.changes import Change, Changes, ListVersion, compare_versions
from publisher.wishlist.wishes import DUPLICATE


@dataclass(frozen=True, slots=True)
class CheckedList:
    """A list and what changed in it.

    `repository` is the URL of the repository that its images go to, or None. `base` is what it was
    compared with; without it, every wish counts as added, and every problem as introduced.
    `base_problem` is why the comparison is of little use, or "".
    """

    name: str
    repository: str | None
    changes: Changes
    base: EarlierList | None = None
    base_problem: str = ""

    @property
    def wishes(self) -> list[tuple[Wish, Change | None]]:
        """The usable wishes, each with its change; None without an earlier version."""
        return [(wish, change if self.base else None) for wish, change in self.changes.wishes]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems that the change introduces.

        With an earlier version, repeated wishes are not among them: the added wish is reported,
        whether it is the first or the second one in the list.
        """
        found = self.changes.introduced
        return found if self.base is None else tuple(p for p in found if p.rule != DUPLICATE)

    def findings(self) -> list[Finding]:
        """Return the problems, and what is to be known of the comparison."""
        found = [of_problem(problem) for problem in self.problems]
        found += [of_problem(problem).as_earlier() for problem in self.changes.earlier]
        notes = [self.base.note if self.base else "", self.base_problem]
        return found + [
            Finding(Rule.COMPARISON, Level.NOTE, self.name, 0, 0, note) for note in notes if note
        ]


def read_lists(
    documents: Sequence[tuple[str, bytes]],
    bases: Mapping[str, EarlierList],
    repository: str | None,
    untrusted: Collection[str],
    today: date | None,
) -> list[CheckedList]:
    """Read all lists; the arguments are those of `check`."""

    def read(name: str, data: bytes) -> tuple[WishList | None, ListVersion]:
        try:
            wish_list = parse_wish_list(
                data, name, allow_local=name not in untrusted, repository_counts=not repository
            )
        except WishListError as error:
            return None, ListVersion.of(data, (), error.problems)
        expired = [_expired(wish, name) for wish in wish_list.wishes if _has_expired(wish, today)]
        problems = (*wish_list.problems, *expired)
        return wish_list, ListVersion.of(data, wish_list.wishes, problems)

    checked = []
    for name, data in documents:
        wish_list, new = read(name, data)
        base, old, problem = bases.get(name), ListVersion(), ""
        if base is not None and base.data is not None:
            former, old = read(name, base.data)
            if former is None:
                problem = f"the list was unusable in {base.name}: every wish counts as added"
        changes = compare_versions(new, old)
        if wish_list is None:  # nothing of it can be checked
            changes = replace(changes, introduced=new.problems, earlier=())
        target = repository or (wish_list.repository if wish_list else None)
        checked.append(CheckedList(name, target, changes, base, problem))
    return checked


def _has_expired(wish: Wish, today: date | None) -> bool:
    return today is not None and wish.expires is not None and wish.expires <= today


def _expired(wish: Wish, name: str) -> Problem:
    return Problem(
        Severity.WARNING,
        name,
        wish.line,
        wish.column,
        f"the wish for {wish} has expired on {wish.expires}",
        "remove it, or set a later date",
        rule=Rule.EXPIRED,
    )


def forbidden_changes(
    lists: Sequence[CheckedList], policy: PolicyFile, user: str | None
) -> list[Finding]:
    """Return the changes that `user` may not make, since the wishes are those of other owners."""
    found = []
    for each in lists if user is not None else ():
        if each.base is None:
            continue
        changed = [(wish, wish.owner) for wish, change in each.wishes if change is not Change.KEPT]
        changed += [(new, old.owner) for new, old in each.changes.former if old.owner != new.owner]
        changed += [(replace(old, line=0, column=0), old.owner) for old in each.changes.removed]
        found += [
            of_wish(f"{POLICY}{v.rule}", Level.ERROR, each.name, wish, v.why, v.hint)
            for wish, owner in changed
            for v in PolicyCheck(policy, owner).change(user or "")
        ]
    return found
