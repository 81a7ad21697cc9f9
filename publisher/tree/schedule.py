"""remove-schedule.json: what may be deleted, and from when."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from publisher.codec import Codec, dump, omit_default
from publisher.oci.manifest import Manifest, parse_published_manifest
from publisher.tree.record import Digest, InvalidRecord, read_record

VERSION = 1


@dataclass(frozen=True, slots=True)
class ScheduledRemoval:
    """An image that is not wanted any more, and the time from which it may be deleted.

    `manifest` is the parsed manifest that is being retired (the old one, when a tag has moved).
    `reason` is "tag-moved", "withdrawn", "removed" or "replaced". The grace period counts from
    `scheduled_at`, never from the age of files. With `link_dropped` the public link was removed
    when the image was scheduled.
    """

    name: str
    reference: str
    manifest_digest: Digest
    image_id: Digest
    manifest: Mapping[str, Any]
    reason: str
    scheduled_at: datetime
    not_before: datetime
    link_dropped: bool = omit_default(False)

    @property
    def key(self) -> tuple[str, str]:
        """Name and manifest digest: no two entries share both."""
        return self.name, self.manifest_digest

    def parse_manifest(self) -> Manifest:
        """Return the retired manifest; raise InvalidManifest where it is not a manifest."""
        return parse_published_manifest(json.dumps(dict(self.manifest)).encode())

    def to_value(self) -> dict[str, Any]:
        """Return the entry as it is written in the file: the long manifest comes last."""
        value = dict(_ENTRY.to_value(self))
        return value | {"manifest": value.pop("manifest")}


@dataclass(frozen=True, slots=True)
class RemoveSchedule:
    """The contents of remove-schedule.json (thesis, section 5.3), in the order of scheduling."""

    entries: tuple[ScheduledRemoval, ...] = ()

    @classmethod
    def parse(cls, data: bytes, path: str) -> RemoveSchedule:
        """Read the file's bytes; `path` names it in InvalidRecord.

        DUCC's own schedule, a list of bare manifests, is refused.
        """
        if data.lstrip().startswith(b"["):
            raise InvalidRecord(
                path,
                why="it is a list, as DUCC writes it; those images have neither names nor times",
                hint="`publisher adopt` takes the repository over, once DUCC has collected what is "
                "in the list (cvmfs_ducc garbage-collection); nothing is removed meanwhile",
            )
        return read_record(_CODEC.parse, data, path)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return dump({"version": VERSION, "entries": [entry.to_value() for entry in self.entries]})

    def with_entry(self, entry: ScheduledRemoval) -> RemoveSchedule:
        """Return the schedule with `entry`; an entry with the same key keeps its earlier time."""
        if any(entry.key == other.key for other in self.entries):
            return self
        return RemoveSchedule((*self.entries, entry))

    def without(self, name: str, manifest_digest: str) -> RemoveSchedule:
        """Return the schedule without the entry of that manifest under that name."""
        key = (name, manifest_digest)
        return RemoveSchedule(tuple(e for e in self.entries if e.key != key))

    def with_link_dropped(self, name: str, manifest_digest: str) -> RemoveSchedule:
        """Return the schedule that records that the public link of that entry was removed."""
        key = (name, manifest_digest)
        return RemoveSchedule(
            tuple(replace(e, link_dropped=True) if e.key == key else e for e in self.entries)
        )

    def names_manifest(self, manifest_digest: str) -> bool:
        """Return whether any entry retires that manifest, so that its metadata must stay."""
        return any(e.manifest_digest == manifest_digest for e in self.entries)

    def latest(self, moment: datetime) -> datetime:
        """Return `moment`, or the time of the latest entry if that is later (a clock was set back).

        A grace period that began earlier than this would end too early.
        """
        return max((moment, *(e.scheduled_at for e in self.entries)))

    def find(self, name: str, manifest_digest: str) -> ScheduledRemoval | None:
        """Return the entry of that manifest under that name, if there is one."""
        key = (name, manifest_digest)
        return next((e for e in self.entries if e.key == key), None)


_ENTRY = Codec(ScheduledRemoval)
_CODEC = Codec(RemoveSchedule, version=VERSION, required=["entries"])
