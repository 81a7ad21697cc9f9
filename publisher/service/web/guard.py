"""The one check of every request: each route has a verb, which its sender has to be allowed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from publisher.errors import PublisherError
from publisher.service.access import Access, Identity, Verb, check, identify
from publisher.service.web.problems import problem

Endpoint = Callable[[Request], Awaitable[Response]]

_IDENTITY = "publisher.identity"


@dataclass(frozen=True, slots=True)
class Guard:
    """Decides about requests; `access` returns what is in force, `now` is the clock."""

    access: Callable[[], Access]
    now: Callable[[], datetime]

    def admit(self, request: Request, verb: Verb) -> Identity:
        """Return the sender of the request; raise Unauthorized or Forbidden."""
        if verb is Verb.PROBE:
            return Identity("", frozenset())
        headers = request.headers.getlist("authorization")
        identity = identify(self.access(), headers, self.now())
        check(identity, verb)
        return identity


class GuardedRoute(Route):
    """A route of the application, and what its requests do.

    The guard is the attribute `guard` of the state of the application.
    """

    def __init__(self, path: str, endpoint: Endpoint, verb: Verb, method: str = "GET") -> None:
        super().__init__(path, endpoint, methods=[method])
        self.verb = verb

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse before anything of the request has been read."""
        if self.methods and scope["method"] in self.methods:
            guard: Guard = scope["app"].state.guard
            try:
                scope[_IDENTITY] = guard.admit(Request(scope), self.verb)
            except PublisherError as error:
                await problem(error)(scope, receive, send)
                return
        await super().handle(scope, receive, send)


class MissingVerb(ValueError):
    """A route does not state what its requests do."""


def guarded(routes: Iterable[BaseRoute]) -> list[BaseRoute]:
    """Return the routes; raise MissingVerb if one does not state its verb."""
    found = list(routes)
    for each in found:
        if not (isinstance(each, GuardedRoute) and isinstance(each.verb, Verb)):
            raise MissingVerb(f"the route {getattr(each, 'path', each)} has no verb")
    return found


def identity_of(request: Request) -> Identity:
    """Return the sender of a request that the guard has admitted."""
    found: Identity = request.scope[_IDENTITY]
    return found
