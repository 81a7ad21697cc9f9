"""What images use by themselves, what they share, and what their removal would free. Pure.

The rule is that of the collection (`removal/release.py`): a layer is removed with the last manifest
that lists it, and a squashfs file with the last one of its image.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import field
from typing import Generic, TypeVar

from publisher.browse.statistics.holdings import Holder, Holdings
from publisher.lazy import dataclass

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Share:
    """What a group of images uses. Sizes are in bytes.

    Attributes:
        manifests: How many manifests it has, one for each name.
        layers: How many layers it uses, each counted once.
        entries: The paths in these layers.
        files: The names of files in them; None if an earlier release wrote one of the indexes.
        stored: The bytes of the files of these layers.
        exclusive: Those of layers that no other image uses.
        exclusive_layers: The number of these layers.
        single_files: The bytes of squashfs files that no other image uses.
        unknown: How many of the layers have no readable index, and are not in the sums.
    """

    manifests: int
    layers: int
    entries: int
    files: int | None
    stored: int
    exclusive: int
    exclusive_layers: int
    single_files: int
    unknown: int

    @property
    def shared(self) -> int:
        """The bytes of layers that other images use as well."""
        return self.stored - self.exclusive

    @property
    def freed(self) -> int:
        """The bytes that a collection frees once the images of the group are removed."""
        return self.exclusive + self.single_files


def shares(holdings: Holdings, groups_of: Callable[[Holder], Collection[K]]) -> dict[K, Share]:
    """Return what each group uses.

    Args:
        holdings: All manifests of the repository.
        groups_of: The groups that a manifest belongs to. One in several groups is counted in each,
            and is not removed with any of them, as an image that two lists request.
    """
    uses = _Uses[K]()
    for holder in holdings.holders:
        uses.add(holder, groups_of(holder))
    return {key: uses.share(holdings, key) for key in uses.members}


def images_of(holder: Holder) -> tuple[str, ...]:
    """Return the image that a published manifest belongs to, whatever its platform."""
    return (holder.plain_name,) if holder.published else ()


def owners_of(holder: Holder) -> tuple[str, ...]:
    """Return the owner of a published manifest."""
    return (holder.owner,) if holder.published and holder.owner else ()


def lists_of(holder: Holder) -> Collection[str]:
    """Return the wish lists that request a published manifest."""
    return holder.wish_lists if holder.published else ()


def selection_of(names: Collection[str]) -> Callable[[Holder], tuple[bool, ...]]:
    """Return the groups for a choice of public names: True for its published manifests."""
    return lambda holder: (True,) if holder.published and holder.name in names else ()


@dataclass(slots=True)
class _Use:
    """Everything that one group uses, of which it may be the only user."""

    manifests: int = 0
    layers: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)


_SEVERAL = object()
"""In place of the only group that uses something: there are several users."""


class _Uses(Generic[K]):
    """The users of all layers and images."""

    def __init__(self) -> None:
        self.members: dict[K, _Use] = {}
        self._layers: dict[str, object] = {}
        self._images: dict[str, object] = {}

    def add(self, holder: Holder, groups: Collection[K]) -> None:
        user: object = next(iter(groups)) if len(groups) == 1 else _SEVERAL
        _note(self._layers, holder.layers, user)
        _note(self._images, (holder.image_id,), user)
        for group in groups:
            use = self.members.setdefault(group, _Use())
            use.manifests += 1
            use.layers.update(holder.layers)
            use.images.add(holder.image_id)

    def share(self, holdings: Holdings, key: K) -> Share:
        use = self.members[key]
        sizes = [holdings.layers[each] for each in use.layers if each in holdings.layers]
        counts = [size.files for size in sizes]
        own = {each for each in use.layers if self._layers[each] == key}
        return Share(
            manifests=use.manifests,
            layers=len(use.layers),
            entries=sum(size.entries for size in sizes),
            files=total(counts),
            stored=sum(size.stored for size in sizes),
            exclusive=holdings.stored(own),
            exclusive_layers=len(own),
            single_files=sum(
                holdings.single_files.get(each, 0)
                for each in use.images
                if self._images[each] == key
            ),
            unknown=len(use.layers) - len(sizes),
        )


def total(counts: Iterable[int | None]) -> int | None:
    """Return the sum; None if one of the counts is unknown."""
    result = 0
    for count in counts:
        if count is None:
            return None
        result += count
    return result


def _note(users: dict[str, object], things: Iterable[str], user: object) -> None:
    for thing in things:
        if users.setdefault(thing, user) != user:
            users[thing] = _SEVERAL


def ordered(found: Mapping[K, Share]) -> list[tuple[K, Share]]:
    """Return the groups, the largest first."""
    return sorted(found.items(), key=lambda item: (-item[1].stored, str(item[0])))
