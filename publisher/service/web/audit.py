"""Requests that change something are recorded before they are answered; the record over HTTP."""

from __future__ import annotations

import logging
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from publisher.errors import printable
from publisher.service.access import Verb
from publisher.service.audit import Audit
from publisher.service.hooks.authentication import recorded_path
from publisher.service.jobs.model import JobsUnavailable
from publisher.service.web.answers import Body, answer, encode
from publisher.service.web.clients import address_of
from publisher.service.web.guard import client_of, is_admitted, sender_of
from publisher.service.web.identifiers import check_cursor
from publisher.service.web.routes import Kind, Parameter, Route
from publisher.service.web.threads import in_database
from publisher.times import format_time

_log = logging.getLogger(__name__)

_READS = ("GET", "HEAD", "OPTIONS")
_NOT_RECORDED = (401, 404, 405, 429)
"""Anyone can cause these answers, as often as the rate limits allow: they are logged at most."""

_OF_UNKNOWN = (202, 403)
"""The answers to senders without a name that are recorded: accepted webhooks, and forms of other
sites. The others, such as those to webhooks before their signature is checked, need no secret."""


class Audited:
    """Records requests that change something in `audit`."""

    def __init__(self, app: ASGIApp, audit: Audit) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["method"] in _READS:
            await self._app(scope, receive, send)
            return

        async def send_recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                await _record(self._audit, Request(scope), int(message["status"]))
            await send(message)

        await self._app(scope, receive, send_recorded)


async def _record(audit: Audit, request: Request, status: int) -> None:
    sender = sender_of(request)
    if status in _NOT_RECORDED or not (sender or status in _OF_UNKNOWN):
        return
    address = address_of(request) if is_admitted(request) else client_of(request)
    path = printable(recorded_path(request.url.path))
    try:
        await in_database(audit.add, sender, address, request.method, path, status)
    except JobsUnavailable as error:
        text = "not in the audit log: %s %s by %s from %s: %d (%s)"
        _log.warning(text, request.method, path, sender, address, status, error)


def audit_routes(audit: Audit | None) -> tuple[Route, ...]:
    """Return the route that lists the audit log; none without one."""
    if audit is None:
        return ()

    async def entries(request: Request, limit: int, cursor: str) -> Response:
        check_cursor(cursor)
        found = await in_database(audit.list, cursor, limit + 1)
        shown = found[:limit]
        values = [asdict(each) | {"time": format_time(each.time)} for each in shown]
        following = shown[-1].id if len(found) > limit else None
        body = encode("audit/1", {"entries": values, "next": following})
        return answer(request, Body.of(body))

    return (
        Route(
            "/api/v1/audit",
            "listAudit",
            "List the requests that changed something, or were refused, the newest first.",
            "audit-1",
            Verb.ADMINISTER,
            entries,
            (
                Parameter(
                    "limit", "How many a page has.", Kind.INTEGER, default=100, bounds=(1, 500)
                ),
                Parameter("cursor", "`next` of the page before.", default=""),
            ),
        ),
    )
