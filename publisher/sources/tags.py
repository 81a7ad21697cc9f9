"""Tag patterns, matched against the tags of an image repository."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.errors import PublisherError
from publisher.oci.reference import ImageReference
from publisher.oci.tag_patterns import TagPatterns, natural
from publisher.sources import Source
from publisher.sources.open import Sources
from publisher.wishlist import Wish

_SHOWN = 5


class NoMatchingTags(PublisherError):
    """No tag of an image repository matches `patterns` without matching `exclude`."""

    def __init__(
        self, what: str, *, patterns: Sequence[str], exclude: Sequence[str], why: str
    ) -> None:
        super().__init__(what, why=why)
        self.patterns = tuple(patterns)
        self.exclude = tuple(exclude)


def expand_tags(source: Source, patterns: Sequence[str], exclude: Sequence[str] = ()) -> list[str]:
    """Return the tags of `source` that match a pattern and no exclusion, in natural order.

    Raises:
        InvalidPattern: A pattern is malformed; nothing is requested from the source.
        NoMatchingTags: No tag matches, which is probably a mistake.
        SourceError: The tags cannot be listed.
    """
    wanted = TagPatterns(patterns, exclude)
    available = set(source.tags())
    chosen = wanted.among(available)
    if not chosen:
        first = sorted(available, key=natural)
        sample = ", ".join(first[:_SHOWN]) + (", …" if len(first) > _SHOWN else "")
        raise NoMatchingTags(
            f"no tag matches {wanted}",
            patterns=patterns,
            exclude=exclude,
            why=f"there are {len(available)} tags" + (f": {sample}" if available else ""),
        )
    return chosen


def expand_wish(sources: Sources, wish: Wish) -> list[ImageReference]:
    """Return the image of a wish, or those that its tag patterns match.

    Raises the errors of `expand_tags`.
    """
    if not wish.tags:
        return [wish.image]
    tags = expand_tags(sources.open(wish.image), wish.tags, wish.exclude)
    return [wish.image.with_tag(tag) for tag in tags]
