"""The process in which apprise sends one message: reads a request on stdin, and prints the result.

It is started by its path, and so imports nothing else of the publisher.

The request is a JSON object with url, title, body, kind and seconds; the result has why, which is
"" after a success.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import resource
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)
_MOST_MEMORY = 512 * 2**20


def main() -> None:
    """Send the message, within the limits of time and memory."""
    request = json.load(sys.stdin)
    # A message that arrives after the publisher was killed would be sent again by the next run.
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    # The default action of SIGALRM ends this process.
    signal.setitimer(signal.ITIMER_REAL, request["seconds"])
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    # What plugins print must not be taken for the result.
    result = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump({"why": _send(request)}, result)
    result.close()


def _send(request: dict[str, str]) -> str:
    import apprise

    logged = _Logged()
    for name in ("apprise", ""):
        logging.getLogger(name).handlers[:] = [logged]
    asset = apprise.AppriseAsset(
        app_id="publisher", app_desc="publisher", app_url="", async_mode=False, http_redirects=False
    )
    service = apprise.Apprise.instantiate(request["url"], asset=asset, suppress_exceptions=True)
    if service is None:
        return logged.last or "apprise does not know this service"
    sender = apprise.Apprise(asset=asset)
    sender.add(service)
    sent = sender.notify(
        body=request["body"],
        title=request["title"],
        notify_type=apprise.NotifyType(request["kind"]),
        body_format=apprise.NotifyFormat.TEXT,
    )
    return "" if sent else logged.last or "apprise names no reason"


class _Logged(logging.Handler):
    """Keeps the last warning that apprise logs, which is the reason of a failure."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


if __name__ == "__main__":
    main()
