"""The state of each wish and of each published image: the use case behind `publisher status`.

What is published is read from the repository. When an image was last tried, why it fails and when
it is tried again comes from the state of the machine that publishes.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from publisher.browse.images import name_matcher, read_schedule_and_pins
from publisher.errors import InvalidReference, PublisherError, failure_text
from publisher.lazy import dataclass
from publisher.oci.reference import ImageReference, Transport, parse_reference
from publisher.repository import Repository
from publisher.repository.published import NotPublished, PublishedImage, load_image
from publisher.state import Tries
from publisher.tree import layout
from publisher.tree.pins import Pin, Pins
from publisher.tree.schedule import ScheduledRemoval
from publisher.wishlist import Wish

if TYPE_CHECKING:
    from publisher.sources.open import Sources

_CHECKS = 8
"""How many images are looked up in registries at a time."""


class Condition(enum.StrEnum):
    """The state of a wish in one word."""

    PUBLISHED = "published"
    FAILING = "failing"  # the last try failed; an earlier image may be published
    WAITING = "waiting"  # it is requested, and was not tried yet
    EXPIRED = "expired"  # its wish has expired, and it is not published
    SCHEDULED = "scheduled"  # it is going to be removed
    UNREADABLE = "unreadable"  # its records are damaged
    UNKNOWN = "unknown"  # neither the repository nor the state has it


@dataclass(frozen=True, slots=True)
class RegistryDigest:
    """What the reference of an image names in its registry.

    Attributes:
        digest: The digest; "" if it is not known.
        at: When that was found out.
        error: Why it could not be found out, or "".
    """

    digest: str
    at: datetime
    error: str = ""


@dataclass(frozen=True, slots=True)
class StatusLine:
    """One wish, or a published image without one.

    Attributes:
        name: The public name; for a wish whose images are not known, its text.
        wish_list: The list that requests it, or "".
        image: What is published under the name, or None.
        tries: What the state has about it, or None.
        scheduled: The entry of the remove schedule, or None.
        pin: The pin that is in force, or None.
        registry: What the registry has, as it was last found out, or None.
        listed: The wish, if its list was read, or None.
        expired: Whether that wish has expired.
    """

    name: str
    wish_list: str = ""
    image: PublishedImage | None = None
    tries: Tries | None = None
    scheduled: ScheduledRemoval | None = None
    pin: Pin | None = None
    registry: RegistryDigest | None = None
    listed: Wish | None = None
    expired: bool = False

    @property
    def condition(self) -> Condition:
        """The state in one word."""
        if self.image is not None and self.image.problem:
            return Condition.UNREADABLE
        if self.tries is not None and self.tries.is_failing:
            return Condition.FAILING
        if self.scheduled is not None:
            return Condition.SCHEDULED
        if self.image is not None:
            return Condition.PUBLISHED
        if self.expired:
            return Condition.EXPIRED
        if self.tries is not None or self.listed is not None:
            return Condition.WAITING
        return Condition.UNKNOWN

    @property
    def is_published(self) -> bool:
        """Whether the image can be used under the name."""
        return self.image is not None and not (self.scheduled and self.scheduled.link_dropped)

    @property
    def owner(self) -> str:
        """The owner of the wish, or ""."""
        if self.listed is not None:
            return self.listed.owner
        if self.tries is not None and self.tries.owner:
            return self.tries.owner
        published = self.image.publication if self.image else None
        return published.owner if published else ""

    @property
    def reference(self) -> str:
        """The image reference of the wish, or ""."""
        if self.image is not None and self.image.publication is not None:
            return self.image.publication.reference
        if self.tries is not None:
            return self.tries.reference
        return str(self.listed) if self.listed is not None else ""

    @property
    def source_digest(self) -> str:
        """The digest that the reference named when the image was published; "" if unknown."""
        published = self.image.publication if self.image else None
        return published.source_digest if published else ""

    @property
    def is_behind(self) -> bool | None:
        """Whether the registry has another image than what is published; None if unknown."""
        known = self.registry is not None and self.registry.digest and self.source_digest
        if not known or self.registry is None:
            return None
        return self.registry.digest != self.source_digest

    @property
    def behind_since(self) -> datetime | None:
        """When it was first found that the registry has another image; None unless it has.

        The tag had moved by then, after the last moment at which the image was found to be current.
        """
        if not self.is_behind or self.registry is None:
            return None
        known = self.tries.behind_since if self.tries is not None else None
        return known or self.registry.at


@dataclass(frozen=True, slots=True)
class ListedWishes:
    """A wish list: its identity in records, and its wishes, if it could be read."""

    identity: str
    wishes: tuple[Wish, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """What to show: images by name or glob, and the images of lists; everything if all are empty.

    `owners`, if any, are those whose wishes are shown.
    """

    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    lists: tuple[ListedWishes, ...] = ()
    owners: tuple[str, ...] = ()

    @property
    def is_everything(self) -> bool:
        """Whether every wish and every image is shown."""
        return not (self.names or self.patterns or self.lists)


def find_status(
    repository: Repository,
    tries: Sequence[Tries],
    selection: Selection,
    now: datetime,
    unreadable: Callable[[PublisherError], None],
) -> list[StatusLine]:
    """Return the selected wishes and images, ordered by name and list.

    Args:
        repository: Opened for reading.
        tries: What the state has; empty without one.
        selection: What to show. A name that is not known has a line as well.
        now: The moment at which a pin has to be in force.
        unreadable: Called with the error if schedule or pins are unreadable, which count as empty.
    """
    schedule, pins = read_schedule_and_pins(repository, unreadable)
    records = _Records(repository, pins, now)
    for entry in schedule.entries:
        records.scheduled[entry.name].append(entry)
    for each in tries:
        records.tries[each.name].append(each)
    lines = dict(_selected(records, selection))
    chosen = [line for line in lines.values() if _has_owner(line, selection.owners)]
    return sorted(chosen, key=lambda line: (line.name, line.wish_list))


def _has_owner(line: StatusLine, owners: Sequence[str]) -> bool:
    return not owners or line.owner in owners


@dataclass(slots=True)
class _Records:
    """What repository and state have, by name."""

    repository: Repository
    pins: Pins
    now: datetime
    scheduled: defaultdict[str, list[ScheduledRemoval]] = field(
        default_factory=lambda: defaultdict(list)
    )
    tries: defaultdict[str, list[Tries]] = field(default_factory=lambda: defaultdict(list))
    _images: dict[str, PublishedImage | None] = field(default_factory=dict)
    _listed: frozenset[str] = frozenset()

    def image(self, name: str) -> PublishedImage | None:
        """Return what is published as `name`, read once; None if nothing is."""
        if name not in self._listed and not layout.is_public_name(name):
            return None  # the text of a wish
        if name not in self._images:
            try:
                self._images[name] = load_image(self.repository, name)
            except NotPublished:
                self._images[name] = None
        return self._images[name]

    def names(self) -> list[str]:
        """Return all known names, without those of further platforms of a known image."""
        self._listed = frozenset(self.repository.names())
        known = dict.fromkeys([*sorted(self._listed), *self.tries, *self.scheduled])
        return [name for name in known if self._is_plain(name, known)]

    def _is_plain(self, name: str, known: Mapping[str, None]) -> bool:
        platform, plain = layout.split_platform(name)
        return not platform or plain not in known

    def lists_of(self, name: str) -> list[str]:
        """Return the identities of the lists that request the image; [""] if there are none.

        What was done by hand is left out if a list requests the image as well.
        """
        image = self.image(name)
        recorded = image.publication.wish_lists if image and image.publication else frozenset()
        known = {each.wish_list for each in self.tries.get(name, ())} | recorded
        return sorted(known - {""}) or [""]

    def line(self, name: str, wish_list: str, listed: Wish | None = None) -> StatusLine:
        """Return what is known of one image of one list."""
        image = self.image(name)
        tries = next((t for t in self.tries.get(name, ()) if t.wish_list == wish_list), None)
        registry = None
        if tries is not None and tries.last_success is not None and tries.digest:
            registry = RegistryDigest(tries.digest, tries.last_success)
        line = StatusLine(
            name,
            wish_list,
            image,
            tries,
            registry=registry,
            listed=listed,
            expired=listed is not None and listed.has_expired(self.now),
        )
        entries = self.scheduled.get(name, ())
        if image is None:
            return replace(line, scheduled=next(iter(entries), None))
        key = name, image.manifest_digest
        entry = next((e for e in entries if e.key == key), None)
        return replace(line, scheduled=entry, pin=self.pins.find(*key, self.now))


_Keyed = tuple[tuple[str, str], StatusLine]


def _selected(records: _Records, selection: Selection) -> Iterable[_Keyed]:
    """Yield the lines that are selected, by list and name; one may be yielded repeatedly."""
    everything = ("",) if selection.is_everything else ()
    patterns = [name_matcher(pattern) for pattern in (*selection.patterns, *everything)]
    needs_all = bool(patterns or selection.lists)
    known = records.names() if needs_all else []
    matching = [name for name in known if any(matches(name) for matches in patterns)]
    for name in (*selection.names, *matching):
        for wish_list in records.lists_of(name):
            yield (wish_list, name), records.line(name, wish_list)
    for each in selection.lists:
        yield from _of_list(records, each, known)


def _of_list(records: _Records, wanted: ListedWishes, known: Sequence[str]) -> Iterable[_Keyed]:
    """Yield the lines of one list: those with records, and the wishes that have none yet."""
    recorded = {name: None for name in known if wanted.identity in records.lists_of(name)}
    wishes = {_name_of(wish): wish for wish in wanted.wishes}
    for name in recorded:
        wish = wishes.get(name)
        yield (wanted.identity, name), records.line(name, wanted.identity, wish)
    images = [name for name in recorded if name not in wishes or not wishes[name].tags]
    for name, wish in wishes.items():
        if name not in recorded and not (wish.tags and _has_images(wish, images)):
            yield (wanted.identity, name), records.line(name, wanted.identity, wish)


def _name_of(wish: Wish) -> str:
    """Return the name of the image of a wish, or the text of one with patterns or without name."""
    if wish.tags:
        return str(wish)
    try:
        return layout.public_name(wish.image, wish.name)
    except InvalidReference:
        return str(wish)


def _has_images(wish: Wish, names: Iterable[str]) -> bool:
    """Return whether one of the `names` may be an image of a wish with tag patterns."""
    try:
        own = layout.without_tag(layout.public_name(wish.image, wish.name))
    except InvalidReference:
        return False
    return any(layout.without_tag(name) == own for name in names)


def _is_named(line: StatusLine, reference: ImageReference) -> bool:
    """Return whether the line is about that image, and not about all tags of its repository."""
    try:
        return layout.public_name(reference) == layout.split_platform(line.name)[1]
    except InvalidReference:
        return False


def _registry_reference(line: StatusLine) -> ImageReference | None:
    """Return the reference of the line's image in a registry; None if it has none."""
    try:
        reference = parse_reference(line.reference)
    except InvalidReference:
        return None  # the text of a wish with patterns
    is_there = reference.transport is Transport.REGISTRY and _is_named(line, reference)
    return reference if is_there else None


def check_registries(
    lines: Sequence[StatusLine], sources: Sources, now: Callable[[], datetime]
) -> list[StatusLine]:
    """Return the lines with what their registries have now: one request for each image.

    Images that no registry has are returned as they are.
    """
    from concurrent.futures import ThreadPoolExecutor

    references = [_registry_reference(line) for line in lines]
    wanted = dict.fromkeys(each for each in references if each is not None)

    def look_up(reference: ImageReference) -> RegistryDigest:
        try:
            return RegistryDigest(sources.open(reference).resolve(), now())
        except PublisherError as error:
            return RegistryDigest("", now(), failure_text(error, str(reference)))

    with ThreadPoolExecutor(_CHECKS, thread_name_prefix="status") as pool:
        try:
            found = dict(zip(wanted, pool.map(look_up, wanted), strict=True))
        except BaseException:
            sources.close()  # the pool waits for its threads, which wait for registries
            raise
    return [
        line if reference is None else replace(line, registry=found[reference])
        for line, reference in zip(lines, references, strict=True)
    ]
