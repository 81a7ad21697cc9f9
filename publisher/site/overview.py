"""The contents of the pages about all images, wishes and removals, and about a layer."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from publisher.browse.statistics.totals import totals
from publisher.browse.status import Condition, StatusLine
from publisher.site import addresses
from publisher.site.facts import Facts, distinct
from publisher.site.pages import LayerPage, Link, ListPage, RemovalsPage, Run, WishesPage, WishRow
from publisher.site.survey import Survey
from publisher.state import RunRecord
from publisher.times import format_time
from publisher.tree import layout

_NAMES = 1000
"""The most images of one layer that its page lists."""

_FIRST = (Condition.UNREADABLE, Condition.FAILING, Condition.UNKNOWN, Condition.WAITING)


def list_page(facts: Facts) -> ListPage:
    """Return the page with all images."""
    survey = facts.survey
    rows = tuple(
        sorted(
            (facts.row(image) for image in survey.images.values() if not facts.is_second(image)),
            key=lambda row: (row.place, row.last, row.platform),
        )
    )
    sums = totals(survey.holdings)
    return ListPage(
        rows,
        owners=distinct(row.owner for row in rows),
        lists=distinct(each for row in rows for each in row.lists),
        platforms=distinct(row.platform for row in rows),
        states=distinct(
            each for row in rows for each in (row.state, "pinned" if row.pinned else "")
        ),
        layers=sums.layers,
        size=sums.stored,
        separate=sums.separate,
        largest=max((row.size or 0 for row in rows), default=0),
    )


def wishes_page(survey: Survey) -> WishesPage:
    """Return the page about the wishes and their states."""
    rows = tuple(
        _wish_row(survey, line)
        for line in sorted(survey.wishes, key=lambda line: (_urgency(line), line.name))
    )
    counts = Counter(row.state for row in rows)
    order = [str(condition) for condition in Condition]
    return WishesPage(
        rows,
        tuple((state, counts[state]) for state in order if counts[state]),
        owners=distinct(row.owner for row in rows),
        lists=distinct(row.wish_list for row in rows),
        states=distinct(row.state for row in rows),
        has_state=survey.has_state,
        last_run=_run(survey.last_run) if survey.last_run else None,
    )


def _urgency(line: StatusLine) -> int:
    condition = line.condition
    return _FIRST.index(condition) if condition in _FIRST else len(_FIRST)


def _wish_row(survey: Survey, line: StatusLine) -> WishRow:
    tries = line.tries
    detail = line.image.problem if line.image else ""
    if tries is not None and tries.is_failing:
        detail = f"{tries.error} ({tries.cause})"
    page = addresses.image_page(line.name) if line.name in survey.images else ""
    return WishRow(
        name=Link(line.name, page),
        wish_list=line.wish_list,
        owner=line.owner,
        state=str(line.condition),
        detail=detail,
        failing_since=_time(tries.failing_since) if tries else "",
        next_try=_time(tries.next_try) if tries else "",
        last_success=_time(tries.last_success) if tries else "",
        is_behind=bool(line.is_behind),
    )


def _time(moment: datetime | None) -> str:
    return format_time(moment) if moment else ""


def _run(record: RunRecord) -> Run:
    return Run(record.command, format_time(record.ended), record.exit_code, record.error)


def removals_page(facts: Facts) -> RemovalsPage:
    """Return the page about what may be removed, the earliest first."""
    survey = facts.survey
    rows = [facts.removal(entry) for entry in survey.scheduled]
    keys = {entry.key for entry in survey.scheduled}
    kept = {
        image.manifest.image_id
        for image in survey.images.values()
        if image.manifest and (image.name, image.manifest_digest) not in keys
    }
    freed = (
        survey.sizes[digest].stored
        for digest, users in survey.users.items()
        if digest in survey.sizes and not users & kept
    )
    return RemovalsPage(
        tuple(sorted(rows, key=lambda row: (row.removable_from, row.image.text))),
        sum(freed) if rows else 0,
    )


def layer_page(survey: Survey, digest: str) -> LayerPage:
    """Return the page about one layer."""
    users = survey.users[digest]
    names = sorted(name for image_id in users for name in survey.names.get(image_id, ()))
    size = survey.sizes.get(digest)
    return LayerPage(
        digest=digest,
        path=f"{survey.mount}/{layout.layer_tree(digest)}",
        compressed=survey.compressed[digest],
        size=size.stored if size else None,
        entries=size.entries if size else None,
        images=tuple(Link(name, addresses.image_page(name)) for name in names[:_NAMES]),
        more=max(0, len(names) - _NAMES),
        kept=sum(image_id not in survey.names for image_id in users),
    )
