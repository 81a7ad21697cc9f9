"""The process that worker processes are forked from.

It imports everything that unpacking needs, and is never given credentials, bytes of an image or any
other input than these messages:

- on its own socket, one message per worker, with two descriptors: the worker's channel, and its
  *lifeline*. The end of this socket ends this process and all workers.
- on a lifeline, to the publisher: the process ID of the worker or a negative error number; then,
  once the worker has ended, its wait status. From the publisher: the end of the stream, which ends
  the worker.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType

from publisher.errors import is_process_limit
from publisher.sandbox import adopt_orphans, children, end_with_parent
from publisher.workers.frames import NUMBER
from publisher.workers.warm_up import warm_up
from publisher.workers.worker import work

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The publisher receives these as well, and ends its workers in order."""

_CHANNEL = 3
"""The only descriptor of a worker, beside the three standard ones."""


def serve(control: socket.socket) -> None:
    """Fork a worker for each message, until the publisher closes its end."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    adopt_orphans()
    try:
        warm_up()  # otherwise each worker would initialize the same for itself
    except RuntimeError as error:
        if not is_process_limit(error):
            raise  # each worker answers with the limit, or can start its thread by then
    gc.collect()
    gc.freeze()  # so that workers copy less memory
    server = _Server(control)
    try:
        server.run()
    finally:
        server.end_all()


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lifelines: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._wakeup, wakeup = socket.socketpair()
        for end in (self._wakeup, wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(wakeup.detach())
        signal.signal(signal.SIGCHLD, _do_nothing)
        for end in (control, self._wakeup):
            self._poll.register(end, select.POLLIN)

    def run(self) -> None:
        """Serve until the publisher closes its end."""
        while True:
            ready = {descriptor for descriptor, _ in self._poll.poll()}
            if self._wakeup.fileno() in ready:
                self._wakeup.recv(4096)
                self._reap(os.WNOHANG)
            for pid, lifeline in list(self._lifelines.items()):
                if lifeline.fileno() in ready:
                    self._end(pid, lifeline)
            if self._control.fileno() in ready and not self._accept():
                return

    def end_all(self) -> None:
        """End all workers."""
        for pid in self._lifelines:
            os.kill(pid, signal.SIGKILL)
        while self._lifelines:
            self._reap(0)

    def _accept(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, 1, 2)
        if not message:
            return False
        channel, lifeline = (socket.socket(fileno=each) for each in descriptors)
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            _become_worker(channel, parent)
        channel.close()
        self._send(lifeline, pid)
        if pid < 0:
            lifeline.close()
        else:
            self._lifelines[pid] = lifeline
            self._poll.register(lifeline, select.POLLIN)
        return True

    def _end(self, pid: int, lifeline: socket.socket) -> None:
        """End a worker at the end of its lifeline's stream."""
        self._poll.unregister(lifeline)
        os.kill(pid, signal.SIGKILL)  # not reaped yet, so that the number is not used again

    def _reap(self, options: int) -> None:
        while self._lifelines:
            pid, status = os.waitpid(-1, options)
            if not pid:
                return
            lifeline = self._lifelines.pop(pid, None)
            if lifeline is None:
                continue  # a process that a worker had started
            self._end_orphans()
            self._send(lifeline, status)
            with suppress(KeyError):  # the publisher has ended this worker
                self._poll.unregister(lifeline)
            lifeline.close()

    def _end_orphans(self) -> None:
        """End what an ended worker has started, which is possible without a filter of calls."""
        while orphans := children().difference(self._lifelines):
            for pid in orphans:  # not reaped yet, so that the number is not used again
                os.kill(pid, signal.SIGKILL)
            for pid in orphans:
                os.waitpid(pid, 0)

    def _send(self, lifeline: socket.socket, number: int) -> None:
        with suppress(ConnectionError):  # the publisher has ended
            lifeline.send(NUMBER.pack(number))


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Let the signal write to the wake-up descriptor."""


def _become_worker(channel: socket.socket, parent: int) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        end_with_parent(parent)
        os.setsid()
        work(_only_descriptor(channel))
        code = 0
    finally:
        os._exit(code)


def _only_descriptor(channel: socket.socket) -> socket.socket:
    """Close all descriptors but the one of `channel`, and open the null device as 0, 1 and 2."""
    descriptor = channel.detach()
    if descriptor != _CHANNEL:
        os.dup2(descriptor, _CHANNEL)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(_CHANNEL):
        os.dup2(null, number)
    os.closerange(_CHANNEL + 1, os.sysconf("SC_OPEN_MAX"))
    return socket.socket(fileno=_CHANNEL)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    os._exit(0)  # without deleting its objects one by one
