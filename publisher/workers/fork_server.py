"""The process that workers are forked from, and its workers, as their user sees them.

It is a new program, not a copy of this process, so that no worker has a copy of this process'
memory, with its credentials. It is started with the first layer that is to be unpacked.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

from publisher.closing import Closing
from publisher.workers.errors import not_started
from publisher.workers.frames import NUMBER

COMMAND: Sequence[str] = (sys.executable, "-P", "-X", "utf8", "-m", "publisher.workers.server")
"""The command of the server; its last argument is the number of a descriptor."""

_START_SECONDS = 120.0
"""How long the server may take to start and to fork."""

_END_SECONDS = 10.0
"""How long ended processes may take to be gone; a process in the kernel ends late."""


class ForkServer(Closing):
    """Starts the server when the first worker is needed. Safe to use from several threads.

    `environment` is that of the server and of all workers.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self._running: tuple[socket.socket, subprocess.Popen[bytes]] | None = None
        self._has_forked = False

    def start(self) -> None:
        """Start the server, if it does not run, and do not wait until it is ready."""
        try:
            with self._lock:
                self._control()
        except OSError as error:
            raise not_started(error) from error

    def fork(self) -> Worker:
        """Return a new worker process.

        Raises:
            WorkerFailed: The server cannot be started, or cannot fork.
        """
        worker, server = self._fork()
        if not worker.pid:  # the server was killed since the last worker
            worker.close()
            with self._lock:
                if self._running is not None and self._running[1] is server:
                    self._stop()  # and no other thread has started a new one
            worker, _ = self._fork()
        if worker.pid <= 0:
            worker.close()
            code = -worker.pid
            raise not_started(OSError(code, os.strerror(code) if code else "its server has ended"))
        return worker

    def _fork(self) -> tuple[Worker, subprocess.Popen[bytes]]:
        """Return a worker, and the server that was to fork it."""
        channel, worker_channel = socket.socketpair()
        lifeline, server_lifeline = socket.socketpair()
        try:
            with worker_channel, server_lifeline, self._lock:
                control, server = self._control()
                self._has_forked = True
                with suppress(ConnectionError):  # then the worker has no process ID
                    ends = [worker_channel.fileno(), server_lifeline.fileno()]
                    socket.send_fds(control, [b"f"], ends)
            return Worker(channel, lifeline), server
        except OSError as error:
            channel.close()
            lifeline.close()
            raise not_started(error) from error

    def close(self) -> None:
        """End the server and all workers. May be called again."""
        with self._lock:
            self._stop()

    def _control(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        if self._running is None:
            control, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with end:
                try:
                    # A session of its own, so that an interrupt from the terminal does not reach
                    # it: this process ends its workers in order.
                    process = subprocess.Popen(
                        [*COMMAND, str(end.fileno())],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        env=self._environment,
                        pass_fds=[end.fileno()],
                        start_new_session=True,
                    )
                except BaseException:
                    control.close()
                    raise
            self._running = control, process
            self._has_forked = False
        return self._running

    def _stop(self) -> None:
        if self._running is None:
            return
        control, process = self._running
        self._running = None
        if not self._has_forked:
            process.kill()  # it has nothing to end, and may still be loading modules
        with control, suppress(OSError):
            control.shutdown(socket.SHUT_WR)
            control.settimeout(_END_SECONDS)
            control.recv(1)  # its end; Popen.wait looks for that in intervals of up to 50 ms
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Worker(Closing):
    """A worker process: its `channel`, its process ID, and how it ended.

    `pid` is 0 if the server ended before it forked, and a negative error number if it cannot fork.
    """

    def __init__(self, channel: socket.socket, lifeline: socket.socket) -> None:
        self.channel = channel
        self._lifeline = lifeline
        self._lifeline.settimeout(_START_SECONDS)
        self.pid = self._number() or 0

    def end(self) -> int | None:
        """End the process, and wait until it has ended.

        Returns:
            Its exit code, or the negative number of the signal that ended it; None if unknown.
        """
        with suppress(OSError):  # the server has ended, and with it all workers
            self._lifeline.shutdown(socket.SHUT_WR)
        return self.wait(_END_SECONDS)

    def wait(self, seconds: float) -> int | None:
        """Wait until the process has ended; return what `end` returns."""
        self._lifeline.settimeout(seconds)
        status = self._number()
        return None if status is None else os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Close the descriptors. A process that runs is ended by it."""
        self.channel.close()
        self._lifeline.close()

    def _number(self) -> int | None:
        try:
            data = self._lifeline.recv(NUMBER.size)
        except OSError:  # a time-out as well
            return None
        return int(NUMBER.unpack(data)[0]) if len(data) == NUMBER.size else None
