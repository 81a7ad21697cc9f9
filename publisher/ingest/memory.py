"""The state during a run: which images are put off, and what is remembered of each outcome."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field, replace
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING

from publisher.ingest.report import Outcome, Report, Status, unusable_wish
from publisher.layers.policy import Limits
from publisher.lazy import dataclass
from publisher.oci.reference import ImageReference, Transport
from publisher.problems import Problem
from publisher.state import Cause, News, Tries
from publisher.state.backoff import LONGEST, LONGEST_OF_A_REGISTRY, is_waiting, next_try
from publisher.state.store import State
from publisher.wishlist.model import Request, Wish

if TYPE_CHECKING:
    from publisher.ingest.admission import Admission, RunQuota

_OF_A_REGISTRY = (Cause.UNREACHABLE, Cause.RATE_LIMITED)


def wish_fingerprint(request: Request) -> str:
    """Return a digest of all settings of a wish, and of its images in the lock if it has one."""
    wish = request.wish
    tags = (wish.tags, wish.exclude, wish.expires)
    locked = sorted((str(i), d) for i, d in (request.locked or {}).items())
    return _digest(str(wish.image), _settings(wish), tags, request.locked is None, locked)


def image_fingerprint(request: Request, reference: ImageReference) -> str:
    """Return a digest of what a wish requests for one of its images.

    The patterns are not in it: several wishes of a list may match one image.
    """
    locked = "" if request.locked is None else request.locked.get(reference, "")
    return _digest(str(reference), _settings(request.wish), locked)


def rules_digest(admission: Admission, limits: Limits, quota: RunQuota | None) -> str:
    """Return a digest of what decides whether an image may be published."""
    return _digest(*admission.rules, limits, quota and quota.rules)


def _settings(wish: Wish) -> tuple[object, ...]:
    platforms = tuple(map(str, wish.platforms))
    terms = wish.grace.total_seconds(), wish.name, wish.owner, wish.note, wish.thin
    return platforms, wish.outputs, terms


def _digest(*values: object) -> str:
    return hashlib.sha256(repr(values).encode("utf-8", "backslashreplace")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the state contains a row about: an image, or a wish without images, of a list."""

    request: Request
    name: str
    fingerprint: str


@dataclass(slots=True)
class Memory:
    """What a run remembers in `state`; without one, nothing.

    Args:
        state: The state of the repository.
        now: The clock.
        retry_failed: Try images again although they failed shortly before.
        only_changed: Work on wishes only that are new, or that have changed since they were tried.
        rules: A digest of what may be published: if it changes, all images are tried again.
        random: The source of the back-off's jitter.
    """

    state: State | None
    now: Callable[[], datetime]
    retry_failed: bool = False
    only_changed: bool = False
    rules: str = ""
    random: Random = field(default_factory=Random)

    def selects(self, wish: Remembered) -> bool:
        """Return whether the run is to work on a wish."""
        if self.state is None or not self.only_changed:
            return True
        return not self.state.has_tried(wish.request.wish_list, wish.fingerprint)

    def put_off(self, what: Remembered) -> Outcome | None:
        """Return the outcome of an image, or of a wish, whose next try is later; else None."""
        if self.state is None or self.retry_failed:
            return None
        request, wish = what.request, what.request.wish
        known = self.state.wish(request.wish_list, what.name)
        now = self.now()
        if known is None or not is_waiting(known.next_try, now):
            return None
        if (known.fingerprint, known.rules) != (what.fingerprint, self.rules):
            return None
        waiting = Outcome(
            what.name,
            known.reference,
            Status.WAITING,
            request.wish_list,
            wish.line,
            wish.column,
            error=known.error,
        )
        return _with(waiting, known, now)

    def record(self, what: Remembered, outcome: Outcome, *, has_cost: bool = True) -> Outcome:
        """Remember an outcome; return it with what is then known of a failure.

        Without `has_cost`, a failure was found without a request, and is not put off. Nor is that
        of an image on this host, since no registry has to be spared.
        """
        if self.state is None:
            return outcome
        is_reported = self._is_reported(self.state, what)
        before = self._known(self.state, what, outcome.reference)
        now = self.now()
        if not outcome.error:
            is_behind = outcome.status is Status.PINNED
            self.state.record_success(before, now, outcome.digest, is_behind=is_behind)
            self.state.flush_if_due()
            return replace(outcome, news=News.RECOVERED) if is_reported else outcome
        cause = Cause(outcome.cause or Cause.OTHER)
        published = outcome.status is not Status.FAILED
        if published:
            before = replace(before, last_success=now, digest=outcome.digest or before.digest)
        has_cost = has_cost and what.request.wish.image.transport is Transport.REGISTRY
        later = self._next_try(before.tries + 1, cause, published) if has_cost else None
        tries = self.state.record_failure(before, now, cause, outcome.error, later)
        self.state.flush_if_due()
        return _with(outcome, tries, now)

    def finish(self, wish: Remembered, *, has_images: bool) -> bool:
        """Remember that all images of a wish were tried, or put off.

        With `has_images`, the failure of the wish as a whole, if any, is over. Return whether such
        a failure was reported.
        """
        if self.state is None:
            return False
        wish_list = wish.request.wish_list
        self.state.record_tried(wish_list, wish.fingerprint, self.now())
        is_over = has_images and bool(wish.request.wish.tags)
        is_recovered = is_over and self._is_reported(self.state, wish)
        if is_over:
            self.state.forget(wish_list, [wish.name])
        self.state.flush_if_due()
        return is_recovered

    def _next_try(self, tries: int, cause: Cause, published: bool) -> datetime | None:
        """Return when to try again; None if that depends on this host or on the wish list.

        An image that is published, and of which another output failed, is still to be updated when
        its tag moves.
        """
        if not cause.is_of_the_image:
            return None
        longest = LONGEST_OF_A_REGISTRY if published or cause in _OF_A_REGISTRY else LONGEST
        return next_try(tries, self.now(), self.random, longest=longest)

    def _is_reported(self, state: State, what: Remembered) -> bool:
        """Return whether a failure was reported, also if its wish has changed since then."""
        known = state.wish(what.request.wish_list, what.name)
        return known is not None and known.reported_at is not None

    def _known(self, state: State, what: Remembered, reference: str) -> Tries:
        """Return what is known of an image, with its present place in its list."""
        request, wish = what.request, what.request.wish
        known = state.wish(request.wish_list, what.name)
        if known is None:
            known = Tries(request.wish_list, what.name, reference, self.now())
        if known.fingerprint != what.fingerprint:
            known = known.without_failure()
        return replace(
            known,
            reference=reference,
            owner=wish.owner,
            line=wish.line,
            column=wish.column,
            fingerprint=what.fingerprint,
            rules=self.rules,
        )


def _with(outcome: Outcome, tries: Tries, now: datetime) -> Outcome:
    return replace(
        outcome,
        cause=tries.cause,
        failing_since=tries.failing_since,
        next_try=tries.next_try,
        news=tries.news(now),
    )


def record_problems(state: State, problems: Sequence[Problem], now: datetime) -> list[Outcome]:
    """Remember the wishes with errors; return the outcomes, one for each error.

    They are never put off, since finding an error needs no request.
    """
    texts: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        texts.setdefault((problem.file, problem.subject), []).append(problem.text)
    found: dict[tuple[str, str], Tries] = {}
    outcomes = []
    for problem in problems:
        outcome = unusable_wish(problem)
        key = problem.file, problem.subject
        if key not in found:
            found[key] = _record_invalid(state, outcome, _digest(texts[key]), now)
        outcomes.append(_with(outcome, found[key], now))
    return outcomes


@dataclass(frozen=True, slots=True)
class UnreadableList:
    """A wish list that could not be read, or whose lock could not, and why."""

    identity: str
    error: str


def record_unreadable(
    state: State, lists: Iterable[UnreadableList], now: datetime
) -> list[Outcome]:
    """Remember the lists that could not be read; return an outcome for each."""
    outcomes = []
    for each in lists:
        outcome = Outcome(
            each.identity,
            each.identity,
            Status.FAILED,
            each.identity,
            error=each.error,
            cause=Cause.WISH_LIST,
        )
        outcomes.append(_with(outcome, _record_invalid(state, outcome, "", now), now))
    return outcomes


def record_readable(state: State, identities: Iterable[str]) -> list[Outcome]:
    """Forget that lists could not be read; return an outcome for each that was reported."""
    outcomes = []
    for identity in filter(None, identities):
        known = state.wish(identity, identity)
        state.forget(identity, [identity])
        if known is not None and known.reported_at is not None:
            outcomes.append(_corrected(known))
    return outcomes


def _record_invalid(state: State, outcome: Outcome, fingerprint: str, now: datetime) -> Tries:
    """Remember an error in a list, which is another one if its fingerprint is."""
    known = state.wish(outcome.wish_list, outcome.name)
    known = known or Tries(outcome.wish_list, outcome.name, outcome.name, first_seen=now)
    if known.fingerprint != fingerprint:
        known = replace(known.without_failure(), fingerprint=fingerprint)
    known = replace(known, line=outcome.line, column=outcome.column)
    return state.record_failure(known, now, Cause.WISH_LIST, outcome.error)


def _corrected(known: Tries) -> Outcome:
    """Return the outcome of a list, or of a wish, that had an error and has none any more."""
    return Outcome(
        known.name, known.reference, Status.UNCHANGED, known.wish_list, known.line, known.column
    )


def remembered_name(outcome: Outcome) -> str:
    """Return the name of the row of an image in the state.

    The plain name of an image belongs to the first wish that requests it.
    """
    contradicts = outcome.cause == Cause.CONTRADICTION
    return f"{outcome.name} (contradicts another wish)" if contradicts else outcome.name


def record_reported(state: State, failures: Iterable[Outcome], now: datetime) -> None:
    """Remember that failures were reported, so that they are not news in the next run."""
    for each in failures:
        state.record_reported(each.wish_list, remembered_name(each), now)


def forget_changed(state: State, wish_list: str, requests: Iterable[Request]) -> None:
    """Forget that wishes were tried which a list has no more, or has with other settings.

    If one returns to the list, `Memory.selects` it.
    """
    present = {wish_fingerprint(each) for each in requests if each.wish_list == wish_list}
    state.forget_tried(wish_list, present)


def forget_unrequested(
    state: State, wish_list: str, requests: Iterable[Request], report: Report
) -> list[Outcome]:
    """Forget images that a list does not request any more, after a run for the whole list.

    The images of a pattern whose tags could not be listed are kept.

    Returns:
        An outcome for each wish with an error that was reported, and that the list does not have
        any more: it was corrected or removed.
    """
    failed = {outcome.name for outcome in report.failed if outcome.wish_list == wish_list}
    patterns = (request.wish for request in requests if request.wish.tags)
    kept = tuple(f"{wish.image}:" for wish in patterns if str(wish) in failed)
    forgotten = [
        tries
        for tries in state.unused(wish_list)
        if not (kept and tries.reference.startswith(kept)) and tries.name != wish_list
    ]
    state.forget(wish_list, [tries.name for tries in forgotten])
    return [
        _corrected(tries)
        for tries in forgotten
        if tries.cause == Cause.WISH_LIST and tries.reported_at is not None
    ]
