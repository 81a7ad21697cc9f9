"""Detect wishes that request the same place in the published tree."""

from __future__ import annotations

import threading
from dataclasses import field

from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.oci.platform import Platform
from publisher.oci.reference import ImageReference
from publisher.tree import layout
from publisher.wishlist.model import Wish


class NameTaken(PublisherError):
    """Two wishes request different images, or different settings, at the same place.

    `name` is the public name of the place.
    """

    def __init__(self, what: str, *, name: str, why: str, hint: str) -> None:
        super().__init__(what, why=why, hint=hint)
        self.name = name


@dataclass(slots=True)
class _Place:
    """A requested place, and the wishes that request it."""

    reference: ImageReference
    wishes: dict[str, Wish] = field(default_factory=dict)  # by wish list


class Places:
    """All places that the wishes of one run request. Safe to use from several threads."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._lock = threading.Lock()

    def claim(self, name: str, reference: ImageReference, wish: Wish, wish_list: str) -> bool:
        """Register a request for the place `name`; return False if it is a repetition.

        A list may request an image twice with the same settings, since its tag patterns may
        overlap. Several lists may request it with different outputs.

        Raises:
            NameTaken: Another image has the place, or the requests contradict each other.
        """
        with self._lock:
            place = self._places.setdefault(name, _Place(reference))
            if place.reference != reference:
                raise NameTaken(
                    f"cannot publish {reference}",
                    name=name,
                    why=f"{place.reference} is published at the same place, {name}",
                    hint="remove one of the wishes, or give an image without a registry a `name`",
                )
            for other_list, other in place.wishes.items():
                if other_list == wish_list and not same_terms(other, wish):
                    raise other_settings(name, reference, wish, other)
                if other.platforms != wish.platforms:
                    raise NameTaken(
                        f"cannot publish {reference} for {_platforms(wish)}",
                        name=name,
                        why=f"{other_list or 'another list'} requests it for {_platforms(other)}",
                        hint="request the same platforms, in the same order, in both lists",
                    )
            if wish_list in place.wishes:
                return False
            place.wishes[wish_list] = wish
            return True


def places_of(wish: Wish, reference: ImageReference) -> list[tuple[Platform, str]]:
    """Return the platforms and public names under which `wish` publishes the image `reference`.

    The image for the first platform has the plain name. If there are several platforms, each image
    also has a name below `.multiarch/`.

    Raises:
        InvalidReference: The image cannot have a public name.
    """
    first = wish.platforms[0]
    places = [(first, layout.public_name(reference, wish.name))]
    if len(wish.platforms) > 1:
        places += [(p, layout.public_name(reference, wish.name, p)) for p in wish.platforms]
    return places


def other_settings(name: str, reference: ImageReference, wish: Wish, other: Wish) -> NameTaken:
    """Return the error for a wish that requests an image otherwise than `other` of its list."""
    return NameTaken(
        f"cannot publish {reference} as line {wish.line} requests it",
        name=name,
        why=f"line {other.line} requests it with other settings",
        hint="request it once: `exclude` removes tags from a pattern",
    )


def same_terms(one: Wish, other: Wish) -> bool:
    """Return whether two wishes have the same settings, whatever images they request."""
    return _terms(one) == _terms(other)


def _terms(wish: Wish) -> tuple[object, ...]:
    """Return the settings of a request, without the text that names the image."""
    return wish.platforms, wish.outputs, wish.grace, wish.thin, wish.owner, wish.note


def _platforms(wish: Wish) -> str:
    return ", ".join(map(str, wish.platforms))
