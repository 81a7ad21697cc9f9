"""The one check of every request: each route has a verb, which its sender has to be allowed."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from urllib.parse import parse_qs, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.service.access import (
    Access,
    Forbidden,
    Identity,
    Unauthorized,
    Verb,
    anonymous,
    check,
    refusal,
)
from publisher.service.hooks.authentication import recorded_path
from publisher.service.login.senders import COOKIE, Sender, Senders
from publisher.service.verbs import UNKNOWN, Reach
from publisher.service.web.bodies import MAX_BYTES, read_bytes
from publisher.service.web.problems import (
    BodyTooLarge,
    BodyTooSlow,
    CrossSite,
    Page,
    WrongMediaType,
    problem,
    unexpected,
)
from publisher.service.web.rates import Rates
from publisher.service.web.threads import in_database

_log = logging.getLogger(__name__)

CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"
_SAFE = ("GET", "HEAD")
_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 1000
_BODY = "publisher.body"
_DOCUMENTS = "/api/"
"""With which the paths begin whose answers are for programs."""

Endpoint = Callable[[Request], Awaitable[Response]]
ErrorPage = Callable[[Request, PublisherError, int], bytes]

_ADMITTED = "publisher.admitted"
_SENDER = "publisher.sender"


@dataclass(slots=True)
class Admitted:
    """A request that the guard has admitted, and whether its endpoint has named the project."""

    sender: Sender
    verb: Verb
    is_decided: bool

    @property
    def identity(self) -> Identity:
        """The sender as an identity."""
        return self.sender.identity


@dataclass(frozen=True, slots=True)
class Guard:
    """Decides about requests; `access` returns what is in force.

    `page` returns the page about an error with this status, for browsers.
    """

    access: Callable[[], Access]
    senders: Senders
    rates: Rates
    page: ErrorPage

    async def admit(self, request: Request, verb: Verb, reach: Reach = Reach.SERVICE) -> Admitted:
        """Return the sender of the request; raise Unauthorized, Forbidden or CrossSite."""
        if verb in UNKNOWN:
            return Admitted(Sender(Identity("")), verb, is_decided=True)
        sender = await self.sender(request)
        identity = sender.identity
        request.scope[_SENDER] = sender  # for the audit log and pages, until it is admitted
        if sender.csrf and request.method not in _SAFE:
            await _check_origin(request, self.access().url, sender.csrf)
        if reach is Reach.SERVICE:
            check(identity, verb)
        elif identity.projects(verb) == frozenset():
            raise refusal(identity, verb)
        return Admitted(sender, verb, is_decided=reach is Reach.SERVICE)

    async def sender(self, request: Request) -> Sender:
        """Return the sender of a request, as `Senders.sender` does."""
        headers = request.headers
        cookies = cookie_values(request, COOKIE)
        address = client_of(request)
        if not (cookies or self.access().proxy or "authorization" in headers):
            return Sender(anonymous(self.access()))
        if self.senders.reads_database(headers, cookies):
            return await in_database(self.senders.sender, headers, cookies, address)
        return await run_in_threadpool(self.senders.sender, headers, cookies, address)


def client_of(request: Request) -> str:
    """Return the network address of the client itself, which may be a proxy."""
    return request.client.host if request.client is not None else ""


def cookie_values(request: Request, name: str) -> list[str]:
    """Return the values of all cookies of this name: two of them are not one of this service."""
    texts = ";".join(request.headers.getlist("cookie")).split(";")
    pairs = (text.strip().partition("=") for text in texts)
    return [value for key, _, value in pairs if key == name]


async def _check_origin(request: Request, url: str, csrf: str) -> None:
    """Raise CrossSite unless a page of this service has sent the request.

    Browsers send by themselves what identifies the sender, also with requests of other sites.
    """
    site = request.headers.getlist("sec-fetch-site")
    if site and site != ["same-origin"]:
        raise _cross_site("a page of another site has sent it")
    origin = request.headers.getlist("origin")
    if origin and (len(origin) != 1 or not url or origin[0] != url):
        raise _cross_site("a page of another origin has sent it")
    given = request.headers.getlist(CSRF_HEADER)
    if not given and request.headers.get("content-type", "").partition(";")[0] == _FORM:
        try:
            fields = parse_qs(await _body(request), max_num_fields=_MOST_FIELDS)
        except ValueError as error:
            raise _cross_site("its form has too many fields") from error
        given = fields.get(CSRF_FIELD, [])
    if len(given) != 1 or not hmac.compare_digest(given[0].encode(), csrf.encode()):
        raise _cross_site("it does not have the text that the pages of the service have for it")


async def _body(request: Request) -> str:
    """Return the body of a form; the endpoint can read it, too."""
    try:
        body = await read_bytes(request, MAX_BYTES)
    except (BodyTooLarge, BodyTooSlow, WrongMediaType) as error:
        raise _cross_site(f"its form cannot be read: {error.why}") from error
    request.scope[_BODY] = body
    return body.decode("latin-1")


def _cross_site(why: str) -> CrossSite:
    hint = "load the page of the service again, and retry; programs send a token"
    return CrossSite("cannot answer the request", why=why, hint=hint)


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
                admitted = await self._admit(guard, Request(scope, receive))
            except PublisherError as error:
                await _refusal(error, Request(scope), guard.access())(scope, receive, send)
                return
            except Exception as error:  # noqa: BLE001 - the last resort: it ends one request only
                await _failure(error, Request(scope))(scope, receive, send)
                return
            scope[_ADMITTED] = admitted
            if _BODY in scope:
                receive = _again(scope[_BODY])
        await super().handle(scope, receive, send)

    async def _admit(self, guard: Guard, request: Request) -> Admitted:
        """Return the sender of a request that may be answered now."""
        address = client_of(request)
        is_changing = request.method not in _SAFE and self.verb is not Verb.NOTIFY
        if self.verb is not Verb.PROBE:
            guard.rates.arrived(address)
        try:
            admitted = await guard.admit(request, self.verb, self.reach)
        except Unauthorized as error:
            if error.is_invalid:
                guard.rates.refused(address)
            raise
        except (Forbidden, CrossSite) as error:
            if is_changing:  # it is recorded: the audit log keeps a limited number
                guard.rates.changing(error.name if isinstance(error, Forbidden) else "", address)
            raise
        if is_changing:
            guard.rates.changing(admitted.identity.label, address)
        return admitted


def _refusal(error: PublisherError, request: Request, access: Access) -> Response:
    """Return the answer to a request that is not admitted: browsers are led to the login."""
    is_page = wants_page(request) and request.method == "GET"
    if isinstance(error, Unauthorized) and not error.is_invalid and is_page and access.login:
        query = request.scope["query_string"].decode("latin-1")
        path = request.scope["path"] + (f"?{query}" if query else "")
        target = f"/login?{urlencode({'return': path})}"
        return RedirectResponse(target, 303, {"Cache-Control": "no-store"})
    return failed(request, error)


def wants_page(request: Request) -> bool:
    """Return whether an error is answered by a page: a browser shows the answer."""
    is_document = request.scope["path"].startswith(_DOCUMENTS)
    return not is_document and "text/html" in request.headers.get("accept", "")


def failed(request: Request, error: PublisherError | OSError) -> Response:
    """Return the answer to a request that failed with an error."""
    return problem(error, _page(request))


def _page(request: Request) -> Page | None:
    """Return what makes the page about an error; None if the answer is a document."""
    if not wants_page(request):
        return None
    guard: Guard = request.app.state.guard
    return partial(guard.page, request)


def _failure(error: Exception, request: Request) -> Response:
    """Return the answer to a request that failed; what is not expected is in the log."""
    if isinstance(error, PublisherError | OSError):
        return failed(request, error)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)
    path = recorded_path(request.url.path)
    _log.error("unexpected error at %s %s", request.method, path, exc_info=error)
    return unexpected(_page(request))


def _again(body: bytes) -> Receive:
    """Return what gives the body of a request once more."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return receive


def _decided(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint whose errors are answers, and that has stated what its request is about.

    Otherwise it does not answer.
    """

    async def checked(request: Request) -> Response:
        try:
            response = await endpoint(request)
        except Exception as error:  # noqa: BLE001 - the last resort: it ends one request only
            return _failure(error, request)
        if response.status_code < 400 and not _admitted(request).is_decided:
            _log.error("%s %s did not check the project", request.method, request.url.path)
            return unexpected(_page(request))
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


def csrf_token(request: Request) -> str:
    """Return what a form on a page for this sender has in its field CSRF_FIELD; "" for nothing."""
    return known_sender(request).csrf


def is_proxied(request: Request) -> bool:
    """Return whether the trusted proxy has sent the request."""
    return _admitted(request).sender.is_proxied


def sender_of(request: Request) -> str:
    """Return the name of the sender, also if the guard has refused the request; "" if unknown."""
    return known_sender(request).identity.label


def known_sender(request: Request) -> Sender:
    """Return the sender, also of a refused request; one without a name if it is not known."""
    if is_admitted(request):
        return _admitted(request).sender
    found: Sender = request.scope.get(_SENDER, Sender(Identity("")))
    return found


def is_admitted(request: Request) -> bool:
    """Return whether the guard has admitted the request."""
    return _ADMITTED in request.scope


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


async def check_again(request: Request, project: str) -> None:
    """Check that the sender of a request may still do what it does: an answer may take hours.

    Tokens, sessions and roles are those of now.

    Raises:
        Forbidden: It may not any more.
        Unauthorized: The token has expired, or was revoked; or the session has ended.
        PublisherError: It cannot be found out.
    """
    guard: Guard = request.app.state.guard
    sender = await guard.sender(request)
    check(sender.identity, _admitted(request).verb, project)


def visible(request: Request) -> frozenset[str] | None:
    """Return the projects whose objects the answer may contain; None for all objects."""
    admitted = _admitted(request)
    admitted.is_decided = True
    return admitted.identity.projects(admitted.verb)
