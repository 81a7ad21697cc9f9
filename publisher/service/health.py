"""Liveness and readiness over HTTP, for service managers and load balancers."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from publisher.service.access import Verb
from publisher.service.web.guard import GuardedRoute


def health_routes(is_ready: Callable[[], bool]) -> list[GuardedRoute]:
    """Return `/livez`, which answers as long as the process does, and `/readyz`.

    `/readyz` answers with 503 while the database of jobs cannot be reached, or the service ends.
    Neither needs a token.
    """

    async def live(request: Request) -> PlainTextResponse:
        return PlainTextResponse("live\n")

    async def ready(request: Request) -> PlainTextResponse:
        if is_ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready\n", status_code=503)

    return [
        GuardedRoute("/livez", live, Verb.PROBE),
        GuardedRoute("/readyz", ready, Verb.PROBE),
    ]
