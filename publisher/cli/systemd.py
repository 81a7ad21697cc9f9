"""Messages to systemd, for commands that run as its services."""

from __future__ import annotations

import os
import socket


def notify_systemd(state: str) -> None:
    """Report a state to systemd, if it waits for one (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.connect("\0" + address[1:] if address.startswith("@") else address)
            notify.send(state.encode())
