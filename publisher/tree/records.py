"""The metadata files of the published tree, as values: origin, publication, remove schedule.

Reading and writing text only. The formats are stated in `layout/`, with a JSON Schema each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from publisher.errors import PublisherError
from publisher.oci.digest import is_digest
from publisher.oci.manifest import Manifest, parse_published_manifest

PUBLICATION_VERSION = 1
SCHEDULE_VERSION = 1
PINS_VERSION = 1
USERS_VERSION = 1
SETTINGS_VERSION = 1

_MAX_COUNT = 10**10
"""Of seconds: some 300 years, and few enough to be added to a date."""


class InvalidRecord(PublisherError):
    """A metadata file is not what its format says. Nothing is ever removed on such a doubt."""


class ImagePinned(PublisherError):
    """The image has changed at its source, but is pinned: it stays as it is published."""


def format_time(moment: datetime) -> str:
    """UTC, to the second: "2026-11-20T08:15:00Z"."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """The inverse of format_time; ValueError for another text."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def later(moment: datetime, by: timedelta) -> datetime:
    """`moment` plus a duration, or the last moment that can be written, if that comes first."""
    try:
        return moment + by
    except OverflowError:
        return datetime.max.replace(microsecond=0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Origin:
    """Which images use a layer, by image ID: the reference count of the thesis (section 4.2)."""

    images: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, path: str) -> Origin:
        """Read an origin.json, keeping keys that are not ours."""
        value = _object(data, path)
        images = value.pop("origin", None)
        if not isinstance(images, list) or not all(isinstance(i, str) for i in images):
            raise _invalid(path, "origin is not a list of image IDs")
        return cls(frozenset(images), value)

    def to_bytes(self) -> bytes:
        """The file's bytes: sorted, so that equal records are equal files."""
        # As `_dump` would write it, several times faster: thousands of images may share a layer.
        images = json.dumps(sorted(self.images), separators=(",\n  ", ": "))[1:-1]
        listed = f"[\n  {images}\n ]" if images else "[]"
        before = json.dumps(dict(self.extra), indent=1)[:-2] + "," if self.extra else "{"
        return f'{before}\n "origin": {listed}\n}}\n'.encode()

    def with_image(self, image_id: str) -> Origin:
        """The record after `image_id` came to use the layer."""
        return replace(self, images=self.images | {image_id})

    def without_image(self, image_id: str) -> Origin:
        """The record after `image_id` ceased to use the layer."""
        return replace(self, images=self.images - {image_id})


@dataclass(frozen=True, slots=True)
class Publication:
    """What the exact bytes of the manifest cannot say of an image that is published.

    `source_digest` is what the reference named when it was published: the digest of an image index,
    or of the manifest itself. A run whose source still names it has nothing to do. `wish_list` is
    the list that asked for the image first; `other_lists` are those that wish it as well.
    """

    name: str
    reference: str
    source_digest: str
    manifest_digest: str
    image_id: str
    platform: str
    outputs: tuple[str, ...]
    published_at: datetime
    wish_list: str = ""
    owner: str = ""
    note: str = ""
    grace_seconds: int = 0
    other_lists: tuple[str, ...] = ()

    @property
    def wish_lists(self) -> frozenset[str]:
        """Every list that wishes the image; none for an image that was published by hand."""
        return frozenset((self.wish_list, *self.other_lists)) - {""}

    def with_wish_lists(self, lists: Iterable[str]) -> Publication:
        """The record of an image that `lists` wish; whichever asked first stays the first."""
        wanted = set(lists)
        first = self.wish_list if self.wish_list in wanted else min(wanted, default="")
        return replace(self, wish_list=first, other_lists=tuple(sorted(wanted - {first})))

    @classmethod
    def parse(cls, data: bytes, path: str) -> Publication:
        """Read a publication.json."""
        value = _object(data, path)
        _check_version(value, PUBLICATION_VERSION, path)
        try:
            return cls(
                name=_text(value, "name"),
                reference=_text(value, "reference"),
                source_digest=_digest(value, "sourceDigest"),
                manifest_digest=_digest(value, "manifestDigest"),
                image_id=_digest(value, "imageId"),
                platform=_text(value, "platform"),
                outputs=_texts(value, "outputs"),
                published_at=parse_time(_text(value, "publishedAt")),
                wish_list=_text(value, "wishList", ""),
                owner=_text(value, "owner", ""),
                note=_text(value, "note", ""),
                grace_seconds=_count(value, "graceSeconds", 0),
                other_lists=_texts(value, "otherLists") if "otherLists" in value else (),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid(path, f"{type(error).__name__}: {error}") from error

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        return _dump(
            {
                "version": PUBLICATION_VERSION,
                "name": self.name,
                "reference": self.reference,
                "sourceDigest": self.source_digest,
                "manifestDigest": self.manifest_digest,
                "imageId": self.image_id,
                "platform": self.platform,
                "outputs": list(self.outputs),
                "publishedAt": format_time(self.published_at),
                "wishList": self.wish_list,
                "owner": self.owner,
                "note": self.note,
                "graceSeconds": self.grace_seconds,
                **({"otherLists": list(self.other_lists)} if self.other_lists else {}),
            }
        )


@dataclass(frozen=True, slots=True)
class ScheduledRemoval:
    """An image that nobody wishes any more, and the time from which it may be deleted.

    `manifest` is the parsed manifest that is being retired (the old one, when a tag has moved).
    `reason` is "tag-moved", "withdrawn", "removed" or "replaced". Grace counts from `scheduled_at`,
    never from the age of files. With `link_dropped` the public link was taken away at once, and is
    not missing.
    """

    name: str
    reference: str
    manifest_digest: str
    image_id: str
    manifest: Mapping[str, Any]
    reason: str
    scheduled_at: datetime
    not_before: datetime
    link_dropped: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Name and manifest digest: no two entries share both."""
        return self.name, self.manifest_digest

    def parse_manifest(self) -> Manifest:
        """The retired manifest; InvalidManifest where it is none."""
        return parse_published_manifest(json.dumps(dict(self.manifest)).encode())

    def to_value(self) -> dict[str, Any]:
        """The entry as it stands in the file."""
        return {
            "name": self.name,
            "reference": self.reference,
            "manifestDigest": self.manifest_digest,
            "imageId": self.image_id,
            "reason": self.reason,
            "scheduledAt": format_time(self.scheduled_at),
            "notBefore": format_time(self.not_before),
            **({"linkDropped": True} if self.link_dropped else {}),
            "manifest": dict(self.manifest),
        }


@dataclass(frozen=True, slots=True)
class RemoveSchedule:
    """The contents of remove-schedule.json (thesis, section 5.3), in the order of scheduling."""

    entries: tuple[ScheduledRemoval, ...] = ()

    @classmethod
    def parse(cls, data: bytes, path: str) -> RemoveSchedule:
        """Read the schedule. DUCC's own, a list of bare manifests, is refused as such."""
        if data.lstrip().startswith(b"["):
            raise InvalidRecord(
                f"cannot read {path}",
                why="it is a list, as DUCC writes it; those images have neither names nor times",
                hint="`publisher adopt` takes the repository over, once DUCC has collected what is "
                "in the list (cvmfs_ducc garbage-collection); nothing is removed meanwhile",
            )
        value = _object(data, path)
        _check_version(value, SCHEDULE_VERSION, path)
        raw_entries = value.get("entries")
        if not isinstance(raw_entries, list):
            raise _invalid(path, "entries is not a list")
        try:
            return cls(tuple(_scheduled(raw) for raw in raw_entries))
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid(path, f"{type(error).__name__}: {error}") from error

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        return _dump(
            {"version": SCHEDULE_VERSION, "entries": [entry.to_value() for entry in self.entries]}
        )

    def with_entry(self, entry: ScheduledRemoval) -> RemoveSchedule:
        """The schedule with `entry`; one that is there already keeps its earlier time."""
        if any(_same(entry, other) for other in self.entries):
            return self
        return RemoveSchedule((*self.entries, entry))

    def without(self, name: str, manifest_digest: str) -> RemoveSchedule:
        """The schedule after that manifest was wished again under that name."""
        return RemoveSchedule(
            tuple(e for e in self.entries if (e.name, e.manifest_digest) != (name, manifest_digest))
        )

    def with_link_dropped(self, name: str, manifest_digest: str) -> RemoveSchedule:
        """The schedule after the public link of that entry was taken away."""
        key = (name, manifest_digest)
        return RemoveSchedule(
            tuple(replace(e, link_dropped=True) if e.key == key else e for e in self.entries)
        )

    def names_manifest(self, manifest_digest: str) -> bool:
        """Whether any entry retires that manifest, so that its metadata must stay."""
        return any(e.manifest_digest == manifest_digest for e in self.entries)

    def latest(self, moment: datetime) -> datetime:
        """`moment`, or the latest time that anything was scheduled at, if a clock was set back.

        Grace that began at an earlier time than this would end too early.
        """
        return max((moment, *(e.scheduled_at for e in self.entries)))

    def find(self, name: str, manifest_digest: str) -> ScheduledRemoval | None:
        """The entry that retires that manifest under that name, if there is one."""
        wanted = (name, manifest_digest)
        return next((e for e in self.entries if (e.name, e.manifest_digest) == wanted), None)


@dataclass(frozen=True, slots=True)
class Pin:
    """An image that stays as it is: its tag is not moved, it is not scheduled and not collected.

    A pin is about one manifest under one name. `until` is the last day on which it does (UTC).
    """

    name: str
    manifest_digest: str
    pinned_at: datetime
    until: date | None = None
    reason: str = ""

    def holds(self, moment: datetime) -> bool:
        """Whether the pin is in force at `moment`."""
        return self.until is None or moment.astimezone(UTC).date() <= self.until

    def to_value(self) -> dict[str, Any]:
        """The pin as it stands in the file."""
        return {
            "name": self.name,
            "manifestDigest": self.manifest_digest,
            "pinnedAt": format_time(self.pinned_at),
            "until": self.until.isoformat() if self.until else None,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Pins:
    """The contents of pins.json, in the order of pinning."""

    pins: tuple[Pin, ...] = ()

    @classmethod
    def parse(cls, data: bytes, path: str) -> Pins:
        """Read the pins."""
        value = _object(data, path)
        _check_version(value, PINS_VERSION, path)
        raw_pins = value.get("pins")
        if not isinstance(raw_pins, list):
            raise _invalid(path, "pins is not a list")
        try:
            return cls(tuple(_pin(raw) for raw in raw_pins))
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid(path, f"{type(error).__name__}: {error}") from error

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        return _dump({"version": PINS_VERSION, "pins": [pin.to_value() for pin in self.pins]})

    def with_pin(self, pin: Pin) -> Pins:
        """The pins with `pin`, which replaces an earlier one of the same image."""
        return Pins((*self.without(pin.name, pin.manifest_digest).pins, pin))

    def without(self, name: str, manifest_digest: str) -> Pins:
        """The pins after that image was let go."""
        wanted = (name, manifest_digest)
        return Pins(tuple(p for p in self.pins if (p.name, p.manifest_digest) != wanted))

    def find(self, name: str, manifest_digest: str, moment: datetime) -> Pin | None:
        """The pin that holds that manifest under that name at `moment`, if one does."""
        wanted = (name, manifest_digest)
        return next(
            (p for p in self.pins if (p.name, p.manifest_digest) == wanted and p.holds(moment)),
            None,
        )


def check_pin(pins: Pins, name: str, manifest_digest: str, now: datetime) -> None:
    """Raise ImagePinned if `name` is pinned to this manifest."""
    pin = pins.find(name, manifest_digest, now)
    if pin is not None:
        until = f" until {pin.until}" if pin.until else ""
        why = f": {pin.reason}" if pin.reason else ""
        raise ImagePinned(
            f"{name} stays as it is",
            why=f"it is pinned{until}{why}",
            hint=f"`publisher unpin {name}` lets its tag move",
        )


@dataclass(frozen=True, slots=True)
class ImageUsers:
    """Who uses the image with one image ID: (name, manifest digest), published or scheduled.

    To a flat image what `Origin` is to a layer. Several manifests can have one image ID.
    """

    users: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def parse(cls, data: bytes, path: str) -> ImageUsers:
        """Read the record of one image."""
        value = _object(data, path)
        _check_version(value, USERS_VERSION, path)
        raw_users = value.get("users")
        if not isinstance(raw_users, list):
            raise _invalid(path, "users is not a list")
        try:
            return cls(
                frozenset((_text(u, "name"), _digest(u, "manifestDigest")) for u in raw_users)
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _invalid(path, f"{type(error).__name__}: {error}") from error

    def to_bytes(self) -> bytes:
        """The file's bytes: sorted, so that equal records are equal files."""
        users = [{"name": n, "manifestDigest": d} for n, d in sorted(self.users)]
        return _dump({"version": USERS_VERSION, "users": users})


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """What holds for the whole repository. `policy` holds the options that differ from the usual.

    What the options mean is the business of the part that reads them.
    """

    policy: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, path: str) -> RepositorySettings:
        """Read a repository.json, keeping keys that are not known here."""
        value = _object(data, path)
        _check_version(value, SETTINGS_VERSION, path)
        del value["version"]
        policy = value.pop("policy", {})
        if not isinstance(policy, dict):
            raise _invalid(path, "policy is not an object")
        return cls(policy, value)

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        return _dump({"version": SETTINGS_VERSION, "policy": dict(self.policy), **self.extra})


def _same(one: ScheduledRemoval, other: ScheduledRemoval) -> bool:
    return (one.name, one.manifest_digest) == (other.name, other.manifest_digest)


def _scheduled(raw: Any) -> ScheduledRemoval:
    if not isinstance(raw, dict) or not isinstance(raw.get("manifest"), dict):
        raise TypeError("an entry, or its manifest, is not an object")
    return ScheduledRemoval(
        name=_text(raw, "name"),
        reference=_text(raw, "reference"),
        manifest_digest=_digest(raw, "manifestDigest"),
        image_id=_digest(raw, "imageId"),
        manifest=raw["manifest"],
        reason=_text(raw, "reason"),
        scheduled_at=parse_time(_text(raw, "scheduledAt")),
        not_before=parse_time(_text(raw, "notBefore")),
        link_dropped=_flag(raw, "linkDropped"),
    )


def _pin(raw: Any) -> Pin:
    if not isinstance(raw, dict):
        raise TypeError("a pin is not an object")
    until = raw.get("until")
    return Pin(
        name=_text(raw, "name"),
        manifest_digest=_digest(raw, "manifestDigest"),
        pinned_at=parse_time(_text(raw, "pinnedAt")),
        until=None if until is None else date.fromisoformat(_text(raw, "until")),
        reason=_text(raw, "reason", ""),
    )


def _object(data: bytes, path: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _invalid(path, f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _invalid(path, "not a JSON object")
    return value


def _check_version(value: Mapping[str, Any], known: int, path: str) -> None:
    version = value.get("version")
    if version is None:
        raise _invalid(path, "it names no version, so this program did not write it")
    if version != known or isinstance(version, bool):
        raise InvalidRecord(
            f"cannot read {path}",
            why=f"its version is {version!r}, this program knows {known}",
            hint="use the release of publisher that wrote it, or a newer one",
        )


def _text(value: Mapping[str, Any], key: str, default: str | None = None) -> str:
    text = value[key] if default is None else value.get(key, default)
    if not isinstance(text, str):
        raise TypeError(f"{key} is not a string")
    return text


def _flag(value: Mapping[str, Any], key: str) -> bool:
    flag = value.get(key, False)
    if not isinstance(flag, bool):
        raise TypeError(f"{key} is neither true nor false")
    return flag


def _digest(value: Mapping[str, Any], key: str) -> str:
    digest = _text(value, key)
    if not is_digest(digest):  # places in the tree are made of it, also those that are deleted
        raise ValueError(f"{key} is {digest!r}, which is no digest")
    return digest


def _texts(value: Mapping[str, Any], key: str) -> tuple[str, ...]:
    texts = value[key]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{key} is not a list of strings")
    return tuple(texts)


def _count(value: Mapping[str, Any], key: str, default: int) -> int:
    count = value.get(key, default)
    if isinstance(count, float) and count.is_integer():
        count = int(count)  # JSON knows one kind of number
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= _MAX_COUNT:
        raise TypeError(f"{key} is not a whole number from 0 to {_MAX_COUNT}")
    return count


def _invalid(path: str, why: str) -> InvalidRecord:
    return InvalidRecord(
        f"cannot read {path}",
        why=why,
        hint="`publisher verify` says how to mend it; nothing is removed while it is unreadable",
    )


def _dump(value: Mapping[str, Any] | Iterable[Any]) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=True).encode() + b"\n"
