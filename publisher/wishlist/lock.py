"""The lock of a wish list: the digest of each image that it requested at one moment. Pure.

    # publisher lock 1 …
    docker.io/library/debian:stable sha256:4bc0…
    quay.io/stimela/casa ["1.7.*",">=1.8,<2"] except ["*-rc*"]
    quay.io/stimela/casa:1.7.1 sha256:913a…
    quay.io/team/gone:1 unresolved
    # end

Each image has one line, and so has each wish with patterns; the lines are sorted, so that a
difference shows what moved. The last line tells a complete file from one that was cut off.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime

from publisher.errors import InvalidReference, presentable
from publisher.lazy import dataclass
from publisher.oci.digest import is_digest
from publisher.oci.reference import ImageReference, parse_reference
from publisher.oci.tag_patterns import TagPatterns
from publisher.problems import Problem, Severity
from publisher.wishlist.model import Wish, WishList, WishListError

HEADER = "# publisher lock 1: written by `publisher lock`, read with --locked. Do not edit."
_FORM = HEADER.partition(":")[0]
_END = "# end"
_UNRESOLVED = "unresolved"


class LockError(WishListError):
    """A lock is missing, damaged, or does not belong to its list; `problems` has each place."""


@dataclass(frozen=True, slots=True)
class Lock:
    """The content of a lock.

    `digests` maps references to digests; "" for an image that was requested, and could not be
    resolved. `patterns` are the wishes with patterns, as `pattern_text` writes them. `lines` has
    the numbers of their lines, for messages.
    """

    digests: Mapping[str, str]
    patterns: frozenset[str] = frozenset()
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)

    def to_text(self) -> str:
        """Return the content of the file."""
        lines = [f"{name} {digest or _UNRESOLVED}" for name, digest in self.digests.items()]
        return "\n".join([HEADER, *sorted([*lines, *self.patterns]), _END]) + "\n"


def pattern_text(wish: Wish) -> str:
    """Return the line of a wish with patterns."""
    text = f"{wish.image} {_json(wish.tags)}"
    return f"{text} except {_json(wish.exclude)}" if wish.exclude else text


def _json(texts: Sequence[str]) -> str:
    return json.dumps(texts, separators=(",", ":"))


def parse_lock(data: bytes, name: str, wish_list: str) -> Lock:
    """Read a lock.

    Args:
        data: The content of the file.
        name: Its name in messages.
        wish_list: The list that it belongs to, for the hint.

    Raises:
        LockError: The file is not a lock, is incomplete, or was edited.
    """
    text = data.decode("utf-8", "replace")
    lines = text.removesuffix("\n").split("\n")
    problems: list[Problem] = []
    digests: dict[str, str] = {}
    patterns: set[str] = set()
    numbers: dict[str, int] = {}
    if lines[0].partition(":")[0] != _FORM:
        is_lock = lines[0].startswith("# publisher lock ")
        what = "locks of this version are not supported" if is_lock else "this is not a lock"
        problems.append(_problem(name, 1, f"{what}: its first line is not '{_FORM}: …'"))
    elif lines[-1] != _END or not text.endswith("\n"):
        problems.append(
            _problem(name, len(lines), f"the file is cut off: its last line is not {_END!r}")
        )
    for number, line in enumerate(lines[1:-1] if not problems else [], 2):
        reference, _, value = line.partition(" ")
        key = line if value.startswith("[") else reference
        if key in numbers:
            problems.append(
                _problem(name, number, f"{presentable(key)} is on line {numbers[key]} already")
            )
        elif not _is_line(reference, value):
            problems.append(_problem(name, number, f"malformed line: {presentable(line)!r}"))
        elif value.startswith("["):
            patterns.add(line)
        else:
            digests[reference] = "" if value == _UNRESOLVED else value
        numbers[key] = number
    if problems:
        raise LockError(
            f"cannot use lock {name}",
            problems=problems,
            hint=f"publisher lock {wish_list}",
        )
    return Lock(digests, frozenset(patterns), numbers)


def _is_line(reference: str, value: str) -> bool:
    try:
        parsed = parse_reference(reference)
    except InvalidReference:
        return False
    if value.startswith("["):
        parts = value.split(" except ")
        return len(parts) <= 2 and all(map(_is_list, parts))
    return str(parsed) == reference and (value == _UNRESOLVED or is_digest(value))


def _is_list(text: str) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, list) and all(isinstance(each, str) for each in found)


def _problem(name: str, line: int, message: str) -> Problem:
    return Problem(Severity.ERROR, name, line, 1, message)


class LockedImages:
    """The images of a lock, by wish."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._references = {text: parse_reference(text) for text in lock.digests}
        self._tags: dict[ImageReference, dict[str, ImageReference]] = defaultdict(dict)
        for text, reference in self._references.items():
            if reference.tag is not None and reference.digest is None and lock.digests[text]:
                repository = replace(reference, tag=None)
                self._tags[repository][reference.tag] = reference

    def of(self, wish: Wish) -> dict[ImageReference, str] | None:
        """Return the images of a wish with their digests; None if the wish is not in the lock.

        A wish whose images could not be resolved has none.
        """
        if wish.tags:
            if pattern_text(wish) not in self._lock.patterns:
                return None
            tags = self._tags[wish.image]
            chosen = TagPatterns(wish.tags, wish.exclude).among(tags)
            return {tags[tag]: self._lock.digests[str(tags[tag])] for tag in chosen}
        key = str(wish.image)
        if key not in self._lock.digests:
            return None
        digest = self._lock.digests[key]
        return {self._references[key]: digest} if digest else {}


def locked_images(
    lock: Lock, wish_list: WishList, name: str, now: datetime
) -> list[dict[ImageReference, str]]:
    """Return the locked images of each wish of a list, in its order, with their digests.

    Args:
        lock: The lock.
        wish_list: The list that it belongs to.
        name: The lock's name in messages.
        now: A wish that has expired by then need not be in the lock.

    Raises:
        LockError: A wish is not in the lock, or the lock has an entry without a wish.
    """
    images = LockedImages(lock)
    used: set[str] = set()
    problems: list[Problem] = []
    found: list[dict[ImageReference, str]] = []
    for wish in wish_list.wishes:
        of_wish = images.of(wish)
        if of_wish is None and not wish.has_expired(now):
            message = f"{wish} is not in the lock {name}"
            problems.append(
                Problem(Severity.ERROR, wish_list.name, wish.line, wish.column, message)
            )
        found.append(of_wish or {})
        used |= {pattern_text(wish) if wish.tags else str(wish.image), *map(str, found[-1])}
    if not wish_list.unusable:  # an entry may belong to a wish that cannot be read
        for key in sorted({*lock.digests, *lock.patterns} - used, key=lambda k: lock.lines[k]):
            message = f"no wish of {wish_list.name} requests {presentable(key)}"
            problems.append(_problem(name, lock.lines[key], message))
    if problems:
        raise LockError(
            f"cannot use lock {name}",
            problems=problems,
            hint=f"publisher lock --only-new {wish_list.name}",
        )
    return found
