"""Liveness and readiness over HTTP, for service managers and load balancers."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route


def health_routes(is_ready: Callable[[], bool]) -> list[Route]:
    """Return `/livez`, which answers as long as the process does, and `/readyz`.

    `/readyz` answers with 503 while the database of jobs cannot be reached, or the service ends.
    """

    async def live(request: Request) -> PlainTextResponse:
        return PlainTextResponse("live\n")

    async def ready(request: Request) -> PlainTextResponse:
        if is_ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready\n", status_code=503)

    return [Route("/livez", live), Route("/readyz", ready)]
