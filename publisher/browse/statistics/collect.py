"""All statistics of a repository: the use case behind `publisher stats`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from publisher.browse.statistics.growth import Period, growth
from publisher.browse.statistics.holdings import Holdings, Unreadable, read_holdings
from publisher.browse.statistics.shares import (
    Share,
    images_of,
    lists_of,
    ordered,
    owners_of,
    shares,
)
from publisher.browse.statistics.totals import (
    Sizes,
    Totals,
    Users,
    by_size,
    layer_users,
    totals,
)
from publisher.errors import PublisherError
from publisher.layers.catalogs import DEFAULT_LIMIT
from publisher.lazy import dataclass
from publisher.repository import Repository, RepositoryError
from publisher.tree.history import Record

if TYPE_CHECKING:  # what merges layers is loaded when it is needed
    from publisher.browse.statistics.contents import Contents


@dataclass(frozen=True, slots=True)
class Named:
    """What one image, owner or wish list uses."""

    name: str
    share: Share


@dataclass(frozen=True, slots=True)
class Problem:
    """An image, layer or record that is not counted, and why."""

    name: str
    error: PublisherError


@dataclass(frozen=True, slots=True)
class Statistics:
    """Everything about a repository.

    Attributes:
        totals: The sums.
        users: The layers by the number of images that use them.
        entries: The layers by their number of entries, with the limit of CVMFS as the last bound.
        growth: Each month, the first one first.
        images: Each published image, with all its platforms; the largest first.
        owners: Each owner of images.
        lists: Each wish list. Its `freed` bytes are those of images that no other list requests.
        contents: What the entries of the indexes show; None if they were not read.
        problems: What is not counted.
    """

    totals: Totals
    users: tuple[Users, ...]
    entries: tuple[Sizes, ...]
    growth: tuple[Period, ...]
    images: tuple[Named, ...]
    owners: tuple[Named, ...]
    lists: tuple[Named, ...]
    contents: Contents | None
    problems: tuple[Problem, ...]


ReadContents = Callable[[Holdings, Unreadable], "Contents"]


def collect_statistics(repository: Repository, contents: ReadContents | None = None) -> Statistics:
    """Return the statistics of a repository.

    Args:
        repository: Opened for reading.
        contents: Reads the entries of the indexes; None to read only records and headers.
    """
    problems: list[Problem] = []

    def unreadable(name: str, error: PublisherError) -> None:
        problems.append(Problem(name, error))

    holdings = read_holdings(repository, unreadable)
    read = None if contents is None else contents(holdings, unreadable)
    sizes = Counter(size.entries for size in holdings.layers.values())
    return Statistics(
        totals=totals(holdings),
        users=layer_users(holdings),
        entries=by_size(sizes, DEFAULT_LIMIT),
        growth=growth(holdings, _history(repository, unreadable)),
        images=_named(shares(holdings, images_of)),
        owners=_named(shares(holdings, owners_of)),
        lists=_named(shares(holdings, lists_of)),
        contents=read,
        problems=tuple(problems),
    )


def _named(found: dict[str, Share]) -> tuple[Named, ...]:
    return tuple(Named(name, share) for name, share in ordered(found))


def _history(repository: Repository, unreadable: Unreadable) -> Iterator[Record]:
    """Yield the records of the history; users other than the publishing one may not read it."""

    def damaged(why: str) -> None:
        unreadable("history", PublisherError("cannot read all of the history", why=why))

    try:
        yield from repository.history(damaged)
    except RepositoryError as error:
        unreadable("history", error)
