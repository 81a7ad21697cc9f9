"""The routes with which people log in and out, and one that states the sender of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from publisher.lazy import dataclass
from publisher.service.access import Access, Identity, Means, Verb
from publisher.service.login.flow import CALLBACK, Attempt, authorization_url, finish
from publisher.service.login.senders import COOKIE, Senders
from publisher.service.login.sessions import Sessions
from publisher.service.providers import Login
from publisher.service.verbs import role_of
from publisher.service.web.answers import HTML, JSON, encode
from publisher.service.web.context import Context
from publisher.service.web.guard import Endpoint, cookie_values, csrf_token, identity_of
from publisher.service.web.problems import Busy, NotFound
from publisher.service.web.routes import Route
from publisher.service.web.service_pages import (
    ACCOUNT,
    LOGOUT,
    remember_return,
    service_page,
)
from publisher.service.web.threads import in_database

_ATTEMPT = "__Host-publisher-login"
_ATTEMPT_SECONDS = 600
_MOST = 10
_MOST_THREADS = 4
_MOST_AT_ONCE = 44
"""How many logins ask the identity provider, or wait for a thread: anyone can begin one."""

_T = TypeVar("_T")
_NO_STORE = {"Cache-Control": "no-store"}
_MEANS = {
    Means.ANONYMOUS: "",
    Means.TOKEN: "The request has a token.",
    Means.SESSION: "Signed in at the identity provider.",
    Means.PROXY: "Identified by the proxy in front of the service.",
    Means.JOB: "The request has a token of a job of a forge.",
}


def login_routes(context: Context, senders: Senders) -> list[tuple[str, Endpoint, str]]:
    """Return paths, their endpoints and methods."""
    routes = _LoginRoutes(context, senders)
    return [
        ("/login", routes.begin, "GET"),
        (CALLBACK, routes.finish, "GET"),
        (LOGOUT, routes.end, "POST"),
        (ACCOUNT, routes.account, "GET"),
    ]


def identity_routes() -> tuple[Route, ...]:
    """Return the route that states the sender of a request."""
    return (
        Route(
            "/api/v1/identity",
            "showIdentity",
            "Show the sender of the request: how it is known, and what it may do where.",
            "identity-1",
            Verb.LOGIN,
            _identity,
        ),
    )


async def _identity(request: Request) -> Response:
    found = identity_of(request)
    value: dict[str, object] = {
        "name": found.name,
        "means": str(found.means),
        "grants": [
            {"project": each.project, "role": each.role or None, "verbs": list(each.verbs)}
            for each in _granted(found)
        ],
    }
    if csrf := csrf_token(request):
        value["csrf"] = csrf
    return Response(encode("identity/1", value), 200, _NO_STORE, JSON)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a sender may do in a project, "" for all; `role` is the role that allows it, or ""."""

    project: str
    role: str
    verbs: tuple[str, ...]


def _granted(identity: Identity) -> tuple[Grant, ...]:
    return tuple(
        Grant(project, str(role_of(verbs) or ""), tuple(sorted(verbs)))
        for project, verbs in sorted(identity.grants.items())
    )


class _LoginRoutes:
    def __init__(self, context: Context, senders: Senders) -> None:
        self._context = context
        self._senders = senders
        self._limiter: anyio.CapacityLimiter | None = None
        self._asking = 0

    async def _ask(self, call: Callable[[], _T]) -> _T:
        """Return the result of a call that asks the provider.

        It has threads of its own: while a provider does not answer, other requests are answered.
        """
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(_MOST_THREADS)
        if self._asking >= _MOST_AT_ONCE:
            raise Busy(
                "cannot log in",
                why="many logins wait for the identity provider",
                hint="begin again in a moment: /login",
            )
        self._asking += 1
        try:
            return await anyio.to_thread.run_sync(call, limiter=self._limiter)
        finally:
            self._asking -= 1

    def _configured(self) -> tuple[Access, Login, Sessions]:
        access, sessions = self._context.access(), self._senders.sessions
        if access.login is None or sessions is None:
            raise NotFound(
                "cannot log in",
                why="the configuration of the service has no login",
                hint="use a token: see docs/service.md",
            )
        return access, access.login, sessions

    async def begin(self, request: Request) -> Response:
        """Lead to the identity provider."""
        access, login, _ = self._configured()
        attempt = Attempt.begin(request.query_params.get("return", "/"))
        remember_return(request, attempt.path)
        keys = self._senders.keys(login.provider)
        url = await self._ask(lambda: authorization_url(login, keys, access.url, attempt))
        answer = RedirectResponse(url, 303, _NO_STORE)
        _set(answer, _ATTEMPT, attempt.cookie, _ATTEMPT_SECONDS)
        return answer

    async def finish(self, request: Request) -> Response:
        """Begin a session, and return to the page from which the login began.

        The cookie is a new one: one that the browser had before, of whatever origin, is replaced.
        """
        access, login, sessions = self._configured()
        cookies = cookie_values(request, _ATTEMPT)
        attempt = Attempt.parse(cookies[0]) if len(cookies) == 1 else None
        remember_return(request, attempt.path if attempt else "/")
        items = request.query_params.multi_items()
        # A parameter that is given twice is not one of the answer.
        given = dict(items) if len(dict(items)) == len(items) <= _MOST else {}
        keys = self._senders.keys(login.provider)
        person = await self._ask(lambda: finish(login, keys, access.url, attempt, given))
        for old in cookie_values(request, COOKIE):
            await in_database(sessions.end, old)
        now = self._context.now()
        cookie = await in_database(sessions.begin, person, now, login.session)
        answer = RedirectResponse(attempt.path if attempt else "/", 303, _NO_STORE)
        _set(answer, COOKIE, cookie, int(login.session.total_seconds()))
        _set(answer, _ATTEMPT, "", 0)
        return answer

    async def end(self, request: Request) -> Response:
        """End the session."""
        if self._senders.sessions is not None:
            for cookie in cookie_values(request, COOKIE)[:_MOST]:
                await in_database(self._senders.sessions.end, cookie)
        # Not a page that needs a login: the provider would log the user in again.
        answer = RedirectResponse(ACCOUNT, 303, _NO_STORE)
        _set(answer, COOKIE, "", 0)
        return answer

    async def account(self, request: Request) -> Response:
        """Show the sender of the request, and what it may do where."""
        remember_return(request, "/")
        found = identity_of(request)
        path = ACCOUNT.removeprefix("/")
        body = service_page(
            self._context,
            request,
            "account",
            path,
            identity=found,
            means=_MEANS[found.means],
            grants=_granted(found),
        )
        return Response(body, 200, _NO_STORE, HTML)


def _set(answer: Response, name: str, value: str, seconds: int) -> None:
    """Set a cookie that scripts cannot read, and other sites do not send with forms."""
    answer.set_cookie(
        name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax"
    )
