"""Who asks for which place in the published tree: two wishes may mean the same."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from publisher.errors import PublisherError
from publisher.oci.platform import Platform
from publisher.oci.reference import ImageReference
from publisher.tree import layout
from publisher.wishlist.model import Wish


class NameTaken(PublisherError):
    """Two wishes that cannot both be granted would be published at the same place."""


@dataclass(slots=True)
class Place:
    """A place that is wished. Whoever publishes there holds `lock` meanwhile."""

    reference: ImageReference
    wishes: dict[str, Wish] = field(default_factory=dict)  # by wish list
    lock: threading.Lock = field(default_factory=threading.Lock)


class Places:
    """All places that one run is asked for. Safe to use from several threads."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._lock = threading.Lock()

    def claim(
        self, name: str, reference: ImageReference, wish: Wish, wish_list: str
    ) -> Place | None:
        """The place `name`; None where the same list has been granted the same before.

        One list may wish an image twice, as its tag patterns may overlap, and several lists may
        wish it in different forms. Raises NameTaken where one of the wishes would get something
        else than it says.
        """
        with self._lock:
            place = self._places.setdefault(name, Place(reference))
            if place.reference != reference:
                raise NameTaken(
                    f"cannot publish {reference}",
                    why=f"its place {name} is where {place.reference} is published",
                    hint="remove one of the two wishes, or give one a `name` if it has no registry",
                )
            for other_list, other in place.wishes.items():
                if other_list == wish_list and _terms(other) != _terms(wish):
                    raise NameTaken(
                        f"cannot publish {reference} as it is wished on line {wish.line}",
                        why=f"line {other.line} wishes it in another way",
                        hint="let only one of the two wish it: `exclude` takes tags from patterns",
                    )
                if other.platforms != wish.platforms:
                    raise NameTaken(
                        f"cannot publish {reference} for {_platforms(wish)}",
                        why=f"{other_list or 'another list'} wishes it for {_platforms(other)}",
                        hint="wish the same platforms, in the same order, in both lists",
                    )
            if wish_list in place.wishes:
                return None
            place.wishes[wish_list] = wish
            return place


def places_of(wish: Wish, reference: ImageReference) -> list[tuple[Platform, str]]:
    """The platforms and public names under which `wish` has the image `reference` published.

    The first platform is public at the plain path; if there are several, each of them is at its own
    path below `.multiarch/` as well. Raises InvalidReference where the image cannot have a name.
    """
    first = wish.platforms[0]
    places = [(first, layout.public_name(reference, wish.name))]
    if len(wish.platforms) > 1:
        places += [(p, layout.public_name(reference, wish.name, p)) for p in wish.platforms]
    return places


def _terms(wish: Wish) -> tuple[Any, ...]:
    """What is wished of an image, however its tag was named."""
    return wish.platforms, wish.outputs, wish.grace, wish.thin, wish.owner, wish.note


def _platforms(wish: Wish) -> str:
    return ", ".join(map(str, wish.platforms))
