"""Send a message to a service that apprise knows.

Apprise runs in a process of its own: its time, its memory and its output are limited whatever a
plugin or a service does. The URL of a service has its password, so that it is passed on stdin.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from publisher.errors import install_hint, printable, shorten
from publisher.notify.model import Message, Service
from publisher.notify.text import body_of, kind_of, title_of

INSTALL = install_hint("notify")
_PROGRAM = Path(__file__).with_name("service_process.py")
_LEAST_SECRET = 3


def send(service: Service, message: Message, seconds: float) -> str:
    """Send a message; return "" if the service confirmed it, else why not, without secrets."""
    request = {
        "url": service.url.value,
        "title": title_of(message.value),
        "body": body_of(message.value),
        "kind": kind_of(message.value),
        "seconds": seconds + 1,
    }
    # -P: the directory in which the publisher runs is not a place to import modules from.
    child = subprocess.Popen(
        [sys.executable, "-P", str(_PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        out, _ = child.communicate(json.dumps(request).encode(), timeout=seconds)
    except subprocess.TimeoutExpired:
        return "it does not answer in time"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
    try:
        why = json.loads(out)["why"]
    except (ValueError, TypeError, KeyError):
        return "apprise ended unexpectedly"
    return shorten(printable(without_secrets(str(why), service.url.value)))


def without_secrets(text: str, url: str) -> str:
    """Return `text` without any part of `url` but its scheme: each may be a token."""
    scheme, _, rest = url.partition("://")
    parts = {*re.split(r"[/:@?&=,;#]+", rest), *re.split(r"[/:@?&=,;#]+", unquote(rest))}
    for part in sorted(parts - {scheme}, key=len, reverse=True):
        if len(part) >= _LEAST_SECRET:
            text = re.sub(re.escape(part), "…", text, flags=re.IGNORECASE)
    return text
