"""At most N worker processes at a time: blobs are passed to them, and their answers are checked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from publisher.closing import Closing
from publisher.repository import LayerStage
from publisher.workers.errors import WorkerFailed
from publisher.workers.fork_server import ForkServer
from publisher.workers.slots import Slots

if (
    TYPE_CHECKING
):  # what reads layers is loaded with the first one: most runs of an ingest have none
    from publisher.layers.replay import PassOn, Receive, StagedContents
    from publisher.repository.directory.linker import LinkJob
    from publisher.workers.job import Job, Unpacked

_LINK_SECONDS = 3600.0
"""How long a worker may take to link an image: ten times as long as ten million files take."""


_SILENCE_SECONDS = 1.0
"""How long a worker that reads contents may be silent before an interrupt ends it.

An interrupted run completes the commit in progress, unless that waits for a worker that hangs.
"""


class Workers(Closing):
    """Unpacks layers in worker processes, of which at most `count` run at a time.

    Safe to use from several threads. Close it, or use it as a context manager.

    Args:
        count: How many. With 0, layers are unpacked in this process.
        environment: The environment of the workers: what Python needs, and no secrets.
        patience: How many seconds a worker may be waited for; by default it depends on the layer
            and the limits.
        keep_reading: Called repeatedly while a worker that reads contents again sends nothing; an
            exception from it ends the worker, and thus the transaction.

    Attributes:
        count: The number of processes for work that they share.
    """

    def __init__(
        self,
        count: int,
        environment: Mapping[str, str] | None = None,
        *,
        patience: float | None = None,
        keep_reading: Callable[[], None] = lambda: None,
    ) -> None:
        self._server = ForkServer(environment or {})
        self._patience = patience
        self._keep_reading = keep_reading
        self.count = count
        self._slots = Slots(count)

    def start(self) -> None:
        """Begin to start what worker processes are forked from, before the first layer is there.

        Raises:
            WorkerFailed: It cannot be started.
        """
        if self.count:
            self._server.start()

    def unpack(
        self,
        stage: LayerStage,
        chunks: Iterable[bytes],
        job: Job,
        keep_going: Callable[[], None] = lambda: None,
    ) -> Unpacked:
        """Unpack a layer to `stage`, which the caller finishes, or discards after an error.

        Args:
            stage: Where the layer is unpacked.
            chunks: The blob.
            job: Which layer it is.
            keep_going: Called repeatedly while a worker is waited for; an exception from it ends
                the worker.

        Raises:
            WorkerEnded: The worker process was killed, or took too long.
            WorkerFailed: The worker process cannot be started, or gives no valid answer.
            Exception: Those of `publisher.layers.unpack`, of `stage`, and of `chunks`.
        """
        with self._slots.announced(job.descriptor.size) as layer:
            slot = self._slots.taken(layer, keep_going)
            return self._unpack(stage, chunks, job, keep_going, slot)

    def _unpack(
        self,
        stage: LayerStage,
        chunks: Iterable[bytes],
        job: Job,
        keep_going: Callable[[], None],
        slot: AbstractContextManager[None],
    ) -> Unpacked:
        from publisher.layers.blob import checked
        from publisher.workers.answers import parse_answer
        from publisher.workers.check import check_index
        from publisher.workers.conversation import Conversation, Exchange, ended, patience_for
        from publisher.workers.job import encode_job, unpack_layer

        what = f"cannot unpack {job.layer}"
        chunks = stage.keep(chunks)
        place = stage.place
        if not self.count or place is None:
            with stage.memory(job.descriptor.size), stage.open_files() as files:
                return unpack_layer(files, chunks, job, is_checked=False)
        self.start()
        blob = checked(chunks, job.descriptor)
        # A registry takes longer to begin its answer than to send a small layer: no worker waits
        # for that.
        first = next(blob, b"")
        memory_for_contents = stage.memory(job.descriptor.size)
        with slot, self._server.fork() as worker, memory_for_contents as memory:
            patience = patience_for(job.descriptor.size, job.policy.limits.layer_apparent_bytes)
            conversation = Conversation(worker, what, self._patience or patience, keep_going)
            exchange = Exchange(conversation)
            descriptors = [] if memory is None else [memory]
            try:
                answer = exchange.answer(
                    encode_job(place, job), descriptors, itertools.chain([first], blob)
                )
            finally:
                status = worker.end()
            if answer is None or status is None:
                keep_going()  # an interrupted run has also interrupted its workers
                raise ended(what, status)
        unpacked = parse_answer(answer, job)
        if not exchange.is_sent:
            raise WorkerFailed(what, why="its worker process answered before its end")
        check_index(stage, unpacked, job)
        return unpacked

    @contextmanager
    def read_contents(self, staged: StagedContents) -> Iterator[PassOn]:
        """Begin to read a staged layer again; see `publisher.layers.replay.ReadContents`.

        The worker is one more than `count`: a transaction does not wait for downloads. It may read
        the next layer while the contents of one are passed on.

        Raises:
            WorkerEnded: The worker process was killed, or took too long.
            WorkerFailed: The worker process cannot be started, or sends something else.
            Exception: Those of `publisher.layers.replay.read_contents`, and of `keep_reading`.
        """
        from publisher.layers.index import read_header
        from publisher.layers.replay import read_contents_here
        from publisher.workers.contents import Contents, linked_order
        from publisher.workers.conversation import Conversation, ended, patience_for

        if not self.count:
            with read_contents_here(staged) as pass_on_here:
                yield pass_on_here
            return
        with (
            staged.index.open("rb") as index,
            staged.blob.open("rb") as blob,
            linked_order(staged),
            self._server.fork() as worker,
        ):
            header = read_header(index)
            what = f"cannot send layer {header.digest}"
            patience = patience_for(header.size, header.content_size)
            patience = self._patience or patience
            conversation = Conversation(
                worker, what, patience, self._keep_reading, _SILENCE_SECONDS
            )
            contents = Contents(conversation, header)
            contents.begin(staged.scratch, blob, index)

            def pass_on(receive: Receive) -> None:
                try:
                    is_answered = contents.receive(receive)
                finally:
                    status = worker.end()
                if not is_answered:
                    raise ended(what, status)

            try:
                yield pass_on
            finally:
                worker.end()  # before its directory is deleted; it has ended if it was used

    def link(self, job: LinkJob) -> Mapping[str, int]:
        """Link a flat image; see `publisher.repository.directory.linker.Link`.

        The worker is one more than `count`, since its image has no layer to be unpacked any more.

        Raises:
            WorkerEnded: The worker process was killed, or took too long.
            WorkerFailed: The worker process cannot be started, or gives no valid answer.
            OSError: As of `link_tree`.
            LayerError: An index is damaged.
        """
        from publisher.workers.answers import parse_linked
        from publisher.workers.conversation import Conversation, Exchange, ended
        from publisher.workers.linking import encode_link_job

        what = "cannot link the flat image"
        self.start()
        with self._server.fork() as worker:
            patience = self._patience or _LINK_SECONDS
            conversation = Conversation(worker, what, patience, lambda: None)
            try:
                answer = Exchange(conversation).answer(encode_link_job(job), [])
            finally:
                status = worker.end()
            if answer is None or status is None:
                raise ended(what, status)
        return parse_linked(answer, what)

    def close(self) -> None:
        """End all processes. May be called again."""
        self._server.close()
