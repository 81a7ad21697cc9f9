"""Where requests come from."""

from __future__ import annotations

from starlette.requests import Request


def address_of(request: Request) -> str:
    """Return the network address of the client, for the records of what was requested."""
    return request.client.host if request.client is not None else ""
