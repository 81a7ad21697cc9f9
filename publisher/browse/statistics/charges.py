"""What groups of wish lists, such as those of projects, are charged for, as quotas count it. Pure.

A layer, or a squashfs file, is charged to its users: the requests for the images that have it, each
of which pays the same part. What only the lists of one group request is charged in full to it, and
the sum over all lists is what is stored. A request is an image, whatever its platforms, with one of
the lists that request it; an image that no list requests has one request as well. Retired images
are charged to no list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import field

from publisher.browse.statistics.holdings import Holdings
from publisher.lazy import dataclass
from publisher.wishlist.quota import Usage

_OTHERS = ""
"""The group of lists that belong to none, and of images without a list."""


@dataclass(slots=True)
class Image:
    """A published image: the lists that request it, and the layers and files that it has."""

    lists: frozenset[str]
    parts: set[str] = field(default_factory=set)


class Charges:
    """What the groups of lists are charged for; images may be added and replaced.

    Args:
        holdings: All manifests of the repository.
        groups: The names of the groups by the identities of their lists; no name is empty.
    """

    def __init__(self, holdings: Holdings, groups: Mapping[str, str]) -> None:
        self._groups = groups
        self._sizes = {digest: size.stored for digest, size in holdings.layers.items()}
        self._sizes |= holdings.single_files
        self._images: dict[str, Image] = {}
        self._users: dict[str, Counter[str]] = {}
        self._bytes: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()
        for holder in holdings.holders:
            if holder.published:
                image = self._images.setdefault(holder.plain_name, Image(holder.wish_lists))
                image.lists |= holder.wish_lists
                image.parts.update(holder.layers)
                if holder.image_id in holdings.single_files:
                    image.parts.add(holder.image_id)
        for image in self._images.values():
            self._count(image, 1)

    def usage(self, group: str) -> Usage:
        """Return what the images use that the lists of a group request."""
        return Usage(self._numbers[group], self._bytes[group])

    def knows(self, digest: str) -> bool:
        """Return whether the size of a layer is known."""
        return digest in self._sizes

    def publish(self, name: str, wish_list: str, layers: Mapping[str, int]) -> Image | None:
        """Count an image as published under `name`; return the one before, for `replace`.

        Args:
            name: The plain public name.
            wish_list: The list that requests it.
            layers: The sizes of its layers, of all platforms, as far as they are not known.
        """
        before = self._images.get(name)
        lists = before.lists if before is not None else frozenset[str]()
        for digest, size in layers.items():
            self._sizes.setdefault(digest, size)
        return self.replace(name, Image(lists | ({wish_list} - {""}), set(layers)))

    def replace(self, name: str, image: Image | None) -> Image | None:
        """Count this image, or none, under the name, and return the one before."""
        before = self._images.pop(name, None)
        if before is not None:
            self._count(before, -1)
        if image is not None:
            self._images[name] = image
            self._count(image, 1)
        return before

    def resize(self, sizes: Mapping[str, int]) -> None:
        """Replace the sizes of layers that were estimated."""
        for digest, size in sizes.items():
            self._charge(digest, -1)
            self._sizes[digest] = size
            self._charge(digest, 1)

    def _count(self, image: Image, sign: int) -> None:
        requests = Counter(self._groups.get(each, _OTHERS) for each in image.lists or (_OTHERS,))
        for group in requests:
            self._numbers[group] += sign
        for part in image.parts:
            self._charge(part, -1)
            users = self._users.setdefault(part, Counter())
            for group, number in requests.items():
                users[group] += sign * number
            self._charge(part, 1)

    def _charge(self, part: str, sign: int) -> None:
        """Charge each group with what it pays for a part, or discharge it."""
        size, users = self._sizes.get(part, 0), self._users.get(part)
        total = users.total() if users is not None else 0
        if users is None or not (size and total):
            return
        for group, number in users.items():
            self._bytes[group] += sign * (size * number // total)
