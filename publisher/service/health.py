"""Liveness and readiness over HTTP, for service managers and load balancers."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from publisher.service.access import Verb
from publisher.service.web.guard import GuardedRoute
from publisher.service.web.problems import RETRY_SECONDS


def health_routes(trouble: Callable[[], str]) -> list[GuardedRoute]:
    """Return `/livez`, which answers as long as the process does, and `/readyz`.

    `/readyz` answers with 503 while the database of jobs cannot be used, or the service ends, with
    the text that `trouble` returns: "" if it is ready. Neither needs a token.
    """

    async def live(request: Request) -> PlainTextResponse:
        return PlainTextResponse("live\n")

    async def ready(request: Request) -> PlainTextResponse:
        found = trouble()
        if not found:
            return PlainTextResponse("ready\n")
        headers = {"Retry-After": RETRY_SECONDS}
        return PlainTextResponse(f"not ready: {found}\n", status_code=503, headers=headers)

    return [
        GuardedRoute("/livez", live, Verb.PROBE),
        GuardedRoute("/readyz", ready, Verb.PROBE),
    ]
