"""Find the existing names that are most similar to a missing one, for messages. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from itertools import islice

from publisher.oci.reference import Transport
from publisher.oci.tag_patterns import natural

SHOWN = 5
CONSIDERED = 10_000
"""The most names that are compared, which takes some microseconds each."""


def nearest(wanted: str, available: Iterable[str]) -> list[str]:
    """Return up to SHOWN of the available names: those similar to `wanted`, then the highest."""
    names = list(dict.fromkeys(islice(available, CONSIDERED)))
    found = difflib.get_close_matches(wanted, names, SHOWN, 0.5) if wanted else []
    rest = sorted(set(names) - set(found), key=natural, reverse=True)
    return (found + rest)[:SHOWN]


def name_one(place: str, names: Sequence[str]) -> str:
    """Return the hint to write `place` with one of its `names`; "" if there are none."""
    form, _, path = place.partition(":")
    if form == Transport.DOCKER_ARCHIVE and ":" in path:
        place += ":"  # it ends the path
    return f"write {place}:{names[0]}" if names else ""
