"""At most N worker processes at a time: blobs are passed to them, and their answers are checked."""

from __future__ import annotations

import itertools
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from publisher.closing import Closing
from publisher.repository import LayerStage
from publisher.repository.layer_files import LayerPlace
from publisher.workers.errors import WorkerEnded, WorkerFailed
from publisher.workers.fork_server import ForkServer, Worker
from publisher.workers.frames import SIZE, frame

if TYPE_CHECKING:  # what unpacks is loaded with the first layer: most runs of an ingest have none
    from publisher.workers.job import Job, Unpacked

_WAKE_SECONDS = 0.2
"""Seconds between calls of `keep_going` while a worker is waited for."""

_READ_BYTES = 64 * 1024
_LEAST_PATIENCE = 600.0
_BYTES_PER_SECOND = 10**6
_APPARENT_BYTES_PER_SECOND = 250 * 10**6
"""The slowest that a worker takes a blob, and the slowest that it hashes holes of sparse files."""


class Workers(Closing):
    """Unpacks layers in worker processes, of which at most `count` run at a time.

    Safe to use from several threads. Close it, or use it as a context manager.

    Args:
        count: How many. With 0, layers are unpacked in this process.
        environment: The environment of the workers: what Python needs, and no secrets.
        patience: How many seconds a worker may be waited for while it unpacks a layer; by default
            it depends on the layer and the limits.
    """

    def __init__(
        self,
        count: int,
        environment: Mapping[str, str] | None = None,
        *,
        patience: float | None = None,
    ) -> None:
        self._server = ForkServer(environment or {})
        self._patience = patience
        self._count = count
        self._free = threading.Semaphore(count)

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
        from publisher.layers.blob import checked
        from publisher.workers.answers import parse_answer
        from publisher.workers.check import check_index
        from publisher.workers.job import unpack_layer

        chunks = stage.keep(chunks)
        place = stage.place
        if not self._count or place is None:
            with stage.open_files() as files:
                return unpack_layer(files, chunks, job, is_checked=False)
        self._server.start()
        blob = checked(chunks, job.descriptor)
        # A registry takes longer to begin its answer than to send a small layer: no worker waits
        # for that.
        first = next(blob, b"")
        with self._slot(keep_going), self._server.fork() as worker:
            conversation = _Conversation(worker, job, self._patience, keep_going)
            try:
                answer = conversation.answer(place, itertools.chain([first], blob))
            finally:
                status = worker.end()
            if answer is None or status is None:
                keep_going()  # an interrupted run has also interrupted its workers
                raise _ended(job, status)
        unpacked = parse_answer(answer, job)
        if not conversation.is_sent:
            raise WorkerFailed(
                f"cannot unpack {job.layer}", why="its worker process answered before its end"
            )
        check_index(stage, unpacked, job)
        return unpacked

    def close(self) -> None:
        """End all processes. May be called again."""
        self._server.close()

    @contextmanager
    def _slot(self, keep_going: Callable[[], None]) -> Iterator[None]:
        while not self._free.acquire(timeout=_WAKE_SECONDS):
            keep_going()
        try:
            yield
        finally:
            self._free.release()


class _Conversation:
    """The exchange with one worker. `is_sent` is whether it was sent the whole, correct blob."""

    def __init__(
        self,
        worker: Worker,
        job: Job,
        patience: float | None,
        keep_going: Callable[[], None],
    ) -> None:
        self._channel = worker.channel
        self._channel.setblocking(False)
        self._job = job
        self._keep_going = keep_going
        self._patience = _patience(job) if patience is None else patience
        self._waited = 0.0
        self._poll = select.poll()
        self._received = bytearray()
        self._has_ended = False
        self.is_sent = False

    def answer(self, place: LayerPlace, chunks: Iterator[bytes]) -> bytes | None:
        """Send the job and the blob; return the answer, or None if the worker ended without one."""
        from publisher.workers.job import encode_job

        self._send(frame(encode_job(place, self._job)))
        for chunk in chunks:
            if self._is_answered():
                break
            self._send(chunk)
        else:
            self.is_sent = not self._is_answered()
            self._end_blob()
        while not self._is_answered():
            self._wait(select.POLLIN)
            self._receive()
        size = SIZE.unpack_from(self._received)[0] if len(self._received) >= SIZE.size else -1
        message = bytes(self._received[SIZE.size :])
        return message if len(message) == size else None

    def _is_answered(self) -> bool:
        received = self._received
        if self._has_ended or len(received) < SIZE.size:
            return self._has_ended
        return len(received) >= SIZE.size + int(SIZE.unpack_from(received)[0])

    def _end_blob(self) -> None:
        with suppress(OSError):  # the worker has ended
            self._channel.shutdown(socket.SHUT_WR)

    def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not self._is_answered():
            events = self._wait(select.POLLIN | select.POLLOUT)
            if events & ~select.POLLOUT:
                self._receive()
            elif events:
                try:
                    rest = rest[self._channel.send(rest) :]
                except (BlockingIOError, ConnectionError):
                    continue  # the next event shows why

    def _receive(self) -> None:
        try:
            data = self._channel.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        self._has_ended = not data
        self._received += data
        from publisher.workers.answers import MOST_BYTES

        if len(self._received) > MOST_BYTES:
            raise WorkerFailed(
                f"cannot unpack {self._job.layer}",
                why="the answer of its worker process is too long",
            )

    def _wait(self, events: int) -> int:
        """Wait for one of `events` for a moment, and return those that occurred."""
        began = time.monotonic()
        self._poll.register(self._channel, events)
        found = self._poll.poll(_WAKE_SECONDS * 1000)
        self._waited += time.monotonic() - began
        if not found:
            self._keep_going()
            if self._waited > self._patience:
                raise WorkerEnded(
                    f"cannot unpack {self._job.layer}",
                    status=None,
                    why=f"its worker process was ended after {self._waited:.0f} s, since it takes "
                    "longer than a layer of this size should",
                    hint="look at the load of the machine and its disks, and publish again",
                )
        return found[0][1] if found else 0


def _patience(job: Job) -> float:
    """Return how many seconds a worker may be waited for."""
    return (
        _LEAST_PATIENCE
        + job.descriptor.size / _BYTES_PER_SECOND
        + job.policy.limits.layer_apparent_bytes / _APPARENT_BYTES_PER_SECOND
    )


def _ended(job: Job, status: int | None) -> WorkerEnded:
    """Return the error for a worker that ended without an answer."""
    what = f"cannot unpack {job.layer}"
    if status is None:
        return WorkerEnded(what, status=None, why="its worker process has ended with its server")
    if status >= 0:
        return WorkerEnded(what, status=status, why=f"its worker process ended with {status}")
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if -status == signal.SIGKILL:
        hint = (
            "free memory or lower --workers, if the kernel's log (dmesg) names it as out of memory"
        )
    else:
        hint = "report the image: a library crashed in it; the other images are not affected"
    return WorkerEnded(
        what, status=status, why=f"its worker process was ended by {name}", hint=hint
    )
