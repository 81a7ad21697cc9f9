"""Schedule what is not wished any more: the use case behind `publisher prune`.

The wish lists that are given are the truth about the images that they published, or, if that is
said, about the whole repository. Any doubt keeps: if one list is empty or has an error, or one
pattern cannot be expanded, nothing is scheduled at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime

from publisher.errors import InvalidManifest, PublisherError
from publisher.oci.manifest import parse_published_manifest
from publisher.removal.books import write_schedule
from publisher.removal.schedule import WITHDRAWN, give_link_back, new_entry, take_link_away
from publisher.repository import Repository
from publisher.repository.reading import (
    current_manifest,
    load_pins,
    load_publication,
    load_schedule,
)
from publisher.sources.open import Sources
from publisher.sources.tags import expand_wish
from publisher.tree import layout
from publisher.tree.pins import Pins
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import RemoveSchedule, ScheduledRemoval
from publisher.wishlist import WishList
from publisher.wishlist.model import Request
from publisher.wishlist.places import places_of

DEFAULT_SHARE = 0.2
"""The share of the images in question that may be scheduled without being asked."""


@dataclass(frozen=True, slots=True)
class GivenList:
    """A wish list, and what it is called in the repository's records: its path or URL."""

    identity: str
    wish_list: WishList


@dataclass(frozen=True, slots=True)
class Guard:
    """How many images may be scheduled at once: at most `share` of those in question, but one.

    `at_most` is a number of images instead; `off` lets everything pass.
    """

    share: float = DEFAULT_SHARE
    at_most: int | None = None
    off: bool = False

    def allowed(self, in_question: int) -> int:
        """The largest number of images that passes."""
        if self.off:
            return in_question
        return max(1, int(in_question * self.share)) if self.at_most is None else self.at_most


@dataclass(frozen=True, slots=True)
class Image:
    """One published image as its records say: who wishes it, and whether it is scheduled."""

    name: str
    manifest_digest: str
    lists: frozenset[str]
    scheduled: bool = False
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with which images. `kept` says of some that the lists let go why they stay.

    `lists` holds, for images some of whose lists have let them go, those that still wish them.
    `in_question` counts the images about which the lists decide, without those already scheduled;
    `others` those about which they do not: other lists', and what was published by hand.
    """

    withdrawn: tuple[str, ...]
    wished_again: tuple[str, ...]
    lists: Mapping[str, frozenset[str]]
    kept: Mapping[str, str]
    in_question: int
    others: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a prune did, or would do.

    With `doubts` nothing was scheduled; nor was it where the guard stepped in, and `refused` says
    why. `withdrawn` names what is not wished any more, `kept` what stays nevertheless, each with
    the reason, and `unreadable` images of which it is not known who wishes them. About `others` the
    lists say nothing. Of `unknown_lists` nothing is published: they may be recorded by other names.
    """

    scheduled: tuple[ScheduledRemoval, ...] = ()
    restored: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    refused: str = ""
    withdrawn: tuple[str, ...] = ()
    others: int = 0
    unknown_lists: tuple[str, ...] = ()


def prune(
    repository: Repository,
    lists: Sequence[GivenList],
    sources: Sources,
    now: Callable[[], datetime],
    *,
    whole: bool = False,
    guard: Guard = Guard(),
    drop_links: bool = False,
    dry_run: bool = False,
    jobs: int = 4,
) -> Report:
    """Schedule every image that the given lists published, and that none of them wishes any more.

    With `whole` the lists are the truth about all images, whoever published them. What is scheduled
    and wished again leaves the schedule. Raises InvalidRecord when schedule or pins are unreadable.
    """
    moment = now()
    wished, doubts = _wished_names(lists, sources, moment, jobs)
    if doubts:
        return Report(doubts=tuple(doubts))
    given = frozenset(each.identity for each in lists)
    images, unreadable = _published_images(repository, moment)
    decision = decide(images.values(), wished, given, whole=whole)
    report = Report(
        kept=decision.kept,
        unreadable=unreadable,
        withdrawn=decision.withdrawn,
        others=decision.others,
        refused=_objection(decision, guard),
        unknown_lists=() if whole else _unknown_lists(given, images.values()),
    )
    if report.refused:
        return report
    if dry_run:
        schedule = load_schedule(repository)
        entries = [
            new_entry(repository, schedule, name, WITHDRAWN, moment) for name in decision.withdrawn
        ]
        return replace(report, scheduled=tuple(entries), restored=decision.wished_again)
    if not (decision.withdrawn or decision.wished_again or decision.lists):
        return report
    with repository.transaction("prune") as transaction, transaction.exclusive():
        before, pins = load_schedule(repository), load_pins(repository)
        # What was published, pinned or scheduled meanwhile is not what was decided about.
        unchanged = {
            name
            for name in (*decision.withdrawn, *decision.wished_again, *decision.lists)
            if _load_image(repository, before, pins, name, moment) == images[name]
        }
        entries = [
            new_entry(repository, before, name, WITHDRAWN, now())
            for name in decision.withdrawn
            if name in unchanged
        ]
        restored = [name for name in decision.wished_again if name in unchanged]
        schedule = before
        for entry in entries:
            schedule = schedule.with_entry(entry)
            transaction.record(entry.name, "scheduled", "it is not wished any more")
            if drop_links:
                take_link_away(repository, transaction, entry)
                schedule = schedule.with_link_dropped(*entry.key)
        for name in restored:
            schedule = schedule.without(name, images[name].manifest_digest)
            transaction.record(name, "restored", "it is wished again")
            give_link_back(repository, transaction, name)
        for name, remaining in decision.lists.items():
            publication = load_publication(repository, name) if name in unchanged else None
            if publication is not None:
                record = publication.with_wish_lists(remaining)
                transaction.replace(layout.publication_file(name), record.to_bytes())
        write_schedule(repository, transaction, before, schedule)
        transaction.commit()
    return replace(report, scheduled=tuple(entries), restored=tuple(restored))


def decide(
    images: Iterable[Image],
    wished: Mapping[str, frozenset[str]],
    given: frozenset[str],
    *,
    whole: bool = False,
) -> Decision:
    """What becomes of `images`; `wished` maps names to the `given` lists that wish them."""
    withdrawn, wished_again = [], []
    kept: dict[str, str] = {}
    lists: dict[str, frozenset[str]] = {}
    in_question = others = 0
    for image in images:
        wishing = wished.get(image.name, frozenset())
        remaining = wishing if whole else (image.lists - given) | wishing
        if image.scheduled:
            if wishing:
                wished_again.append(image.name)
            continue
        if not whole and not image.lists & given:
            others += 1
            continue
        in_question += 1
        if remaining:
            if image.lists and image.lists != remaining:
                lists[image.name] = remaining
            if not wishing:
                kept[image.name] = f"{', '.join(sorted(remaining))} wishes it, and was not given"
        elif image.pinned:
            kept[image.name] = "it is pinned"
        else:
            withdrawn.append(image.name)
    return Decision(tuple(withdrawn), tuple(wished_again), lists, kept, in_question, others)


def _objection(decision: Decision, guard: Guard) -> str:
    count, allowed = len(decision.withdrawn), guard.allowed(decision.in_question)
    if count <= allowed:
        return ""
    return (
        f"{count} of {decision.in_question} images are not wished any more, and at most {allowed} "
        "are scheduled without being asked"
    )


def _unknown_lists(given: frozenset[str], images: Iterable[Image]) -> tuple[str, ...]:
    known = frozenset[str]().union(*(image.lists for image in images))
    return tuple(sorted(given - known - {""})) if known else ()


def _wished_names(
    lists: Sequence[GivenList], sources: Sources, now: datetime, jobs: int
) -> tuple[dict[str, frozenset[str]], list[str]]:
    """The names that are wished, each with the lists that wish it; and what could not be told."""
    doubts: list[str] = []
    requests: list[Request] = []
    for given in lists:
        doubts += [str(problem) for problem in given.wish_list.unusable]
        if not given.wish_list.wishes:
            doubts.append(f"{given.wish_list.name}: the list wishes nothing")
        live = [wish for wish in given.wish_list.wishes if not wish.has_expired(now)]
        requests += [Request(wish, given.identity) for wish in live]
    if doubts:
        return {}, doubts
    wished: dict[str, frozenset[str]] = {}
    with ThreadPoolExecutor(jobs, thread_name_prefix="prune") as pool:
        for request, (names, doubt) in zip(
            requests, pool.map(lambda r: _names_of(r, sources), requests), strict=True
        ):
            for name in names:
                wished[name] = wished.get(name, frozenset()) | {request.wish_list}
            if doubt:
                doubts.append(f"{request.wish}: {doubt}")
    return wished, doubts


def _names_of(request: Request, sources: Sources) -> tuple[list[str], str]:
    try:
        references = expand_wish(sources, request.wish)
        names = [name for r in references for _, name in places_of(request.wish, r)]
    except (PublisherError, OSError) as error:
        return [], str(error)
    return names, ""


def _published_images(
    repository: Repository, now: datetime
) -> tuple[dict[str, Image], dict[str, str]]:
    """Everything that is published; and what is unreadable, by name."""
    schedule, pins = load_schedule(repository), load_pins(repository)
    images: dict[str, Image] = {}
    unreadable: dict[str, str] = {}
    for name in repository.names():
        try:
            image = _load_image(repository, schedule, pins, name, now)
        except (InvalidRecord, InvalidManifest, OSError) as error:
            unreadable[name] = str(error)
        else:
            if image is not None:
                images[name] = image
    return images, unreadable


def _load_image(
    repository: Repository, schedule: RemoveSchedule, pins: Pins, name: str, now: datetime
) -> Image | None:
    current = current_manifest(repository, name)
    if current is None:
        return None
    digest, data = current
    parse_published_manifest(data)  # what cannot be read cannot be scheduled either
    publication = load_publication(repository, name)
    return Image(
        name,
        digest,
        publication.wish_lists if publication else frozenset(),
        scheduled=schedule.find(name, digest) is not None,
        pinned=pins.find(name, digest, now) is not None,
    )
