"""The remove schedule of a repository, in the files of the published tree.

Entries are read when they are needed, changed in memory, and written together with their record
set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from publisher.repository.protocol import Repository
from publisher.tree import layout
from publisher.tree.record import InvalidRecord, UnsupportedRecord
from publisher.tree.schedule import (
    RemoveSchedule,
    ScheduledRemoval,
    ScheduleSummary,
    parse_summary,
)


class StoredSchedule:
    """The remove schedule of a repository: entries by manifest, read when they are needed.

    All methods raise UnsupportedRecord as `check` does, and InvalidRecord for a damaged file.
    """

    def __init__(
        self,
        repository: Repository,
        read: Callable[[str], bytes | None],
        entries: Iterable[ScheduledRemoval] | None = None,
    ) -> None:
        self._repository = repository
        self._read = read
        self._entries: dict[str, dict[str, ScheduledRemoval]] = {}
        self._is_complete = self._is_checked = entries is not None
        self._is_replaced = entries is not None
        self._summary: ScheduleSummary | None = None
        self._is_former = False
        self._damage: InvalidRecord | None = None
        self._new_latest: datetime | None = None
        self.changed: dict[str, None] = {}
        for entry in entries or ():
            self._entries.setdefault(entry.manifest_digest, {})[entry.name] = entry
            self.changed[entry.manifest_digest] = None

    def find(self, name: str, manifest_digest: str) -> ScheduledRemoval | None:
        """Return the entry of that manifest under that name, if there is one."""
        return self._of_manifest(manifest_digest).get(name)

    def all(self) -> tuple[ScheduledRemoval, ...]:
        """Return all entries, in the order of scheduling."""
        self.check()
        if self._damage is not None:
            raise self._damage
        if not self._is_complete:
            for path in schedule_files(self._repository):
                self._add(self._load(path))
            self._is_complete = True
        entries = (e for by_name in self._entries.values() for e in by_name.values())
        return tuple(sorted(entries, key=lambda entry: (entry.scheduled_at, entry.key)))

    def latest(self, moment: datetime) -> datetime:
        """Return `moment`, or the time of the latest entry if that is later (a clock was set back).

        A grace period that began earlier than this would end too early.
        """
        self.check()
        if self._summary is not None:
            bounds = [self._summary.latest, self._new_latest]
            if all(bound is None or bound <= moment for bound in bounds):
                return moment
        return max((moment, *(entry.scheduled_at for entry in self.all())))

    def put(self, entry: ScheduledRemoval) -> None:
        """Add an entry, or replace the one with the same key."""
        self._of_manifest(entry.manifest_digest)[entry.name] = entry
        self.changed[entry.manifest_digest] = None
        if self._new_latest is None or self._new_latest < entry.scheduled_at:
            self._new_latest = entry.scheduled_at

    def remove(self, name: str, manifest_digest: str) -> bool:
        """Remove an entry; return whether there was one.

        With the last entry of a manifest, its retired metadata is removed.
        """
        if self._of_manifest(manifest_digest).pop(name, None) is None:
            return False
        self.changed[manifest_digest] = None
        return True

    def new_files(self) -> dict[str, bytes]:
        """Return the files that have to be written, by path."""
        if not self.changed and not self._is_replaced:
            return {}
        # A schedule of version 1 is converted as a whole.
        manifests = self._entries if self._is_former else self.changed
        files = {
            layout.retired_schedule(digest): RemoveSchedule(
                tuple(sorted(self._entries[digest].values(), key=lambda entry: entry.key))
            ).to_bytes()
            for digest in manifests
            if self._entries[digest]
        }
        summary = self._new_summary()
        if summary is not None:
            files[layout.REMOVE_SCHEDULE] = summary.to_bytes()
        return files

    def removed_directories(self) -> list[str]:
        """Return the directories of manifests that have no entries any more."""
        unused = (digest for digest in self.changed if not self._entries[digest])
        directories = map(layout.retired_directory, unused)
        return [path for path in directories if self._repository.exists(path)]

    def _new_summary(self) -> ScheduleSummary | None:
        """Return the summary that has to be written, or None."""
        if self._damage is not None and self._new_latest is None:
            return None
        if self._summary is not None:
            times = [self._summary.latest, self._new_latest]
        else:  # it was not written yet, or had version 1
            times = [self._new_latest, *(entry.scheduled_at for entry in self.all())]
        summary = ScheduleSummary(max((time for time in times if time is not None), default=None))
        return None if summary == self._summary else summary

    def check(self) -> None:
        """Raise UnsupportedRecord if another program, or a later release, wrote the schedule."""
        if self._is_checked:
            return
        data = self._read(layout.REMOVE_SCHEDULE)
        if data is not None:
            self._read_summary(data)
        self._is_checked = True

    def _read_summary(self, data: bytes) -> None:
        try:
            found = parse_summary(data, layout.REMOVE_SCHEDULE)
        except UnsupportedRecord:
            raise
        except InvalidRecord as error:
            # Single entries can be read nevertheless; operations that need the whole schedule fail.
            self._damage = error
            return
        if isinstance(found, RemoveSchedule):
            self._is_former = self._is_complete = True
            self._add(found)
        else:
            self._summary = found

    def convert(self) -> bool:
        """Mark the whole schedule to be written; return whether an earlier release wrote it."""
        self.check()
        if not self._is_former or not self._entries:
            return False
        self.changed |= dict.fromkeys(self._entries)
        return True

    def _of_manifest(self, digest: str) -> dict[str, ScheduledRemoval]:
        """Return the entries of one manifest by name; they may be changed."""
        self.check()
        if digest not in self._entries:
            self._entries[digest] = {}
            if not self._is_complete:
                self._add(self._load(layout.retired_schedule(digest)))
        return self._entries[digest]

    def _load(self, path: str) -> RemoveSchedule:
        data = self._read(path)
        if data is None:
            return RemoveSchedule()
        found = RemoveSchedule.parse(data, path)
        for entry in found.entries:
            if layout.retired_schedule(entry.manifest_digest) != path:
                raise InvalidRecord(path, why=f"it has an entry of {entry.manifest_digest}")
        return found

    def _add(self, found: RemoveSchedule) -> None:
        for entry in found.entries:
            # Entries that were changed in memory are newer.
            if entry.manifest_digest not in self.changed:
                self._entries.setdefault(entry.manifest_digest, {})[entry.name] = entry


def schedule_files(repository: Repository) -> Iterator[str]:
    """Return the paths of the files that hold the schedule's entries, one for each manifest."""
    for shard in repository.children(layout.RETIRED):
        for digest in repository.children(f"{layout.RETIRED}/{shard}"):
            path = f"{layout.RETIRED}/{shard}/{digest}/{layout.SCHEDULE_FILE}"
            if repository.exists(path):
                yield path
