"""Download the layers of images into the repository's staging area, each layer once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from publisher.ingest.report import Progress
from publisher.ingest.space import DiskSpace
from publisher.ingest.stopping import Interrupted, check_stop
from publisher.layers.policy import Policy
from publisher.log_context import in_this_context
from publisher.repository import Repository
from publisher.sources import Source
from publisher.workers.errors import WorkerFailed
from publisher.workers.pool import Workers

if TYPE_CHECKING:  # what unpacks and publishes is loaded with the first missing layer
    from publisher.layers.unpack import LayerSummary
    from publisher.oci.descriptor import Descriptor


class LayerFetcher:
    """Downloads and unpacks layers. A layer that several images have is downloaded once.

    Args:
        repository: Where layers are staged.
        policy: What of a layer may be published.
        jobs: How many layers are downloaded at a time.
        progress: Receives the progress of downloads.
        stop: Once it is set, each download raises Interrupted at its next chunk.
        refused: Called with the kind of each thing that the file system cannot store.
        workers: Unpacks the layers.
        tar_split: Whether to write their tar-split data, which Podman needs.

    Attributes:
        space: The disk space that images have reserved, and what is still to be downloaded.
    """

    def __init__(
        self,
        repository: Repository,
        policy: Policy,
        jobs: int,
        progress: Progress,
        stop: threading.Event,
        refused: Callable[[str], None],
        workers: Workers,
        tar_split: bool = False,
    ) -> None:
        self._repository = repository
        self._refused = refused
        self._workers = workers
        self._tar_split = tar_split
        self._policy = policy
        self._progress = progress
        self._stop = stop
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="layer")
        self._lock = threading.Lock()
        self._in_flight: dict[str, Future[LayerSummary]] = {}
        self._finished: set[str] = set()
        self.space = DiskSpace(repository)

    def prepare(self) -> None:
        """Begin to start what layers are unpacked with, before the first one is known.

        If that fails, only images with layers to unpack do, when these begin.
        """
        with suppress(WorkerFailed):
            self._workers.start()

    def fetch(
        self, name: str, source: Source, layers: Iterable[tuple[Descriptor, str]]
    ) -> list[LayerSummary]:
        """Download those of `layers` that are neither published nor staged.

        A layer that another image is downloading is waited for, and is not downloaded again. After
        a failure the other layers are still downloaded, so that they are staged for the next run.

        Args:
            name: The name of the image, for the progress.
            source: The source of the image.
            layers: The layers, each with its diff ID.

        Returns:
            The layers that this call downloaded.

        Raises:
            Interrupted: The run is to stop.
            NotEnoughSpace: The disk is full.
            PublisherError: A layer cannot be downloaded or unpacked; the first error is raised.
        """
        wanted = {descriptor.digest: (descriptor, diff_id) for descriptor, diff_id in layers}
        fetched: list[LayerSummary] = []
        errors: list[BaseException] = []
        pending = dict(wanted)
        while pending:
            own, others, moved = self._begin(name, source, pending)
            pending = {digest: wanted[digest] for digest in moved}
            for digest, future in (own | others).items():
                error = future.exception()
                if error is None:
                    if digest in own:
                        fetched.append(future.result())
                elif digest in own or isinstance(error, Interrupted):
                    errors.append(error)
                else:
                    # The other image may have another source, or a config with another diff ID.
                    pending[digest] = wanted[digest]
            if moved:
                from publisher.ingest.publish import wait_for_others

                wait_for_others(self._repository, f"ingest of {name}")
                self._note_missing(moved)
        if errors:
            raise next((e for e in errors if not isinstance(e, Interrupted)), errors[0])
        return fetched

    def close(self) -> None:
        """Wait for the running downloads, and cancel those that have not begun."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(
        self, name: str, source: Source, layers: Mapping[str, tuple[Descriptor, str]]
    ) -> tuple[dict[str, Future[LayerSummary]], dict[str, Future[LayerSummary]], set[str]]:
        """Begin the downloads that are neither stored nor in progress.

        Returns the new downloads, and those of other images that are in progress, by digest; and
        the layers that this run has staged and that a transaction has taken to publish them.
        """
        with self._lock:
            others = {d: future for d, future in self._in_flight.items() if d in layers}
            # Both checks need the lock: a download that ends in between would be in neither.
            new = {
                digest: pair
                for digest, pair in layers.items()
                if digest not in others and not self._repository.has_layer(digest)
            }
            moved = self._finished & new.keys()
            for digest in moved:
                del new[digest]
            sizes = {digest: descriptor.size for digest, (descriptor, _) in new.items()}
            self._progress.layers_expected(name, sizes)
            if new:
                self._workers.start()
            own: dict[str, Future[LayerSummary]] = {}
            # The largest one takes longest, and is begun first.
            for digest in sorted(new, key=sizes.__getitem__, reverse=True):
                descriptor, diff_id = new[digest]
                own[digest] = self._pool.submit(
                    in_this_context(self._fetch_one), source, descriptor, diff_id
                )
                self._in_flight[digest] = own[digest]
            return own, others, moved

    def _note_missing(self, moved: set[str]) -> None:
        """Forget those of the layers whose transaction has failed: they are fetched again."""
        missing = {digest for digest in moved if not self._repository.has_layer(digest)}
        with self._lock:
            self._finished -= missing

    def _forget(self, digest: str) -> None:
        with self._lock:
            del self._in_flight[digest]

    def _fetch_one(self, source: Source, descriptor: Descriptor, diff_id: str) -> LayerSummary:
        from publisher.workers.job import Job

        self._progress.layer_started(descriptor.digest, descriptor.size)
        self.space.began(descriptor.digest, descriptor.size)
        try:
            self.check_stop()
            with (
                self._repository.stage_layer(descriptor.digest) as stage,
                source.blob(descriptor) as chunks,
            ):
                unpacked = self._workers.unpack(
                    stage,
                    self._watched(chunks, descriptor.digest, self._progress.layer_advanced),
                    Job(descriptor, diff_id, self._policy, self._tar_split),
                    self.check_stop,
                )
                stage.finish()
                for kind in unpacked.refused:
                    self._refused(kind)
                with self._lock:
                    self._finished.add(descriptor.digest)
                return unpacked.summary
        except OSError as error:
            raise self.space.explained_download(error, descriptor.size) from error
        finally:
            self._progress.layer_done(descriptor.digest)
            self.space.ended(descriptor.digest)
            # This precedes the end of the future, so that a thread that waits for it either finds
            # the layer or can begin its download.
            self._forget(descriptor.digest)

    def _watched(
        self, chunks: Iterator[bytes], digest: str, advanced: Callable[[str, int], None]
    ) -> Iterator[bytes]:
        for chunk in chunks:
            self.check_stop()
            advanced(digest, len(chunk))
            self.space.arrived(digest, len(chunk))
            yield chunk

    def check_stop(self) -> None:
        """Raise Interrupted if the run is to stop."""
        check_stop(self._stop)
