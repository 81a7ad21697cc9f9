"""Take images off the remove schedule: the use case behind `publisher restore`.

What its tag has left is published again only if all of it is still there; else nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from publisher.errors import PublisherError
from publisher.oci.digest import digest_like
from publisher.removal.books import write_schedule
from publisher.removal.names import Target, find_target
from publisher.removal.schedule import check_not_pinned, give_link_back, new_entry
from publisher.repository import Repository, Transaction
from publisher.repository.reading import (
    current_manifest,
    load_pins,
    load_publication,
    load_schedule,
)
from publisher.runtimes.podman import store as podman_store
from publisher.tree import layout
from publisher.tree.publication import Publication
from publisher.tree.schedule import RemoveSchedule, ScheduledRemoval
from publisher.wishlist import OUTPUTS

REPLACED = "replaced"


class NotScheduled(PublisherError):
    """The image is not on the remove schedule."""


class CannotRestore(PublisherError):
    """What is left of a scheduled image is not enough to publish it again."""


def restore(repository: Repository, image: str, now: Callable[[], datetime]) -> list[str]:
    """Take `image` off the schedule, and publish it again where it is not; the names.

    NAME@DIGEST means a manifest that its tag moved away from: it takes the place of what is
    published now, which is scheduled in turn. Raises NotScheduled, NotPublished, CannotRestore and
    ImagePinned.
    """
    with (
        repository.transaction(f"restoration of {image}") as transaction,
        transaction.exclusive(),
    ):
        before = load_schedule(repository)
        target = find_target(repository, before, image)
        entries = [e for e in before.entries if target.includes(*e.key)]
        chosen = [e for e in entries if target.digest or _is_current(repository, e)]
        if not chosen:
            raise _nothing_to_restore(target, entries)
        schedule = before
        for entry in chosen:
            schedule = schedule.without(*entry.key)
            if _is_current(repository, entry):
                give_link_back(repository, transaction, entry.name)
            else:
                schedule = _bring_back(repository, transaction, schedule, entry, now())
            transaction.record(entry.name, "restored", entry.manifest_digest)
        write_schedule(repository, transaction, before, schedule)
        transaction.commit()
    return [entry.name for entry in chosen]


def _is_current(repository: Repository, entry: ScheduledRemoval) -> bool:
    current = current_manifest(repository, entry.name)
    return current is not None and current[0] == entry.manifest_digest


def _nothing_to_restore(target: Target, entries: list[ScheduledRemoval]) -> NotScheduled:
    if not entries:
        return NotScheduled(
            f"cannot restore {target.name}", why="it is published, and not scheduled for removal"
        )
    return NotScheduled(
        f"cannot restore {target.name}",
        why="only what its tag named before is scheduled",
        hint="to publish that again, say which: "
        + ", ".join(f"{e.name}@{e.manifest_digest}" for e in entries),
    )


def _bring_back(
    repository: Repository,
    transaction: Transaction,
    schedule: RemoveSchedule,
    entry: ScheduledRemoval,
    now: datetime,
) -> RemoveSchedule:
    """Publish a retired manifest under its name again; what is there now is scheduled."""
    files, retired = _retired_files(repository, entry)
    _require_content(repository, entry, retired)
    current = load_publication(repository, entry.name)
    forms = set(retired.outputs)
    if current is not None and repository.exists(layout.flat_image(entry.image_id)):
        # Another name may have left the same image, later, and had it in other forms.
        forms |= {"flat"} & set(current.outputs)
    outputs = tuple(output for output in OUTPUTS if output in forms)
    publication = replace(
        retired, name=entry.name, reference=entry.reference, published_at=now, outputs=outputs
    ).with_wish_lists(current.wish_lists if current else ())
    if repository.exists(layout.manifest_file(entry.name)):
        schedule = _displace(repository, transaction, schedule, entry.name, now)
    for file, content in files.items():
        transaction.replace(f"{layout.image_metadata(entry.name)}/{file}", content)
    transaction.replace(layout.publication_file(entry.name), publication.to_bytes())
    if "flat" in publication.outputs:
        transaction.symlink(entry.name, layout.link_target(entry.name, entry.image_id))
    elif repository.link_text(entry.name) is not None:
        transaction.remove(entry.name)  # it leads to what was there until now
    podman_store.move_name(repository, transaction, publication)
    return schedule


def _retired_files(
    repository: Repository, entry: ScheduledRemoval
) -> tuple[dict[str, bytes], Publication]:
    """The metadata that was kept of the image, checked, and its publication."""
    retired = layout.retired_directory(entry.manifest_digest)
    files: dict[str, bytes] = {}
    for file in (layout.MANIFEST_FILE, layout.CONFIG_FILE, layout.PUBLICATION_FILE):
        content = repository.read(f"{retired}/{file}")
        if content is None:
            raise _cannot_restore(entry, f"{retired}/{file} is not there")
        files[file] = content
    for file, digest in (
        (layout.MANIFEST_FILE, entry.manifest_digest),
        (layout.CONFIG_FILE, entry.image_id),
    ):
        if digest_like(files[file], digest) != digest:
            raise _cannot_restore(entry, f"{retired}/{file} is not what it was")
    record = files.pop(layout.PUBLICATION_FILE)
    return files, Publication.parse(record, f"{retired}/{layout.PUBLICATION_FILE}")


def _require_content(
    repository: Repository, entry: ScheduledRemoval, publication: Publication
) -> None:
    paths = [layout.layer_directory(layer.digest) for layer in entry.parse_manifest().layers]
    if "flat" in publication.outputs:
        paths.append(layout.flat_image(entry.image_id))
    for path in paths:
        if not repository.exists(path):
            raise CannotRestore(
                f"cannot restore {entry.name}",
                why=f"{path} is not there",
                hint="`publisher verify --repair --refetch` first",
            )


def _cannot_restore(entry: ScheduledRemoval, why: str) -> CannotRestore:
    return CannotRestore(
        f"cannot restore {entry.name}",
        why=why,
        hint="what it uses stays until it is collected; to have it back, ingest "
        f"{entry.manifest_digest} from its registry",
    )


def _displace(
    repository: Repository,
    transaction: Transaction,
    schedule: RemoveSchedule,
    name: str,
    now: datetime,
) -> RemoveSchedule:
    """Schedule what is published as `name`, whose place something else takes."""
    entry = new_entry(repository, schedule, name, REPLACED, now)
    check_not_pinned(load_pins(repository), entry, now)
    for file in (layout.MANIFEST_FILE, layout.CONFIG_FILE, layout.PUBLICATION_FILE):
        content = repository.read(f"{layout.image_metadata(name)}/{file}")
        if content is not None:
            retired = layout.retired_directory(entry.manifest_digest)
            transaction.replace(f"{retired}/{file}", content)
    return schedule.with_entry(entry)
