"""Find wishes of one list that request the same image, at least one of them by a pattern. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from publisher.oci.reference import ImageReference
from publisher.oci.tag_patterns import TagPatterns
from publisher.tree import layout
from publisher.wishlist.model import Wish
from publisher.wishlist.places import other_settings, same_terms


class Overlaps:
    """The wishes of a list, by the images that they request.

    Of two wishes that overlap, the one that was added later is reported. Once all are added, it is
    safe to use from several threads.
    """

    def __init__(self) -> None:
        self._order: dict[tuple[int, int], int] = {}
        self._by_name: dict[str, list[Wish]] = defaultdict(list)
        self._patterns: dict[ImageReference, list[tuple[Wish, TagPatterns]]] = defaultdict(list)

    def add(self, wish: Wish) -> None:
        """Add a wish."""
        self._order[wish.line, wish.column] = len(self._order)
        if wish.tags:
            patterns = TagPatterns(wish.tags, wish.exclude)
            self._patterns[wish.image].append((wish, patterns))
        else:
            self._by_name[layout.public_name(wish.image, wish.name)].append(wish)

    def find(self, wish: Wish, reference: ImageReference) -> Wish | None:
        """Return a wish that was added before `wish` and requests `reference`, an image of it.

        Raises:
            NameTaken: Such a wish has other settings.
        """
        position = self._order.get((wish.line, wish.column), len(self._order))
        found = None
        for other in self._requesting(wish, reference):
            if self._order[other.line, other.column] >= position:
                continue
            if not same_terms(other, wish):
                name = layout.public_name(reference, wish.name)
                raise other_settings(name, reference, wish, other)
            found = found or other
        return found

    def _requesting(self, wish: Wish, reference: ImageReference) -> Iterator[Wish]:
        """Yield the wishes for `reference`; two wishes without patterns are a repetition."""
        if wish.tags:
            yield from self._by_name.get(layout.public_name(reference, wish.name), ())
        if reference.tag is None or reference.digest is not None:
            return
        for other, patterns in self._patterns.get(replace(reference, tag=None), ()):
            if patterns.among([reference.tag]):
                yield other
