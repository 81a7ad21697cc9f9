"""The remove schedule: the images that may be deleted, and from when (thesis, section 5.3).

There is a file with the entries of each manifest, so that the cost of scheduling an image does not
depend on the number of scheduled images. remove-schedule.json has the properties of the whole
schedule. In version 1 it had all entries.
"""

from __future__ import annotations

import enum
import json
from dataclasses import replace
from datetime import datetime, timedelta

from publisher.codec import Codec, JsonObject, dump, load_object, omit_default, take_version
from publisher.lazy import dataclass
from publisher.oci.manifest import Manifest, parse_published_manifest
from publisher.times import later
from publisher.tree.record import Digest, InvalidRecord, UnsupportedRecord, read_record

VERSION = 1
"""The version of a list of entries: of one manifest, and formerly of the whole schedule."""

SUMMARY_VERSION = 2
"""The version of remove-schedule.json."""

DEFAULT_GRACE = timedelta(days=30)
"""How long an image stays usable if its wish does not specify it."""


class Reason(enum.StrEnum):
    """Why an image is scheduled. Readers must expect further reasons."""

    TAG_MOVED = "tag-moved"  # its tag names another image now
    WITHDRAWN = "withdrawn"  # no wish list requests it any more
    REMOVED = "removed"  # an administrator removed it
    REPLACED = "replaced"  # an administrator restored an earlier image in its place


_TEXTS = {
    "tag-moved": "its tag moved",
    "withdrawn": "no longer requested",
    "removed": "removed by hand",
    "replaced": "an earlier image was restored",
}


@dataclass(frozen=True, slots=True)
class ScheduledRemoval:
    """A scheduled image, and the time from which it may be deleted.

    `manifest` is its manifest (the old one, if a tag has moved). `reason` is a `Reason`, or another
    text of a later release. The grace period counts from `scheduled_at`; the age of files does not
    matter. With `link_dropped` the public link was removed when the image was scheduled.
    """

    name: str
    reference: str
    manifest_digest: Digest
    image_id: Digest
    manifest: JsonObject
    reason: str
    scheduled_at: datetime
    not_before: datetime
    link_dropped: bool = omit_default(False)

    @property
    def key(self) -> tuple[str, str]:
        """Name and manifest digest, which identify an entry."""
        return self.name, self.manifest_digest

    @property
    def reason_text(self) -> str:
        """The reason in words; one of a later release as it is."""
        return _TEXTS.get(self.reason, self.reason)

    def without_link(self) -> ScheduledRemoval:
        """Return the entry of an image whose public link was removed."""
        return replace(self, link_dropped=True)

    def with_fresh_grace(self, now: datetime) -> ScheduledRemoval:
        """Return the entry with its whole grace period, counted from `now`."""
        grace = self.not_before - self.scheduled_at
        return replace(self, scheduled_at=now, not_before=later(now, grace))

    def parse_manifest(self) -> Manifest:
        """Return the manifest; raise InvalidManifest if it is malformed."""
        return parse_published_manifest(self.manifest.text.encode())

    def to_value(self) -> dict[str, object]:
        """Return the entry as it is written in the file, with the manifest last."""
        value = dict(_ENTRY.to_value(self))
        return value | {"manifest": value.pop("manifest")}


@dataclass(frozen=True, slots=True)
class RemoveSchedule:
    """Entries of the remove schedule: of one manifest, or all of them, in the order of scheduling.

    No two entries have the same key.
    """

    entries: tuple[ScheduledRemoval, ...] = ()

    @classmethod
    def parse(cls, data: bytes, path: str) -> RemoveSchedule:
        """Read the file's bytes; `path` names it in InvalidRecord."""
        return read_record(_CODEC.parse, data, path)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return dump({"version": VERSION, "entries": [entry.to_value() for entry in self.entries]})

    def find(self, name: str, manifest_digest: str) -> ScheduledRemoval | None:
        """Return the entry of that manifest under that name, if there is one."""
        key = (name, manifest_digest)
        return next((e for e in self.entries if e.key == key), None)


@dataclass(frozen=True, slots=True)
class ScheduleSummary:
    """The contents of remove-schedule.json: what applies to the schedule as a whole.

    No entry was scheduled later than `latest` (None if there are no entries). With it, scheduling
    detects that the clock was set back without reading all entries.
    """

    latest: datetime | None = None

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return _SUMMARY.dump(self)


def is_ducc_schedule(data: bytes) -> bool:
    """Return whether remove-schedule.json is a list of manifests, as DUCC writes it."""
    return data.lstrip().startswith(b"[")


def parse_ducc_schedule(data: bytes, path: str) -> tuple[bytes, ...]:
    """Return the manifests in the remove schedule of DUCC, as re-serialized JSON.

    Raises InvalidRecord, naming `path`, if the file is not a list of objects.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _invalid_ducc_schedule(path, f"not JSON: {error}") from error
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise _invalid_ducc_schedule(path, "it is a list, but not of manifests")
    return tuple(json.dumps(each).encode() for each in value)


def _invalid_ducc_schedule(path: str, why: str) -> InvalidRecord:
    return InvalidRecord(path, why=why, hint="restore it from a backup")


def parse_summary(data: bytes, path: str) -> ScheduleSummary | RemoveSchedule:
    """Read remove-schedule.json, also in version 1, which has all entries.

    Raises:
        UnsupportedRecord: The file has a later version, or was written by DUCC.
        InvalidRecord: The file is damaged.
    """
    if is_ducc_schedule(data):
        raise UnsupportedRecord(
            path,
            why="it is a list, as DUCC writes it; those images have neither names nor times",
            hint="`publisher adopt` takes the repository over, once DUCC has collected what is "
            "in the list (cvmfs_ducc garbage-collection); nothing is removed until then",
        )
    return read_record(_parse_summary, data, path)


def _parse_summary(data: bytes) -> ScheduleSummary | RemoveSchedule:
    value = load_object(data)
    if take_version(value, VERSION, SUMMARY_VERSION) == VERSION:
        return _CODEC.from_value(value)
    return _SUMMARY.from_value(value)


_ENTRY = Codec(ScheduledRemoval)
_CODEC = Codec(RemoveSchedule, version=VERSION, required=["entries"])
_SUMMARY = Codec(ScheduleSummary, version=SUMMARY_VERSION, required=["latest"])
