"""One transaction that makes one wished image, for all its platforms, visible."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from publisher import layout, podman_store
from publisher.entry import Fixup
from publisher.errors import InvalidManifest, PublisherError
from publisher.flat_image import check_layers, flat_plan
from publisher.ingest.report import Status
from publisher.layers.index import read_index
from publisher.layers.merge import fixups
from publisher.manifest import Manifest, parse_published_manifest
from publisher.records import (
    ImageUsers,
    InvalidRecord,
    Origin,
    Pins,
    Publication,
    RemoveSchedule,
    ScheduledRemoval,
)
from publisher.repository import Repository, RepositoryChanged, Transaction
from publisher.sources.image import FetchedImage
from publisher.state import (
    count_usage,
    current_manifest,
    load_origin,
    load_pins,
    load_publication,
    load_schedule,
    load_users,
)
from publisher.wishlist import OUTPUTS


class ImagePinned(PublisherError):
    """The image has changed at its source, but is pinned: it stays as it is published."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image to be published under one name."""

    name: str
    image: FetchedImage
    publication: Publication


@dataclass(frozen=True, slots=True)
class _NewLayer:
    """A layer to be published, and what its tree needs from the layers `below` it."""

    digest: str
    fixups: tuple[Fixup, ...]
    below: Sequence[str]


def is_current(
    repository: Repository, wanted: Publication, scheduled: Collection[tuple[str, str]]
) -> bool:
    """Whether exactly `wanted` is published: same source, platform, outputs, and a sound link.

    Its wish list has to be among those that are recorded, and what that says of it as well.

    Of `wanted` only what is known before anything was fetched is compared. What is among the
    `scheduled` (name, manifest digest) has to be taken off the schedule first.
    """
    found = load_publication(repository, wanted.name)
    if found is None or found.source_digest != wanted.source_digest:
        return False
    if (found.name, found.manifest_digest) in scheduled:
        return False
    if (found.platform, found.outputs) != (wanted.platform, wanted.outputs):
        return False
    if not _wished_alike(found, _joined(found, wanted)):
        return False
    if not podman_store.is_there(repository, found):
        return False
    if "flat" not in wanted.outputs:
        return True
    target = layout.link_target(wanted.name, found.image_id)
    return repository.link_text(wanted.name) == target and repository.exists(
        layout.flat_image(found.image_id)
    )


def has_content(repository: Repository, item: Item) -> bool:
    """Whether everything that `item` is to show is published: only records may be missing."""
    paths = [layout.layer_directory(layer.digest) for layer in item.image.manifest.layers]
    if "flat" in item.publication.outputs:
        paths.append(layout.flat_image(item.image.manifest.image_id))
    return all(map(repository.exists, paths))


def check_pins(
    repository: Repository, names: Iterable[str], source_digest: str, now: datetime
) -> None:
    """Raise ImagePinned if one of `names` is pinned to what is not at `source_digest` any more."""
    pins = load_pins(repository)
    for name in names if pins.pins else ():
        found = load_publication(repository, name)
        if found is not None and found.source_digest != source_digest:
            _check_pin(pins, name, found.manifest_digest, now)


def _check_pin(pins: Pins, name: str, manifest_digest: str, now: datetime) -> None:
    pin = pins.find(name, manifest_digest, now)
    if pin is not None:
        until = f" until {pin.until}" if pin.until else ""
        why = f": {pin.reason}" if pin.reason else ""
        raise ImagePinned(
            f"{name} stays as it is",
            why=f"it is pinned{until}{why}",
            hint=f"`publisher unpin {name}` lets its tag move",
        )


def publish(
    repository: Repository,
    items: Sequence[Item],
    now: Callable[[], datetime],
    purpose: str,
    refused: Callable[[str], None] = lambda _: None,
) -> Status:
    """Publish all `items` in one transaction, and say whether that was new, a move, or nothing.

    `refused` is told the kinds of things that the filesystem would not store as they should be.

    Their layers must have been staged. Raises RepositoryChanged when one was collected meanwhile,
    DigestMismatch or InvalidManifest when one is not what the image's config and manifest say, and
    ImagePinned when a tag that is pinned would move.
    """
    for item in items:
        image = item.image
        check_layers(repository, image.manifest.layers, image.config, image.document.digest)
    with repository.transaction(purpose) as transaction:
        images = _new_flat_images(repository, items)
        for image in images:
            for kind in _link_flat_image(repository, transaction, image):
                refused(kind)
        layers = _new_layers(repository, items)
        pairs = [(item.image, item.publication) for item in items]
        stored = podman_store.describe(repository, pairs)
        podman_store.prepare(repository, transaction, stored)
        with transaction.exclusive():
            coming = {layout.flat_image(image.manifest.image_id) for image in images}
            coming |= {layout.layer_directory(layer.digest) for layer in layers}
            _require_content(repository, items, coming)
            _add_layers(transaction, items, layers)
            leaving = podman_store.leaving(repository, [i.publication for i in items])
            status = _record(repository, transaction, items, now())
            changed = podman_store.update(repository, transaction, stored, leaving)
            if changed and status is Status.UNCHANGED:
                status = Status.RECORDED
            transaction.commit()
    return status


def _add_layers(
    transaction: Transaction, items: Sequence[Item], layers: Sequence[_NewLayer]
) -> None:
    for layer in layers:
        transaction.add_layer(layer.digest, layer.fixups, layer.below)
    new = {layer.digest for layer in layers}
    for item in items:
        for each in item.image.manifest.layers:
            if each.digest not in new:
                # Another run may have published it while we fetched it: ours is not needed then.
                transaction.add_layer(each.digest, (), ())


def wait_for_others(repository: Repository, purpose: str) -> None:
    """Wait until whoever commits just now has done so."""
    with repository.transaction(purpose) as nothing, nothing.exclusive():
        pass


def _require_content(repository: Repository, items: Sequence[Item], coming: Set[str]) -> None:
    """Under the lock: everything that `items` name is there, or comes with this transaction."""
    for item in items:
        paths = [layout.layer_directory(layer.digest) for layer in item.image.manifest.layers]
        if "flat" in item.publication.outputs:
            paths.append(layout.flat_image(item.image.manifest.image_id))
        for path in paths:
            if path not in coming and not repository.exists(path):
                raise RepositoryChanged(
                    f"cannot publish {item.name}", why=f"{path} was collected meanwhile"
                )


def _new_flat_images(repository: Repository, items: Sequence[Item]) -> list[FetchedImage]:
    images = {
        item.image.manifest.image_id: item.image
        for item in items
        if "flat" in item.publication.outputs
    }
    return [i for d, i in images.items() if not repository.exists(layout.flat_image(d))]


def _link_flat_image(
    repository: Repository, transaction: Transaction, image: FetchedImage
) -> Mapping[str, int]:
    digests = [layer.digest for layer in image.manifest.layers]
    with flat_plan(repository, digests, image.config, image.document.digest) as plan:
        return transaction.link(layout.flat_image(image.manifest.image_id), plan, digests)


def _record(
    repository: Repository,
    transaction: Transaction,
    items: Sequence[Item],
    now: datetime,
) -> Status:
    """Fill the transaction from the state that, under the lock, nobody changes any more."""
    schedule_before = load_schedule(repository)
    schedule = schedule_before
    _record_users(repository, transaction, items)
    pins = load_pins(repository)
    status = Status.UNCHANGED
    for item in items:
        found = load_publication(repository, item.name)
        retired = _retire(repository, transaction, item, schedule.latest(now))
        if retired is not None:
            _check_pin(pins, item.name, retired.manifest_digest, now)
            schedule = schedule.with_entry(retired)
            transaction.record(
                item.name, "scheduled", f"its tag moved away from {retired.manifest_digest}"
            )
            status = Status.UPDATED
        elif found is None:
            status = Status.PUBLISHED if status is Status.UNCHANGED else status
        schedule = schedule.without(item.name, item.publication.manifest_digest)
        if _write_metadata(repository, transaction, item, found):
            transaction.record(item.name, "published", item.publication.manifest_digest)
            status = Status.RECORDED if status is Status.UNCHANGED else status

    if schedule != schedule_before:
        transaction.replace(layout.REMOVE_SCHEDULE, schedule.to_bytes())
        _forget_retired(transaction, schedule_before, schedule)
        status = Status.RECORDED if status is Status.UNCHANGED else status
    return status


def _record_users(repository: Repository, transaction: Transaction, items: Sequence[Item]) -> None:
    """Write down which images use the layers, and which names the images."""
    origins: dict[str, Origin] = {}
    users: dict[str, ImageUsers] = {}
    for item in items:
        manifest = item.image.manifest
        image_id = manifest.image_id
        if image_id not in users:
            known = _known_users(repository, manifest)
            if known is not None:
                users[image_id] = known
        if image_id in users:
            user = (item.name, item.publication.manifest_digest)
            users[image_id] = ImageUsers(users[image_id].users | {user})
        for layer in manifest.layers:
            path = layout.layer_origin(layer.digest)
            if path not in origins:
                origins[path] = load_origin(repository, layer.digest) or Origin()
            origins[path] = origins[path].with_image(image_id)
    records = {path: origin.to_bytes() for path, origin in origins.items()}
    records |= {layout.image_users(image_id): each.to_bytes() for image_id, each in users.items()}
    for path, content in sorted(records.items()):
        if repository.read(path) != content:
            transaction.replace(path, content)


def _known_users(repository: Repository, manifest: Manifest) -> ImageUsers | None:
    """Who uses the image so far; None where that cannot be told, and so is not written down."""
    recorded = load_users(repository, manifest.image_id)
    if recorded is not None:
        return recorded
    origins = (load_origin(repository, layer.digest) for layer in manifest.layers)
    if not repository.exists(layout.flat_image(manifest.image_id)) and not any(
        origin is not None and manifest.image_id in origin.images for origin in origins
    ):
        return ImageUsers()
    # Another tool published it, which keeps no such record.
    try:
        return ImageUsers(frozenset(count_usage(repository).images.get(manifest.image_id, ())))
    except (InvalidManifest, InvalidRecord):
        return None  # a collection does not touch the image then


def _new_layers(repository: Repository, items: Sequence[Item]) -> list[_NewLayer]:
    """The layers that are not published yet, with what each needs from those below it.

    Said before the lock is taken, since it costs reading indexes; a layer that another image
    publishes meanwhile keeps what it got from there.
    """
    new: dict[str, _NewLayer] = {}
    for item in items:
        digests = [layer.digest for layer in item.image.manifest.layers]
        for number, digest in enumerate(digests):
            if digest in new or repository.exists(layout.layer_directory(digest)):
                continue
            with ExitStack() as stack:
                files = [
                    stack.enter_context(repository.open_index(each))
                    for each in digests[: number + 1]
                ]
                needed = tuple(fixups([read_index(f) for f in files], repository.keeps_xattrs))
            new[digest] = _NewLayer(digest, needed, digests[:number])
    return list(new.values())


def _retire(
    repository: Repository,
    transaction: Transaction,
    item: Item,
    now: datetime,
) -> ScheduledRemoval | None:
    """Schedule the image that `item` replaces under its name, if it replaces one."""
    current = current_manifest(repository, item.name)
    if current is None or current[0] == item.publication.manifest_digest:
        return None
    digest, data = current
    manifest = parse_published_manifest(data)
    found = load_publication(repository, item.name)
    directory = layout.retired_directory(digest)
    for file in (layout.MANIFEST_FILE, layout.CONFIG_FILE, layout.PUBLICATION_FILE):
        content = repository.read(f"{layout.image_metadata(item.name)}/{file}")
        if content is not None:
            transaction.replace(f"{directory}/{file}", content)
    began = max(now, found.published_at) if found else now
    return ScheduledRemoval(
        name=item.name,
        reference=found.reference if found else item.publication.reference,
        manifest_digest=digest,
        image_id=manifest.image_id,
        manifest=json.loads(data),
        reason="tag-moved",
        scheduled_at=began,
        not_before=began + timedelta(seconds=_joined(found, item.publication).grace_seconds),
    )


def _forget_retired(
    transaction: Transaction, before: RemoveSchedule, after: RemoveSchedule
) -> None:
    for digest in sorted({e.manifest_digest for e in before.entries}):
        if not after.names_manifest(digest):
            transaction.remove(layout.retired_directory(digest))


def _write_metadata(
    repository: Repository, transaction: Transaction, item: Item, found: Publication | None
) -> bool:
    """Write what differs from what is there; False if nothing does."""
    changed = False
    for path, content in (
        (layout.manifest_file(item.name), item.image.document.data),
        (layout.config_file(item.name), item.image.config_document.data),
    ):
        if repository.read(path) != content:
            transaction.replace(path, content)
            changed = True
    publication = _joined(found, item.publication)
    if found is None or not _says_the_same(found, publication) or changed:
        transaction.replace(layout.publication_file(item.name), publication.to_bytes())
        changed = True
    link = repository.link_text(item.name)
    if "flat" not in item.publication.outputs:
        if link is not None:
            transaction.remove(item.name)
            changed = True
        return changed
    target = layout.link_target(item.name, item.image.manifest.image_id)
    if link != target:
        transaction.symlink(item.name, target)
        changed = True
    return changed


def widened(repository: Repository, wanted: Publication) -> Publication:
    """`wanted`, in those forms as well that other lists wish it in."""
    found = load_publication(repository, wanted.name)
    if found is None or not found.wish_lists - wanted.wish_lists:
        return wanted
    forms = {*found.outputs, *wanted.outputs}
    return replace(wanted, outputs=tuple(output for output in OUTPUTS if output in forms))


def _joined(found: Publication | None, wanted: Publication) -> Publication:
    """`wanted`, wished by the lists that wished the image before as well.

    Of several lists' grace periods the longest counts; owner and note are those of the first list.
    """
    if found is None:
        return wanted
    joined = wanted.with_wish_lists(found.wish_lists | wanted.wish_lists)
    if found.wish_list in joined.wish_lists:
        joined = replace(joined, wish_list=found.wish_list).with_wish_lists(joined.wish_lists)
    if joined.wish_lists - wanted.wish_lists:
        joined = replace(joined, grace_seconds=max(found.grace_seconds, wanted.grace_seconds))
    if joined.wish_list != wanted.wish_list:
        joined = replace(joined, owner=found.owner, note=found.note)
    return joined


def _wished_alike(one: Publication, other: Publication) -> bool:
    """Whether two records say the same of who wishes an image, and how."""
    keys = ("wish_lists", "grace_seconds", "owner", "note")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _says_the_same(one: Publication, other: Publication) -> bool:
    """Whether two records differ at most in when they were written."""
    keys = ("source_digest", "manifest_digest", "image_id", "platform", "outputs", "reference")
    return _wished_alike(one, other) and all(getattr(one, k) == getattr(other, k) for k in keys)
