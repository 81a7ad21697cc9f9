"""Which wishes a push is about, as patterns of `publisher ingest --only`. Pure."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator

from publisher.errors import InvalidReference
from publisher.oci.reference import ImageReference, Transport, canonical_name
from publisher.oci.tag_patterns import TagPatterns
from publisher.service.hooks.model import Push
from publisher.tree import layout
from publisher.wishlist.model import Wish


def matching_patterns(pushes: Iterable[Push], wishes: Iterable[Wish]) -> tuple[str, ...]:
    """Return the patterns that select what the wishes request of the pushed images.

    They are escaped: none matches anything else than one wish, or one image. Empty if no wish
    requests any of the images.
    """
    by_place: dict[tuple[str, str], list[Push]] = {}
    prefixes = []
    for push in pushes:
        if push.is_prefix:
            prefixes.append(push)
        else:
            by_place.setdefault(_place(push.image), []).append(push)
    found: dict[str, None] = {}
    for wish in wishes:
        if wish.image.transport is not Transport.REGISTRY:
            continue
        place = _place(wish.image)
        if any(_is_below(place, _place(each.image)) for each in prefixes):
            found[glob.escape(str(wish))] = None
        for push in by_place.get(place, ()):
            found |= dict.fromkeys(_selected(wish, push))
    return tuple(found)


def _place(image: ImageReference) -> tuple[str, str]:
    return canonical_name(image.registry), image.repository


def _is_below(place: tuple[str, str], top: tuple[str, str]) -> bool:
    return place[0] == top[0] and f"{place[1]}/".startswith(f"{top[1]}/")


def _selected(wish: Wish, push: Push) -> Iterator[str]:
    if not wish.tags:
        digest = wish.image.digest
        if digest == push.digest if digest is not None else wish.image.tag == push.tag:
            yield glob.escape(str(wish))
        return
    if push.tag is None or not TagPatterns(wish.tags, wish.exclude).among([push.tag]):
        return
    try:
        name = layout.public_name(wish.image.with_tag(push.tag))
    except InvalidReference:
        return
    yield glob.escape(name)
    for platform in wish.platforms[1:]:
        yield glob.escape(layout.platform_name(name, platform))
