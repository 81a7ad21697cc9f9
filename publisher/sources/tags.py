"""Choosing tags: patterns, matched against the tags that there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from publisher.errors import PublisherError
from publisher.oci.reference import ImageReference
from publisher.oci.tag_patterns import TagPatterns, natural
from publisher.sources import Source
from publisher.sources.open import Sources
from publisher.wishlist import Wish


class NoMatchingTags(PublisherError):
    """No tag of an image repository is what the patterns ask for."""


def expand_tags(source: Source, patterns: Sequence[str], exclude: Sequence[str] = ()) -> list[str]:
    """The tags of `source` that match a pattern and no exclusion, in natural order, each once.

    Raises InvalidPattern before anything is asked, and NoMatchingTags where nothing matches, since
    a wish that asks for nothing is a mistake.
    """
    wanted = TagPatterns(patterns, exclude)
    available = set(source.tags())
    chosen = wanted.among(available)
    if not chosen:
        there = f": {_sample(available)}" if available else ""
        raise NoMatchingTags(
            f"no tag matches {wanted}", why=f"there are {len(available)} tags{there}"
        )
    return chosen


def expand_wish(sources: Sources, wish: Wish) -> list[ImageReference]:
    """The images that a wish means now: one, or as many as its tag patterns match."""
    if not wish.tags:
        return [wish.image]
    tags = expand_tags(sources.open(wish.image), wish.tags, wish.exclude)
    return [wish.image.with_tag(tag) for tag in tags]


def _sample(tags: Iterable[str]) -> str:
    first = sorted(tags, key=natural)
    return ", ".join(first[:5]) + (", …" if len(first) > 5 else "")
