"""The exchange with one worker process, which is not trusted."""

from __future__ import annotations

import select
import signal
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from publisher.workers.answers import MOST_BYTES
from publisher.workers.errors import WorkerEnded, WorkerFailed
from publisher.workers.fork_server import Worker
from publisher.workers.frames import SIZE

_WAKE_SECONDS = 0.2
"""Seconds between calls of `keep_going` while a worker is waited for."""

_READ_BYTES = 64 * 1024
_LEAST_PATIENCE = 600.0
_BYTES_PER_SECOND = 10**6
_APPARENT_BYTES_PER_SECOND = 250 * 10**6
"""The slowest that a worker takes a blob, and the slowest that it hashes holes of sparse files."""

_WITHOUT_MEMORY = (
    "free memory or lower --workers, if the kernel's log (dmesg) names it as out of memory"
)


class Conversation:
    """Waits for one worker.

    Args:
        worker: The worker process.
        what: What fails if the worker does, for errors.
        patience: For how many seconds, in total, the worker may be waited for.
        keep_going: Called repeatedly while it is waited for; an exception from it ends the wait.
        silence: For how many seconds the worker may be silent before `keep_going` is called.
    """

    def __init__(
        self,
        worker: Worker,
        what: str,
        patience: float,
        keep_going: Callable[[], None],
        silence: float = 0.0,
    ) -> None:
        self.channel = worker.channel
        self.channel.setblocking(False)
        self.what = what
        self._patience = patience
        self._keep_going = keep_going
        self._silence = silence
        self._silent = 0.0
        self._waited = 0.0
        self._poll = select.poll()

    def wait(self, events: int) -> int:
        """Wait for one of `events` for a moment, and return those that occurred.

        Raises WorkerEnded if the worker was waited for too long.
        """
        began = time.monotonic()
        self._poll.register(self.channel, events)
        found = self._poll.poll(_WAKE_SECONDS * 1000)
        waited = time.monotonic() - began
        self._waited += waited
        self._silent = 0.0 if found else self._silent + waited
        if not found:
            if self._silent >= self._silence:
                self._keep_going()
            if self._waited > self._patience:
                raise WorkerEnded(
                    self.what,
                    status=None,
                    why=f"its worker process was ended after {self._waited:.0f} s, since it takes "
                    "longer than a layer of this size should",
                    hint="look at the load of the machine and its disks, and publish again",
                )
        return found[0][1] if found else 0


class Exchange:
    """A job for the worker, and its answer.

    `is_sent` is whether the worker was sent the whole, correct blob.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._channel = conversation.channel
        self._received = bytearray()
        self._has_ended = False
        self.is_sent = False

    def answer(self, job: bytes, files: list[int], chunks: Iterable[bytes] = ()) -> bytes | None:
        """Send the job, with descriptors of its files, and the blob, if it has one.

        Returns:
            The answer; None if the worker ended without one.
        """
        with suppress(ConnectionError):  # the worker has ended
            socket.send_fds(self._channel, [SIZE.pack(len(job))], files)
        self._send(job)
        for chunk in chunks:
            if self._is_answered():
                break
            self._send(chunk)
        else:
            self.is_sent = not self._is_answered()
            self._end_blob()
        while not self._is_answered():
            self._conversation.wait(select.POLLIN)
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
            events = self._conversation.wait(select.POLLIN | select.POLLOUT)
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
        if len(self._received) > MOST_BYTES:
            raise WorkerFailed(
                self._conversation.what,
                why="the answer of its worker process is too long",
            )


def patience_for(blob_size: int, apparent_size: int) -> float:
    """Return how many seconds a worker may be waited for, for a layer of these sizes in bytes."""
    return (
        _LEAST_PATIENCE + blob_size / _BYTES_PER_SECOND + apparent_size / _APPARENT_BYTES_PER_SECOND
    )


def ended(what: str, status: int | None) -> WorkerEnded:
    """Return the error for a worker that ended without an answer."""
    if status is None:
        why = "its worker process has ended with its server"
        return WorkerEnded(what, status=None, why=why, hint=_WITHOUT_MEMORY)
    if status >= 0:
        return WorkerEnded(what, status=status, why=f"its worker process ended with {status}")
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if -status == signal.SIGKILL:
        hint = _WITHOUT_MEMORY
    else:
        hint = "report the image: a library crashed in it; the other images are not affected"
    return WorkerEnded(
        what, status=status, why=f"its worker process was ended by {name}", hint=hint
    )
