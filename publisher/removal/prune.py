"""Schedule images that no wish list requests any more: the use case behind `publisher prune`.

The wish lists that are given decide about the images that they published, or, with `whole`,
about the whole repository. If anything is uncertain, images are kept: nothing at all is scheduled
if one list is empty or has an error, or one pattern cannot be expanded. A list that is not used any
more is named, and not read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from publisher.errors import InvalidManifest, failure_text
from publisher.lazy import dataclass
from publisher.removal.withdrawal import Decision, Guard, Image, decide, unknown_lists
from publisher.repository import Repository, RepositoryError, Transaction
from publisher.repository.records import RecordSet
from publisher.repository.scheduling import (
    remove_scheduled_link,
    restore_link,
    schedule_removal,
)
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import Reason, ScheduledRemoval
from publisher.wishlist import WishList
from publisher.wishlist.model import Request
from publisher.wishlist.places import places_of

if TYPE_CHECKING:
    from publisher.sources.open import Sources


@dataclass(frozen=True, slots=True)
class GivenList:
    """A wish list, and its name in the repository's records: its path or URL."""

    identity: str
    wish_list: WishList


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a prune, or of its dry run.

    Attributes:
        scheduled: The images that were scheduled, or would be.
        restored: The names of images that were taken off the schedule, or would be.
        kept: Images that are no longer requested but stay, with the reason.
        unreadable: Images whose wish lists are unknown, with the reason.
        withdrawn: The names of the images that are no longer requested.
        uncertain: Why it is uncertain what the lists request. If it is not empty, nothing was
            scheduled.
        refused: Why the guard refused to schedule; "" if it did not.
        others: How many images the given lists do not decide about.
        unknown_lists: The given lists that no image records. Such a list may have had another
            name when its images were published.
    """

    scheduled: tuple[ScheduledRemoval, ...] = ()
    restored: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    uncertain: tuple[str, ...] = ()
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
    withdrawn: Collection[str] = (),
    whole: bool = False,
    guard: Guard = Guard(),  # noqa: B008  # frozen: one value for all is right
    drop_links: bool = False,
    dry_run: bool = False,
    jobs: int = 4,
) -> Report:
    """Schedule every image that was published from the given lists and is no longer requested.

    A scheduled image that is requested again is taken off the schedule.

    Args:
        repository: The repository, opened for writing unless this is a dry run.
        lists: The wish lists.
        sources: Where the tags are looked up.
        now: The clock.
        withdrawn: The identities of lists that request nothing any more, beside `lists`.
        whole: Whether the lists decide about all images, also those of other lists.
        guard: How many images may be scheduled.
        drop_links: Remove the public links of scheduled images at once.
        dry_run: Change nothing.
        jobs: How many wishes are looked up at a time.

    Raises:
        InvalidRecord: The schedule or the pins are damaged.
        RepositoryError: The repository cannot be used.
    """
    moment = now()
    requested, uncertain = _requested_names(lists, sources, moment, jobs)
    if uncertain:
        return Report(uncertain=tuple(uncertain))
    given = frozenset((*(each.identity for each in lists), *withdrawn))
    records = RecordSet(repository)
    images, unreadable = _published_images(records, moment)
    decision = decide(images.values(), requested, given, whole=whole)
    report = Report(
        kept=decision.kept,
        unreadable=unreadable,
        withdrawn=decision.withdrawn,
        others=decision.others,
        refused=guard.objection(decision),
        unknown_lists=() if whole else unknown_lists(given, images.values()),
    )
    if report.refused or not decision.names:
        return report
    if dry_run:
        entries = (
            schedule_removal(records, name, Reason.WITHDRAWN, moment)[0]
            for name in decision.withdrawn
        )
        return replace(report, scheduled=tuple(entries), restored=decision.requested_again)
    with repository.transaction("prune") as transaction, transaction.exclusive():
        records = RecordSet(repository)
        # The decision does not apply to images that were changed in the meantime.
        unchanged = {
            name
            for name in decision.names
            if _load_image(records, records, name, moment) == images[name]
        }
        report = replace(
            report,
            scheduled=_withdraw(records, transaction, decision, unchanged, now(), drop_links),
            restored=_restore(records, transaction, decision, unchanged),
        )
        for name in decision.lists.keys() & unchanged:
            publication = records.publication(name)
            if publication is not None:
                records.set_publication(publication.with_wish_lists(decision.lists[name]))
        records.write(transaction)
        transaction.commit()
    return report


def _withdraw(
    records: RecordSet,
    transaction: Transaction,
    decision: Decision,
    unchanged: set[str],
    now: datetime,
    drop_links: bool,
) -> tuple[ScheduledRemoval, ...]:
    entries = []
    for name in decision.withdrawn:
        if name not in unchanged:
            continue
        entry, _ = schedule_removal(records, name, Reason.WITHDRAWN, now)
        transaction.record(name, "scheduled", "no wish list requests it any more")
        entries.append(entry)
        if drop_links:
            remove_scheduled_link(records, entry)
    return tuple(entries)


def _restore(
    records: RecordSet, transaction: Transaction, decision: Decision, unchanged: set[str]
) -> tuple[str, ...]:
    names = tuple(name for name in decision.requested_again if name in unchanged)
    for name in names:
        current = records.manifest(name)
        if current is not None:
            records.schedule.remove(name, current.digest)
            transaction.record(name, "restored", "it is requested again")
            restore_link(records, name)
    return names


def _requested_names(
    lists: Sequence[GivenList], sources: Sources, now: datetime, jobs: int
) -> tuple[dict[str, frozenset[str]], list[str]]:
    """Return the requested names, each with its lists; and the reasons of uncertainty."""
    uncertain: list[str] = []
    requests: list[Request] = []
    for given in lists:
        uncertain += [str(problem) for problem in given.wish_list.unusable]
        if not given.wish_list.wishes:
            uncertain.append(f"{given.wish_list.name}: the list requests nothing")
        live = [wish for wish in given.wish_list.wishes if not wish.has_expired(now)]
        requests += [Request(wish, given.identity) for wish in live]
    if uncertain:
        return {}, uncertain
    requested: dict[str, frozenset[str]] = {}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(jobs, thread_name_prefix="prune") as pool:
        for request, (names, problem) in zip(
            requests, pool.map(lambda r: _names_of(r, sources), requests), strict=True
        ):
            for name in names:
                requested[name] = requested.get(name, frozenset()) | {request.wish_list}
            if problem:
                uncertain.append(f"{request.wish}: {problem}")
    return requested, uncertain


def _names_of(request: Request, sources: Sources) -> tuple[list[str], str]:
    try:
        from publisher.sources.tags import expand_wish

        references = expand_wish(sources, request.wish)
        names = [name for r in references for _, name in places_of(request.wish, r)]
    except Exception as error:  # noqa: BLE001  # any failure makes the result uncertain
        return [], failure_text(error, str(request.wish))
    return names, ""


def _published_images(records: RecordSet, now: datetime) -> tuple[dict[str, Image], dict[str, str]]:
    """Return all published images; and the reasons why images are unreadable, by name."""
    images: dict[str, Image] = {}
    unreadable: dict[str, str] = {}
    records.schedule.all(), records.pins  # raises if they are damaged
    for name in records.repository.names():
        try:
            # One record set per image, so that memory does not grow with the number of images.
            image = _load_image(records, RecordSet(records.repository), name, now)
        except (InvalidRecord, InvalidManifest, OSError) as error:
            unreadable[name] = str(error)
        except RepositoryError:
            raise
        except Exception as error:  # noqa: BLE001  # this image is kept
            unreadable[name] = failure_text(error, name)
        else:
            if image is not None:
                images[name] = image
    return images, unreadable


def _load_image(shared: RecordSet, records: RecordSet, name: str, now: datetime) -> Image | None:
    """Return an image from `records`; pins and the schedule are read from `shared`."""
    current = records.manifest(name)
    if current is None:
        return None
    current.parse()  # raises if the manifest is damaged: the image cannot be scheduled
    publication = records.publication(name)
    return Image(
        name,
        current.digest,
        publication.wish_lists if publication else frozenset(),
        scheduled=shared.schedule.find(name, current.digest) is not None,
        pinned=shared.pins.find(name, current.digest, now) is not None,
    )
