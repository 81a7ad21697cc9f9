"""Runs in the child process of a job, before its command: the command ends if its host dies.

It is started by its path, and so imports nothing else of the publisher.

    python launcher.py PARENT PROGRAM ARGUMENT…
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2); it survives execve(2)


def main() -> None:
    """Replace this process by the command."""
    parent = int(sys.argv[1])
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the call
        sys.exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the host waits for signals with sigwait(3)
    # A host that a script started in the background ignores SIGINT, and its commands would, too.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
