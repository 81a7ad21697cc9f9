"""Runs one command, and prints its cost as JSON.

A separate process, since the kernel counts the memory of the process that starts a command as the
command's: this one has very little.
"""

import json
import os
import sys
import time

started = time.monotonic()
silent = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[silent])
_, status, usage = os.wait4(pid, 0)
wall = time.monotonic() - started
if status:
    sys.exit(f"{' '.join(sys.argv[1:])} ended with {os.waitstatus_to_exitcode(status)}")
# Linux counts ru_maxrss in KiB
print(json.dumps([wall, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024]))
