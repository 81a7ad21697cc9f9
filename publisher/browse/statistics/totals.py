"""The sums over a whole repository, and what sharing by layers saves. Pure."""

from __future__ import annotations

from collections import Counter

from publisher.browse.statistics.holdings import Holdings
from publisher.browse.statistics.shares import total
from publisher.lazy import dataclass


@dataclass(frozen=True, slots=True)
class Totals:
    """The whole repository. Sizes are in bytes.

    Attributes:
        names: The published names, also those of platforms.
        images: The distinct images that have these names.
        retired: The manifests that have no name any more, and wait for their removal.
        layers: The layers of all of them.
        unknown: How many of these have no readable index, and are in none of the sums.
        entries: The paths in all layers.
        files: The names of files in them; None if an earlier release wrote one of the indexes.
        stored: The bytes of the files of all layers. Flat images consist of links to these.
        single_files: The bytes of squashfs files.
        separate: The bytes that would be stored if no two images shared a layer.
        retired_only: The bytes of layers that only retired manifests use.
    """

    names: int
    images: int
    retired: int
    layers: int
    unknown: int
    entries: int
    files: int | None
    stored: int
    single_files: int
    separate: int
    retired_only: int

    @property
    def saved(self) -> int:
        """The bytes that sharing of layers saves."""
        return self.separate - self.stored


@dataclass(frozen=True, slots=True)
class Users:
    """The layers that the same number of images use, and their bytes."""

    images: int
    layers: int
    stored: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """The trees with at most `most` entries (None: any number), and more than in the row before."""

    most: int | None
    trees: int
    entries: int


def totals(holdings: Holdings) -> Totals:
    """Return the sums."""
    published = [holder for holder in holdings.holders if holder.published]
    images = {holder.image_id: holder.layers for holder in holdings.holders}
    used = {digest for holder in holdings.holders for digest in holder.layers}
    named = {digest for holder in published for digest in holder.layers}
    known = holdings.layers
    return Totals(
        names=len(published),
        images=len({holder.image_id for holder in published}),
        retired=len(holdings.holders) - len(published),
        layers=len(used),
        unknown=len(used - known.keys()),
        entries=sum(size.entries for size in known.values()),
        files=total(size.files for size in known.values()),
        stored=holdings.stored(used),
        single_files=sum(holdings.single_files.values()),
        separate=sum(map(holdings.stored, images.values())),
        retired_only=holdings.stored(used - named),
    )


def layer_users(holdings: Holdings) -> tuple[Users, ...]:
    """Return how many layers one image uses, two images use, and so on."""
    counts: Counter[str] = Counter()
    for layers in {holder.image_id: holder.layers for holder in holdings.holders}.values():
        counts.update(layers)
    number, stored = Counter(counts.values()), Counter[int]()
    for digest, count in counts.items():
        stored[count] += holdings.stored([digest])
    return tuple(Users(count, number[count], stored[count]) for count in sorted(number))


def by_size(sizes: Counter[int], limit: int) -> tuple[Sizes, ...]:
    """Return how many trees, or catalogs of CVMFS, have few and many entries.

    Args:
        sizes: How many trees have each number of entries.
        limit: The largest number of entries of a catalog. The last row is that of larger ones.
    """
    bounds = [*(each for each in (100, 1_000, 10_000, 100_000) if each < limit), limit]
    trees: dict[int | None, int] = dict.fromkeys((*bounds, None), 0)
    entries = dict(trees)
    for size, count in sizes.items():
        row = next((bound for bound in bounds if size <= bound), None)
        trees[row] += count
        entries[row] += size * count
    return tuple(Sizes(bound, trees[bound], entries[bound]) for bound in trees)
