"""What is published in one repository at one moment, read once for all requests.

A tree is read again when its latest transaction, its CVMFS revision, the state of its wishes or the
day has changed. Requests meanwhile are answered from the snapshot before.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

from publisher.browse.images import ListedImage
from publisher.browse.statistics.holdings import LayerSize
from publisher.browse.values import listed_value, status_value
from publisher.errors import InvalidReference, PublisherError
from publisher.oci.reference import parse_reference
from publisher.removal.schedule import list_schedule
from publisher.removal.values import planned_value
from publisher.repository import Repository
from publisher.repository.cvmfs.revision import NotCvmfs, present_revision
from publisher.repository.published import NotPublished, PublishedImage
from publisher.service.web.answers import Body
from publisher.service.web.context import Context, PublishedTree
from publisher.site import addresses
from publisher.site.details import detailed_images
from publisher.site.facts import Facts
from publisher.site.survey import Remembered, Survey, survey_repository
from publisher.tree import layout

_log = logging.getLogger(__name__)
_Made = TypeVar("_Made")

_CACHE_BYTES = 64 * 1024 * 1024
_OLDEST = 300.0
"""After so many seconds a tree is read again in any case: other programs leave no history."""

_DETAILED_ENTRIES = 500_000
_TRIES = 5


class AnswerCache:
    """Answers that were made from one snapshot; the least recently used ones are dropped.

    Only the thread of the event loop uses it.
    """

    def __init__(self, limit: int = _CACHE_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._answers: OrderedDict[str, Body] = OrderedDict()

    def get(self, key: str) -> Body | None:
        """Return the body of an answer, or None."""
        found = self._answers.get(key)
        if found is not None:
            self._answers.move_to_end(key)
        return found

    def put(self, key: str, body: Body) -> None:
        """Keep an answer, unless it is large."""
        if body.size > self._limit // 4 or key in self._answers:
            return
        self._answers[key] = body
        self._size += body.size + len(key)
        while self._size > self._limit:
            dropped, old = self._answers.popitem(last=False)
            self._size -= old.size + len(dropped)


class Snapshot:
    """A repository as it was read. It does not change.

    Attributes:
        token: What it was read at; another one if the tree has changed.
        repository: For reading what the survey does not have.
        remembered: The state of wishes and runs.
        cache: The answers made from it.
        contents: The paths of the pages about files, by their directory, once they were made.
    """

    def __init__(
        self,
        tree: PublishedTree,
        token: object,
        repository: Repository,
        survey: Survey,
        remembered: Remembered,
        now: datetime,
    ) -> None:
        self.name = tree.name
        self.title = tree.title
        self.token = token
        self.repository = repository
        self.survey = survey
        self.remembered = remembered
        self.cache = AnswerCache()
        self.contents: dict[str, frozenset[str]] = {}
        self._now = now
        self._making: dict[str, asyncio.Task[Any]] = {}

    async def once(
        self, key: str, make: Callable[[], _Made], keep: Callable[[_Made], None] = lambda made: None
    ) -> _Made:
        """Return what `make` returns in a thread; requests at the same time share one call.

        `keep` is called with it in the event loop, before another request can begin a further call.
        """

        async def kept() -> _Made:
            found = await run_in_threadpool(make)
            keep(found)
            return found

        if key not in self._making:
            task = asyncio.create_task(kept())
            task.add_done_callback(lambda _: self._making.pop(key))
            self._making[key] = task
        made: _Made = await asyncio.shield(self._making[key])
        return made

    @cached_property
    def images(self) -> list[dict[str, object]]:
        """The published images as in the document `list/1`."""
        survey = self.survey
        scheduled = {entry.key: entry for entry in survey.scheduled}
        return [
            listed_value(
                ListedImage(
                    image,
                    survey.stored_size(image.manifest) if image.manifest else None,
                    scheduled.get((image.name, image.manifest_digest)),
                    survey.pins.get((image.name, image.manifest_digest)),
                )
            )
            for image in survey.images.values()
        ]

    @cached_property
    def wishes(self) -> list[dict[str, object]]:
        """The wishes and their states as in the document `status/1`."""
        return [status_value(line) for line in self.survey.wishes]

    @cached_property
    def removals(self) -> list[dict[str, object]]:
        """The remove schedule as in the document `schedule/1`."""
        return [planned_value(each) for each in list_schedule(self.repository, self._now)]

    @cached_property
    def layers(self) -> list[dict[str, object]]:
        """The layers of published and scheduled images as in the document `layers/1`."""
        return [self._layer(digest) for digest in self.survey.users]

    def _layer(self, digest: str) -> dict[str, object]:
        size = self.survey.sizes.get(digest)
        return {
            "digest": digest,
            "path": layout.layer_tree(digest),
            "compressedBytes": self.survey.compressed[digest],
            "bytes": size.stored if size else None,
            "entries": size.entries if size else None,
            "images": len(self.survey.users[digest]),
        }

    @cached_property
    def detailed(self) -> Mapping[str, PublishedImage]:
        """The images that have pages about their contents, by manifest digest."""
        return detailed_images(self.survey, _DETAILED_ENTRIES)

    @cached_property
    def facts(self) -> Facts:
        """The survey arranged for pages."""
        return Facts.of(self.survey, self.detailed)

    @cached_property
    def facts_without_states(self) -> Facts:
        """The same without the states of wishes."""
        return dataclasses.replace(self.facts, wishes={})

    @cached_property
    def by_page(self) -> Mapping[str, PublishedImage]:
        """The images by the paths of their pages."""
        return {addresses.image_page(name): each for name, each in self.survey.images.items()}

    @cached_property
    def layers_by_page(self) -> Mapping[str, str]:
        """The digests of layers by the paths of their pages."""
        return {addresses.layer_page(digest): digest for digest in self.survey.users}

    @cached_property
    def by_directory(self) -> Mapping[str, PublishedImage]:
        """The images that have pages about their contents, by the directory of these pages."""
        return {addresses.contents(digest): each for digest, each in self.detailed.items()}

    def image(self, text: str) -> PublishedImage:
        """Return a published image by its name or reference; raise NotPublished."""
        name = text
        if name not in self.survey.images and not layout.is_never_a_reference(text):
            try:
                name = layout.public_name(parse_reference(text))
            except InvalidReference:
                name = text
        if name not in self.survey.images:
            raise NotPublished(
                f"cannot find the image {text} in {self.name}",
                name=text,
                why="no image is published under this name",
                hint=f"list the images: /api/v1/repositories/{self.name}/images",
            )
        return self.survey.images[name]


class Snapshots:
    """The latest snapshot of one repository."""

    def __init__(self, tree: PublishedTree, context: Context) -> None:
        self.tree = tree
        self._context = context
        self._snapshot: Snapshot | None = None
        self._reading: asyncio.Task[None] | None = None
        self._checked = 0.0
        self._read_at = 0.0
        self._sizes: Mapping[str, LayerSize] = {}

    async def latest(self) -> Snapshot:
        """Return what is published.

        Raises:
            PublisherError: The repository cannot be read, and was never read before.
        """
        age = time.monotonic() - self._checked
        if self._snapshot is not None and age < self._context.recheck:
            return self._snapshot
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._refresh())
        if self._snapshot is None:
            await asyncio.shield(self._reading)
        else:
            await asyncio.wait({self._reading}, timeout=self._context.patience)
        assert self._snapshot is not None
        return self._snapshot

    async def _refresh(self) -> None:
        try:
            self._snapshot = await asyncio.to_thread(self._read)
        except (PublisherError, OSError) as error:
            if self._snapshot is None:
                raise
            _log.warning("cannot read %s again: %s", self.tree.name, error)
        self._checked = time.monotonic()

    def _read(self) -> Snapshot:
        """Return the present snapshot, or a new one if the tree has changed."""
        repository = self.tree.open()
        now = self._context.now()
        for _ in range(_TRIES):
            remembered = self.tree.remember()
            token = _token(repository, remembered, now)
            known = self._snapshot
            is_fresh = time.monotonic() - self._read_at < _OLDEST
            if known is not None and known.token == token and is_fresh:
                return known
            survey = survey_repository(repository, remembered, now, self._sizes, _note)
            new = Snapshot(self.tree, token, repository, survey, remembered, now)
            self._sizes = survey.sizes
            self._read_at = time.monotonic()
            if _token(repository, remembered, now) == token:
                break  # else the tree has changed while it was read
        return new


def _note(error: PublisherError) -> None:
    _log.info("%s", error)


def _token(repository: Repository, remembered: Remembered, now: datetime) -> object:
    """Return a value that changes with each change of the tree, of the state, and every day."""
    latest = next(iter(repository.history()), None)
    try:
        revision = present_revision(repository).number
    except NotCvmfs:
        revision = 0
    return (latest.id if latest else "", revision, remembered, now.date())
