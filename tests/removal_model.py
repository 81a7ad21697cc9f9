"""A model of publication and removal, and its comparison with published trees.

The model knows images as bundles of layers and nothing of records, transactions or paths: what must
be in the tree follows from which images are published, scheduled and pinned.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from tests.layer_builder import (
    Image,
    directory,
    file,
    image,
    layer,
    layer_of_tar,
    write_layout,
)

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
TAGS = ("a", "b", "c")

_BASE = layer(directory("etc"), file("etc/os", b"base"))
_TOOL = layer(directory("bin"), file("bin/tool", b"tool" * 10))
_OTHER = layer(file("etc/other", b"other"))
_DATA = layer(file("data", b"d" * 100))
_TOOL_ZSTD = layer_of_tar(_TOOL.tar, compression="zstd")

IMAGES: tuple[Image, ...] = (
    image(_BASE, _TOOL),
    image(_BASE, _OTHER),
    image(_TOOL, _TOOL),  # one layer twice
    image(_BASE, _TOOL_ZSTD),  # the config of the first, other layers
    image(_BASE, _TOOL, annotations={"build": "2"}),  # the first again, under another manifest
    image(_DATA),
)


def name_of(tag: str) -> str:
    """The public path of the tag."""
    return f"local/app:{tag}"


class Source:
    """An image layout whose tags can be moved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for number, each in enumerate(IMAGES):
            write_layout(each, folder, f"image-{number}")
        self._index = json.loads((folder / "index.json").read_bytes())

    def reference(self, tag: str) -> str:
        """Return the reference for a wish."""
        return f"oci:{self.folder}:{tag}"

    def set(self, tags: Mapping[str, int]) -> None:
        """Make the tags name these images; remove all other tags."""
        key = "org.opencontainers.image.ref.name"
        entries = [self._index["manifests"][number] for number in tags.values()]
        manifests = [
            {**entry, "annotations": {key: tag}} for tag, entry in zip(tags, entries, strict=True)
        ]
        document = {"schemaVersion": 2, "manifests": manifests}
        (self.folder / "index.json").write_text(json.dumps(document))


@dataclass(frozen=True, slots=True)
class Entry:
    """A scheduled image."""

    tag: str
    image: int
    since: datetime
    due: datetime


@dataclass(frozen=True, slots=True)
class Published:
    """The published image of one tag."""

    image: int
    lists: frozenset[str]
    grace: timedelta
    at: datetime
    linked: bool = True


@dataclass(slots=True)
class Model:
    """All published, scheduled and pinned images. Every change returns a new model.

    `retired` has the grace period of the wish for each image that a tag has left, while that image
    is scheduled: a restoration needs it.
    """

    published: dict[str, Published] = field(default_factory=dict)
    schedule: tuple[Entry, ...] = ()
    pins: dict[tuple[str, int], date | None] = field(default_factory=dict)
    retired: dict[int, timedelta] = field(default_factory=dict)

    def copy(self) -> Model:
        return Model(dict(self.published), self.schedule, dict(self.pins), dict(self.retired))

    def holds(self, tag: str, image: int, now: datetime) -> bool:
        if (tag, image) not in self.pins:
            return False
        until = self.pins[tag, image]
        return until is None or now.date() <= until

    def find(self, tag: str, image: int) -> Entry | None:
        return next((e for e in self.schedule if (e.tag, e.image) == (tag, image)), None)

    def is_current(self, entry: Entry) -> bool:
        found = self.published.get(entry.tag)
        return found is not None and found.image == entry.image

    def live(self) -> set[tuple[str, int]]:
        """(tag, image) of everything that must stay."""
        return {(tag, p.image) for tag, p in self.published.items()} | {
            (e.tag, e.image) for e in self.schedule
        }

    def latest(self, now: datetime) -> datetime:
        return max([now, *(e.since for e in self.schedule)])

    def scheduled(self, tag: str, now: datetime, grace: timedelta | None = None) -> Model:
        """Schedule what is published under the tag; an earlier entry stays as it is."""
        after = self.copy()
        found = self.published[tag]
        if self.find(tag, found.image) is None:
            since = self.latest(max(now, found.at))
            entry = Entry(
                tag, found.image, since, since + (found.grace if grace is None else grace)
            )
            after.schedule = (*self.schedule, entry)
        return after

    def unscheduled(self, tag: str, image: int) -> Model:
        return self.without([e for e in self.schedule if (e.tag, e.image) == (tag, image)])

    def without(self, entries: Collection[Entry]) -> Model:
        after = self.copy()
        after.schedule = tuple(e for e in self.schedule if e not in entries)
        left = {e.image for e in after.schedule}
        after.retired = {image: grace for image, grace in self.retired.items() if image in left}
        return after

    def relinked(self, tag: str, linked: bool) -> Model:
        after = self.copy()
        after.published[tag] = replace(self.published[tag], linked=linked)
        return after

    def ingested(
        self, tag: str, image: int, wish_list: str, grace: timedelta, now: datetime
    ) -> Model:
        found = self.published.get(tag)
        lists = frozenset({wish_list} - {""}) | (found.lists if found else frozenset())
        if found is not None and lists - {wish_list}:
            grace = max(grace, found.grace)
        after = self
        at = now
        if found is not None and found.image != image:
            if self.holds(tag, found.image, now):
                return self
            retiring = self.copy()
            retiring.published[tag] = replace(found, grace=grace)
            retiring.retired[found.image] = found.grace
            after = retiring.scheduled(tag, now)
        elif found is not None and (found.lists, found.grace) == (lists, grace):
            at = found.at
        after = after.unscheduled(tag, image)
        after.published[tag] = Published(image, lists, grace, at)
        return after

    def restored(self, entry: Entry, now: datetime) -> Model:
        """Publish the image of the entry under its tag again; the current one is scheduled."""
        if self.is_current(entry):
            return self.unscheduled(entry.tag, entry.image).relinked(entry.tag, True)
        found = self.published.get(entry.tag)
        after = self.copy()
        if found is not None:
            after.retired[found.image] = found.grace
            # Not before the entry that is removed: the clock may have been set back since.
            after = after.scheduled(entry.tag, now)
        after = after.unscheduled(entry.tag, entry.image)
        lists = found.lists if found else frozenset[str]()
        grace = self.retired[entry.image]
        after.published[entry.tag] = Published(entry.image, lists, grace, now)
        return after

    def collected(self, entries: Collection[Entry]) -> Model:
        after = self.without(entries)
        for entry in entries:
            if after.is_current(entry):
                del after.published[entry.tag]
            after.pins.pop((entry.tag, entry.image), None)
        return after


def layers_of(model: Model) -> dict[str, set[str]]:
    """Return the image IDs that use each layer that must exist."""
    users: dict[str, set[str]] = {}
    for _, number in model.live():
        for each in IMAGES[number].layers:
            users.setdefault(each.digest, set()).add(IMAGES[number].image_id)
    return users


def users_of(model: Model) -> dict[str, set[tuple[str, str]]]:
    """Return the users (name, manifest digest) of each image that must exist, by image ID."""
    users: dict[str, set[tuple[str, str]]] = {}
    for tag, number in model.live():
        pair = (name_of(tag), IMAGES[number].manifest.digest)
        users.setdefault(IMAGES[number].image_id, set()).add(pair)
    return users


def assert_tree_is(root: Path, model: Model) -> None:
    """Fail unless tree and records equal the model, and no directory is empty."""
    layers = layers_of(model)
    origins = {
        f"sha256:{found.name}": set(json.loads(read(found / ".metadata/origin.json"))["origin"])
        for found in sharded(root / ".layers")
    }
    assert origins == layers
    users = users_of(model)
    assert {f"sha256:{found.name}" for found in sharded(root / ".flat")} == users.keys()
    recorded = {
        f"sha256:{found.stem}": {
            (user["name"], user["manifestDigest"]) for user in json.loads(read(found))["users"]
        }
        for found in sharded(root / ".metadata/.images")
    }
    assert recorded == users
    for tag in TAGS:
        _assert_name_is(root, tag, model.published.get(tag))
    retired = {f"sha256:{found.name}" for found in sharded(root / ".metadata/.retired")}
    scheduled = {IMAGES[e.image].manifest.digest for e in model.schedule}
    moved = {IMAGES[e.image].manifest.digest for e in model.schedule if not model.is_current(e)}
    assert moved <= retired <= scheduled
    for each in _directories(root):
        assert os.listdir(each), f"{each} is empty"


def _assert_name_is(root: Path, tag: str, published: Published | None) -> None:
    link, metadata = root / name_of(tag), root / ".metadata" / name_of(tag)
    if published is None:
        assert not os.path.lexists(link) and not os.path.lexists(metadata)
        return
    expected = IMAGES[published.image]
    assert read(metadata / "manifest.json") == expected.manifest.data
    assert read(metadata / "config.json") == expected.config
    assert os.path.lexists(link) == published.linked
    if published.linked:
        hexadecimal = expected.image_id.partition(":")[2]
        assert link.resolve() == root / ".flat" / hexadecimal[:2] / hexadecimal


def _directories(root: Path) -> Iterator[str]:
    """Return every directory that the publisher makes, except for its working state."""
    for here, below, _ in os.walk(root):
        depth = here.count("/") - str(root).count("/")
        below[:] = [name for name in below if name != ".publisher"] if depth < 3 else []
        if depth > 1:
            yield here


def sharded(top: Path) -> list[Path]:
    """Return the contents of the super-directories of `top`."""
    shards = sorted(os.listdir(top)) if top.exists() else []
    return [top / shard / name for shard in shards for name in sorted(os.listdir(top / shard))]


def read(path: Path) -> bytes:
    return path.read_bytes()
