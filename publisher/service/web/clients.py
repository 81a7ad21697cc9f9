"""Where requests come from."""

from __future__ import annotations

import ipaddress

from starlette.requests import Request

from publisher.service.web.guard import is_proxied


def address_of(request: Request) -> str:
    """Return the network address of the client, for the records of what was requested.

    That of a request which the trusted proxy has sent is the one that the proxy states.
    """
    address = request.client.host if request.client is not None else ""
    if not is_proxied(request):
        return address
    stated = request.headers.getlist("x-forwarded-for")
    last = stated[-1].rpartition(",")[2].strip() if stated else ""
    try:
        return str(ipaddress.ip_address(last))
    except ValueError:
        return address
