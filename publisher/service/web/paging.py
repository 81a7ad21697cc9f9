"""Pages of a sorted list, with cursors that stay valid if the list changes. Pure.

A cursor has the sort key of the last item of a page. The next page begins after that key, whether
or not the item still exists.
"""

from __future__ import annotations

import base64
import binascii
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

from publisher.lazy import dataclass
from publisher.service.web.problems import BadRequest

Item = Mapping[str, object]
_Key = tuple[float, str, str]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list; `following` is the cursor of the next part, or "" at the end."""

    items: Sequence[Item]
    total: int
    following: str


def paginate(
    items: Sequence[Item], sort: str, identity: Callable[[Item], str], limit: int, cursor: str
) -> Page:
    """Return a page of `items`.

    Args:
        items: All items, in any order.
        sort: The key of the items to sort by, after "-" for a descending order.
        identity: Returns a text that is different for all items.
        limit: How many items the page has.
        cursor: `following` of the page before, or "".

    Raises:
        BadRequest: The cursor is not one of this order.
    """
    name = sort.removeprefix("-")
    keyed = [(_key(item.get(name), identity(item)), item) for item in items]
    keyed.sort(key=lambda pair: pair[0], reverse=sort.startswith("-"))
    start = 0
    if cursor:
        last = _read_cursor(cursor, sort)
        keys = [key for key, _ in keyed]
        if sort.startswith("-"):
            keys.reverse()
            start = len(keys) - sum(1 for key in keys if key < last)
        else:
            start = bisect_right(keys, last)
    shown = keyed[start : start + limit]
    more = start + limit < len(keyed)
    following = _write_cursor(shown[-1][0], sort) if more and shown else ""
    return Page([item for _, item in shown], len(keyed), following)


def _key(value: object, identity: str) -> _Key:
    if isinstance(value, int | float):
        return float(value), "", identity
    return -1.0, value if isinstance(value, str) else "", identity


def _write_cursor(key: _Key, sort: str) -> str:
    text = json.dumps([sort, *key]).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _read_cursor(cursor: str, sort: str) -> _Key:
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        order, number, text, identity = json.loads(data)
        if order == sort and isinstance(text, str) and isinstance(identity, str):
            return float(number), text, identity
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error):
        pass
    raise BadRequest(
        "cannot continue the list",
        why="the cursor is not one of a list with this order",
        hint="use `next` of the page before, with the same parameters",
        parameter="cursor",
    )
