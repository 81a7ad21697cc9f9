"""The one check of every request: each route has a verb, which its sender has to be allowed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.service.access import (
    Access,
    Forbidden,
    Identity,
    Unauthorized,
    Verb,
    check,
    identify,
    refusal,
)
from publisher.service.verbs import OPEN, Reach
from publisher.service.web.problems import problem, unexpected

_log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]

_ADMITTED = "publisher.admitted"


@dataclass(slots=True)
class Admitted:
    """A request that the guard has admitted, and whether its endpoint has named the project."""

    identity: Identity
    verb: Verb
    is_decided: bool


@dataclass(frozen=True, slots=True)
class Guard:
    """Decides about requests; `access` returns what is in force, `now` is the clock."""

    access: Callable[[], Access]
    now: Callable[[], datetime]

    def admit(self, request: Request, verb: Verb, reach: Reach = Reach.SERVICE) -> Admitted:
        """Return the sender of the request; raise Unauthorized or Forbidden."""
        if verb in OPEN:
            return Admitted(Identity(""), verb, is_decided=True)
        headers = request.headers.getlist("authorization")
        identity = identify(self.access(), headers, self.now())
        if reach is Reach.SERVICE:
            check(identity, verb)
        elif identity.projects(verb) == frozenset():
            raise refusal(identity, verb)
        return Admitted(identity, verb, is_decided=reach is Reach.SERVICE)


class GuardedRoute(Route):
    """A route of the application, and what its requests do.

    The guard is the attribute `guard` of the state of the application.
    """

    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        verb: Verb,
        method: str = "GET",
        reach: Reach = Reach.SERVICE,
    ) -> None:
        super().__init__(path, _decided(endpoint), methods=[method])
        self.verb = verb
        self.reach = reach

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse before anything of the request has been read."""
        if self.methods and scope["method"] in self.methods:
            guard: Guard = scope["app"].state.guard
            try:
                scope[_ADMITTED] = guard.admit(Request(scope), self.verb, self.reach)
            except PublisherError as error:
                await problem(error)(scope, receive, send)
                return
        await super().handle(scope, receive, send)


def _decided(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint that answers only if it has stated what its request is about."""

    async def checked(request: Request) -> Response:
        try:
            response = await endpoint(request)
        except (Forbidden, Unauthorized) as error:  # raised by `allow`
            return problem(error)
        if response.status_code < 400 and not _admitted(request).is_decided:
            _log.error("%s %s did not check the project", request.method, request.url.path)
            return unexpected()
        return response

    return checked


class MissingVerb(ValueError):
    """A route does not state what its requests do."""


def guarded(routes: Iterable[BaseRoute]) -> list[BaseRoute]:
    """Return the routes; raise MissingVerb if one does not state its verb."""
    found = list(routes)
    for each in found:
        if not (isinstance(each, GuardedRoute) and isinstance(each.verb, Verb)):
            raise MissingVerb(f"the route {getattr(each, 'path', each)} has no verb")
    return found


def _admitted(request: Request) -> Admitted:
    found: Admitted = request.scope[_ADMITTED]
    return found


def identity_of(request: Request) -> Identity:
    """Return the sender of a request that the guard has admitted."""
    return _admitted(request).identity


def allow(request: Request, project: str, verb: Verb | None = None) -> None:
    """Check that the request may do what it does in the project of what it is about.

    Args:
        request: One that the guard has admitted.
        project: The project, or SERVICE for what belongs to none.
        verb: In place of that of the route.

    Raises:
        Forbidden: It may not.
        Unauthorized: It may not, and its sender is not known.
    """
    admitted = _admitted(request)
    check(admitted.identity, verb or admitted.verb, project)
    admitted.is_decided = True


def visible(request: Request) -> frozenset[str] | None:
    """Return the projects whose objects the answer may contain; None for all objects."""
    admitted = _admitted(request)
    admitted.is_decided = True
    return admitted.identity.projects(admitted.verb)
