"""The records of one transaction: read once, changed in memory, written where they changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.codec import JsonObject
from publisher.repository.reading import load_schedule
from publisher.repository.records import RecordSet
from publisher.repository.scheduling import schedule_removal
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.tree.pins import ImagePinned, Pin, Pins
from publisher.tree.publication import Publication
from publisher.tree.record import InvalidRecord, UnsupportedRecord
from publisher.tree.schedule import (
    Reason,
    RemoveSchedule,
    ScheduledRemoval,
    ScheduleSummary,
    parse_summary,
)
from publisher.tree.users import ImageUsers
from tests.layer_builder import image
from tests.memory_repository import MemoryRepository

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
NAME = "quay.io/a/b:1"
IMAGE = image()


class Counting(MemoryRepository):
    """Counts how often each file is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()

    def read(self, path: str) -> bytes | None:
        self.reads[path] += 1
        return super().read(path)


@pytest.fixture
def repository() -> Counting:
    return Counting()


def change(repository: MemoryRepository, act: Callable[[RecordSet], object]) -> list[str]:
    """Change records in a transaction; return the paths that it replaces and removes."""
    paths: list[str] = []
    with repository.transaction("test") as transaction, transaction.exclusive():
        records = RecordSet(repository)
        act(records)
        replace_file, remove = transaction.replace, transaction.remove

        def replaced(path: str, content: bytes, *, last: bool = False) -> None:
            paths.append(path)
            replace_file(path, content, last=last)

        def removed(path: str) -> None:
            paths.append(path)
            remove(path)

        transaction.replace = replaced  # type: ignore[method-assign]
        transaction.remove = removed  # type: ignore[method-assign]
        records.write(transaction)
        transaction.commit()
    return paths


def write(repository: MemoryRepository, path: str, content: bytes) -> None:
    change(repository, lambda records: records.set_file(path, content))


def entry(digit: str = "1", name: str = NAME, at: datetime = NOON) -> ScheduledRemoval:
    digest = f"sha256:{digit * 64}"
    manifest = JsonObject("{}")
    return ScheduledRemoval(name, name, digest, digest, manifest, "removed", at, at + 30 * DAY)


def publish(repository: MemoryRepository, name: str = NAME) -> None:
    """Write the metadata of an image, as an ingest does."""
    publication = Publication(
        name,
        name,
        IMAGE.manifest.digest,
        IMAGE.manifest.digest,
        IMAGE.image_id,
        "linux/amd64",
        ("layers",),
        NOON,
        grace_seconds=60,
    )

    def act(records: RecordSet) -> None:
        records.set_file(layout.manifest_file(name), IMAGE.manifest.data)
        records.set_file(layout.config_file(name), b"{}")
        records.set_publication(publication)

    change(repository, act)


def test_each_file_is_read_once(repository: Counting) -> None:
    publish(repository)
    repository.reads.clear()
    records = RecordSet(repository)
    for _ in range(3):
        assert records.publication(NAME) is not None
        assert records.manifest(NAME) is not None
        assert records.is_published(NAME, IMAGE.manifest.digest)
        assert records.pins == Pins()
        assert records.schedule.find(NAME, IMAGE.manifest.digest) is None
    assert set(repository.reads.values()) == {1}


def test_only_what_changes_is_written(repository: Counting) -> None:
    digest = f"sha256:{'a' * 64}"
    write(repository, layout.layer_origin(digest), Origin(frozenset({"sha256:1"})).to_bytes())

    def same(records: RecordSet) -> None:
        records.set_origin(digest, (records.origin(digest) or Origin()).with_image("sha256:1"))

    def other(records: RecordSet) -> None:
        records.set_origin(digest, (records.origin(digest) or Origin()).with_image("sha256:2"))

    assert change(repository, same) == []
    assert change(repository, other) == [layout.layer_origin(digest)]


def test_changes_are_seen_before_they_are_written(repository: Counting) -> None:
    records = RecordSet(repository)
    records.schedule.put(entry())
    records.set_users(entry().image_id, ImageUsers(frozenset({(NAME, "sha256:2")})))
    assert records.schedule.find(*entry().key) == entry()
    assert records.schedule.all() == (entry(),)
    assert records.schedule.remove(*entry().key)
    assert records.schedule.find(*entry().key) is None
    assert not records.schedule.remove(*entry().key)


@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from("ab"), st.booleans())))
def test_the_schedule_has_the_added_entries_without_the_removed_ones(
    steps: list[tuple[str, str, bool]],
) -> None:
    repository = MemoryRepository()
    model: dict[tuple[str, str], ScheduledRemoval] = {}
    for number, (digit, tag, is_put) in enumerate(steps):
        each = entry(digit, f"quay.io/a/b:{tag}", NOON + number * DAY)

        def act(records: RecordSet, each: ScheduledRemoval = each, is_put: bool = is_put) -> None:
            if is_put:
                records.schedule.put(each)
            else:
                assert records.schedule.remove(*each.key) == (each.key in model)

        change(repository, act)
        model.pop(each.key, None)
        if is_put:
            model[each.key] = each
    scheduled = load_schedule(repository)
    assert {e.key: e for e in scheduled.entries} == model
    times = [e.scheduled_at for e in scheduled.entries]
    assert times == sorted(times)


def test_scheduling_costs_the_same_however_many_are_scheduled(repository: Counting) -> None:
    def counts() -> tuple[int, int]:
        repository.reads.clear()
        written = change(repository, lambda records: records.schedule.put(entry("f")))
        change(repository, lambda records: records.schedule.remove(*entry("f").key))
        return len(repository.reads), len(written)

    change(repository, lambda records: records.schedule.put(entry("0")))
    few = counts()
    for number in range(1, 15):
        write_entry = entry(f"{number:x}", at=NOON - DAY)
        change(repository, lambda records, e=write_entry: records.schedule.put(e))  # type: ignore[misc]
    assert counts() == few == (2, 1)


def test_entries_of_two_names_with_one_manifest_are_in_one_file(repository: Counting) -> None:
    one, other = entry("1", "quay.io/a/b:1"), entry("1", "quay.io/a/b:2")
    for each in (one, other):
        change(repository, lambda records, e=each: records.schedule.put(e))  # type: ignore[misc]
    assert load_schedule(repository).entries == (one, other)
    directory = layout.retired_directory(one.manifest_digest)
    change(repository, lambda records: records.schedule.remove(*one.key))
    assert repository.exists(directory) and load_schedule(repository).entries == (other,)
    change(repository, lambda records: records.schedule.remove(*other.key))
    assert not repository.exists(directory) and not load_schedule(repository).entries


def test_a_schedule_of_an_earlier_release_is_read_and_converted_by_the_next_change(
    repository: Counting,
) -> None:
    former = RemoveSchedule((entry("1"), entry("1", "quay.io/a/b:2"), entry("2", at=NOON + DAY)))
    write(repository, layout.REMOVE_SCHEDULE, former.to_bytes())
    assert load_schedule(repository) == former
    assert RecordSet(repository).schedule.find(*former.entries[0].key) == former.entries[0]
    change(repository, lambda records: records.schedule.remove(*former.entries[1].key))
    data = repository.read(layout.REMOVE_SCHEDULE) or b""
    assert parse_summary(data, "x") == ScheduleSummary(NOON + DAY)
    assert load_schedule(repository).entries == (former.entries[0], former.entries[2])


def test_an_earlier_release_refuses_the_schedule_instead_of_finding_it_empty(
    repository: Counting,
) -> None:
    change(repository, lambda records: records.schedule.put(entry()))
    value = json.loads(repository.read(layout.REMOVE_SCHEDULE) or b"")
    assert value == {"version": 2, "latest": "2026-11-20T12:00:00Z"}


def test_a_clock_that_was_set_back_does_not_shorten_a_grace_period(repository: Counting) -> None:
    change(repository, lambda records: records.schedule.put(entry("1", at=NOON + DAY)))
    assert RecordSet(repository).schedule.latest(NOON) == NOON + DAY
    assert RecordSet(repository).schedule.latest(NOON + 2 * DAY) == NOON + 2 * DAY
    change(repository, lambda records: records.schedule.remove(*entry("1").key))
    # The entry with the wrong time is removed: later entries have the right times.
    assert RecordSet(repository).schedule.latest(NOON) == NOON


def test_a_damaged_summary_leaves_single_entries_readable(repository: Counting) -> None:
    change(repository, lambda records: records.schedule.put(entry()))
    write(repository, layout.REMOVE_SCHEDULE, b'{"version": 2, "la')
    records = RecordSet(repository)
    assert records.schedule.find(*entry().key) == entry()
    records.schedule.check()
    for reads_all in (records.schedule.all, lambda: records.schedule.latest(NOON)):
        with pytest.raises(InvalidRecord, match=r"remove-schedule\.json") as caught:
            reads_all()
        assert caught.value.hint == "publisher verify --repair"


@pytest.mark.parametrize("content", [b"[]", b'{"version": 3, "latest": null}'])
def test_a_schedule_of_another_program_is_never_read_as_an_empty_one(
    repository: Counting, content: bytes
) -> None:
    write(repository, layout.REMOVE_SCHEDULE, content)
    with pytest.raises(UnsupportedRecord):
        RecordSet(repository).schedule.find(*entry().key)
    with pytest.raises(UnsupportedRecord):
        RecordSet(repository).schedule.check()


def test_an_entry_in_the_file_of_another_manifest_is_refused(repository: Counting) -> None:
    path = layout.retired_schedule(entry("2").manifest_digest)
    write(repository, path, RemoveSchedule((entry("1"),)).to_bytes())
    with pytest.raises(InvalidRecord, match="it has an entry of sha256:111"):
        RecordSet(repository).schedule.all()


def test_a_schedule_is_replaced_whatever_can_be_read_of_it(repository: Counting) -> None:
    change(repository, lambda records: records.schedule.put(entry("1")))
    change(repository, lambda records: records.schedule.put(entry("2")))
    write(repository, layout.REMOVE_SCHEDULE, b"")
    write(repository, layout.retired_schedule(entry("2").manifest_digest), b"{")
    change(repository, lambda records: records.replace_schedule([entry("1")]))
    assert load_schedule(repository).entries == (entry("1"),)
    change(repository, lambda records: records.replace_schedule([]))
    assert load_schedule(repository).entries == ()


@pytest.mark.parametrize("reason", Reason)
def test_an_image_that_leaves_its_name_is_kept_with_its_metadata(
    repository: Counting, reason: Reason
) -> None:
    publish(repository)
    change(repository, lambda records: schedule_removal(records, NAME, reason, NOON))
    (found,) = load_schedule(repository).entries
    assert (found.reason, found.not_before) == (reason, NOON + timedelta(seconds=60))
    kept = repository.children(layout.retired_directory(IMAGE.manifest.digest))
    leaves = reason in (Reason.TAG_MOVED, Reason.REPLACED)
    metadata = ["config.json", "manifest.json", "publication.json"] if leaves else []
    assert kept == [*metadata, "schedule.json"]


def test_a_scheduled_image_keeps_its_first_time(repository: Counting) -> None:
    publish(repository)
    first = RecordSet(repository)
    made, is_new = schedule_removal(first, NAME, Reason.REMOVED, NOON)
    assert is_new
    assert schedule_removal(first, NAME, Reason.WITHDRAWN, NOON + DAY) == (made, False)


def test_a_pinned_image_is_not_scheduled(repository: Counting) -> None:
    publish(repository)
    pins = Pins((Pin(NAME, IMAGE.manifest.digest, NOON, reason="survey"),))
    change(repository, lambda records: records.set_pins(pins))
    with pytest.raises(ImagePinned, match="it is pinned: survey"):
        schedule_removal(RecordSet(repository), NAME, Reason.REMOVED, NOON)


def test_damaged_publications_do_not_hide_the_manifest(repository: Counting) -> None:
    publish(repository)
    write(repository, layout.publication_file(NAME), b"{")
    records = RecordSet(repository)
    assert records.is_published(NAME, IMAGE.manifest.digest)
    assert records.readable_publication(NAME) is None
    with pytest.raises(InvalidRecord, match=r"publication\.json"):
        records.publication(NAME)
    made, _ = schedule_removal(records, NAME, Reason.REMOVED, NOON, reference="quay.io/x/y:1")
    assert made.reference == "quay.io/x/y:1"
    assert made.not_before == NOON + 30 * DAY
