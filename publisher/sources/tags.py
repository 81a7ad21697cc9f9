"""Tag patterns, matched against the tags of an image repository."""

from __future__ import annotations

import re
from collections.abc import Sequence

from publisher.errors import PublisherError
from publisher.oci.reference import ImageReference
from publisher.oci.tag_patterns import TagPatterns, natural
from publisher.sources import Source
from publisher.sources.names import nearest
from publisher.sources.open import Sources
from publisher.wishlist import Wish


class NoMatchingTags(PublisherError):
    """No tag of an image repository matches `patterns` without matching `exclude`.

    `nearest` are the existing tags that are most similar to the first pattern.
    """

    def __init__(
        self,
        what: str,
        *,
        patterns: Sequence[str],
        exclude: Sequence[str],
        why: str,
        nearest: Sequence[str] = (),
    ) -> None:
        super().__init__(what, why=why)
        self.patterns = tuple(patterns)
        self.exclude = tuple(exclude)
        self.nearest = tuple(nearest)


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
        # The letters of a pattern that a tag has to have.
        shown = nearest(re.sub(r"[^\w.-]+", "", patterns[0]), sorted(available, key=natural))
        raise NoMatchingTags(
            f"no tag matches {wanted}",
            patterns=patterns,
            exclude=exclude,
            why=f"of its {len(available)} tags, the nearest are {', '.join(shown)}"
            if shown
            else "it has no tags",
            nearest=shown,
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
