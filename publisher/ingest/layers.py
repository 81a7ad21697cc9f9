"""Getting an image's layers into the repository's staging space, each of them once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from publisher.errors import PublisherError
from publisher.ingest.report import Progress
from publisher.ingest.space import DiskSpace
from publisher.layers.policy import Policy
from publisher.layers.unpack import LayerSummary, unpack
from publisher.oci.descriptor import Descriptor
from publisher.repository import Repository
from publisher.sources import Source


class Interrupted(PublisherError):
    """The run is to stop. What is finished and verified is kept for the next run."""


class LayerFetcher:
    """Downloads and unpacks layers, `jobs` at a time; each is downloaded once for all images.

    `stop` is checked at every chunk: once it is set, downloads end by raising Interrupted.
    `refused` is called with each kind of thing that the file system does not store;
    `space` reserves disk space for the downloads of all images.
    """

    def __init__(
        self,
        repository: Repository,
        policy: Policy,
        jobs: int,
        progress: Progress,
        stop: threading.Event,
        refused: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._refused = refused
        self._policy = policy
        self._progress = progress
        self._stop = stop
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="layer")
        self._lock = threading.Lock()
        self._in_flight: dict[str, Future[LayerSummary]] = {}
        self._left: dict[str, int] = {}
        self.space = DiskSpace(repository)

    def fetch(
        self, name: str, source: Source, layers: Iterable[tuple[Descriptor, str]]
    ) -> list[LayerSummary]:
        """Make sure that all `layers` (descriptor, diff ID) are published or staged.

        Returns what was fetched for this image; a layer that another image fetches at the same
        time is not among it. All layers are attempted before the first error is raised, so that
        the good ones are staged for the next run.
        """
        wanted = {descriptor.digest: (descriptor, diff_id) for descriptor, diff_id in layers}
        fetched: list[LayerSummary] = []
        errors: list[BaseException] = []
        pending = dict(wanted)
        while pending:
            own, others = self._begin(name, source, pending)
            pending = {}
            for digest, future in (own | others).items():
                error = future.exception()
                if error is None:
                    if digest in own:
                        fetched.append(future.result())
                elif digest in own or isinstance(error, Interrupted):
                    errors.append(error)
                else:
                    # The layer may be sound at this image's source, and with its config.
                    pending[digest] = wanted[digest]
        if errors:
            raise next((e for e in errors if not isinstance(e, Interrupted)), errors[0])
        return fetched

    def close(self) -> None:
        """Wait for running downloads; begin no others."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(
        self, name: str, source: Source, layers: Mapping[str, tuple[Descriptor, str]]
    ) -> tuple[dict[str, Future[LayerSummary]], dict[str, Future[LayerSummary]]]:
        """Begin the missing downloads; return them, and those of other images, by digest.

        Layers that the repository has are in neither. Without space for all, none is begun.
        """
        with self._lock:
            others = {d: future for d, future in self._in_flight.items() if d in layers}
            # Under the lock: a layer that has just arrived left `_in_flight`, but is staged.
            new = {
                digest: pair
                for digest, pair in layers.items()
                if digest not in others and not self._repository.has_layer(digest)
            }
            sizes = {digest: descriptor.size for digest, (descriptor, _) in new.items()}
            self.space.expect(sum(sizes.values()))
            self._progress.layers_expected(name, sizes)
            own: dict[str, Future[LayerSummary]] = {}
            try:
                for digest, (descriptor, diff_id) in new.items():
                    self._left[digest] = descriptor.size
                    own[digest] = self._pool.submit(self._fetch_one, source, descriptor, diff_id)
                    self._in_flight[digest] = own[digest]
            except BaseException:
                self.space.arrived(sum(new[d][0].size for d in new.keys() - own.keys()))
                raise
            return own, others

    def _forget(self, digest: str) -> None:
        with self._lock:
            del self._in_flight[digest]
            left = self._left.pop(digest)
        self.space.arrived(left)

    def _fetch_one(self, source: Source, descriptor: Descriptor, diff_id: str) -> LayerSummary:
        self._progress.layer_started(descriptor.digest, descriptor.size)
        try:
            self.check_stop()
            with (
                self._repository.stage_layer(descriptor.digest) as stage,
                source.blob(descriptor) as chunks,
            ):
                summary = unpack(
                    stage.keep(
                        self._watched(chunks, descriptor.digest, self._progress.layer_advanced)
                    ),
                    descriptor,
                    diff_id,
                    stage.sink,
                    stage.index,
                    self._policy,
                )
                for kind in stage.finish():
                    self._refused(kind)
                return summary
        except OSError as error:
            raise self.space.explained_download(error, descriptor.size) from error
        finally:
            self._progress.layer_done(descriptor.digest)
            # Before the future is done: a thread that waits for it finds the layer, or may try.
            self._forget(descriptor.digest)

    def _watched(
        self, chunks: Iterator[bytes], digest: str, advanced: Callable[[str, int], None]
    ) -> Iterator[bytes]:
        for chunk in chunks:
            self.check_stop()
            advanced(digest, len(chunk))
            self._left[digest] -= len(chunk)
            self.space.arrived(len(chunk))
            yield chunk

    def check_stop(self) -> None:
        """Raise Interrupted if the run is to stop."""
        if self._stop.is_set():
            raise Interrupted("stopped", why="the run was interrupted")
