"""The HTTP interface as one Starlette application."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from publisher import __version__
from publisher.service.access import Verb
from publisher.service.login.senders import Senders
from publisher.service.login.sessions import Sessions
from publisher.service.login.tokens import Tokens
from publisher.service.verbs import Reach
from publisher.service.web.answers import Body, answer
from publisher.service.web.audit import Audited, audit_routes
from publisher.service.web.context import Context
from publisher.service.web.guard import Endpoint, Guard, GuardedRoute, failed, guarded
from publisher.service.web.job_pages import JobPages
from publisher.service.web.jobs import job_routes
from publisher.service.web.login import identity_routes, login_routes
from publisher.service.web.openapi import describe
from publisher.service.web.pages import Pages, service_file
from publisher.service.web.problems import BadRequest, NotFound, WrongMethod, problem
from publisher.service.web.projects import Projects
from publisher.service.web.rates import Rates
from publisher.service.web.routes import Route, parse_query
from publisher.service.web.service_pages import problem_page
from publisher.service.web.submissions import Submissions
from publisher.service.web.tokens import token_routes
from publisher.service.web.trees import Trees

_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        b"connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    # With no-referrer, browsers state the origin "null" for the forms of its own pages.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def application(context: Context, others: Sequence[BaseRoute] = ()) -> Starlette:
    """Return the application that answers all requests.

    `others` are further routes, such as those for service managers.

    Raises:
        MissingVerb: A route does not state what its requests do.
    """
    trees = Trees(context)
    projects = Projects(context, trees)
    sessions = Sessions(context.database) if context.database is not None else None
    tokens = Tokens(context.database) if context.database is not None else None
    senders = Senders(context.access, context.now, sessions, tokens)
    routes = [*trees.routes(), *job_routes(context.jobs), *audit_routes(context.audit)]
    routes += [*projects.routes(), *token_routes(context), *identity_routes()]
    entries = [GuardedRoute("/static/{name}", service_file, Verb.PROBE)]
    entries += [GuardedRoute(*each, reach=Reach.OBJECT) for each in projects.pages()]
    if context.jobs is not None:
        submissions = Submissions(context, context.jobs, trees)
        routes = [*submissions.routes(), *routes]
        entries += [
            GuardedRoute(path, page, verb, method, Reach.OBJECT)
            for path, page, verb, method in JobPages(context, context.jobs, submissions).routes()
        ]
    pages = Pages(context, trees)
    description = _description(routes)
    entries += [GuardedRoute("/api/v1/openapi.json", description, Verb.BROWSE)]
    entries += [
        GuardedRoute(each.path, _endpoint(each), each.verb, each.method, each.reach)
        for each in routes
    ]
    entries += [GuardedRoute(path, page, verb) for path, page, verb in pages.routes()]
    entries += [
        GuardedRoute(path, endpoint, Verb.LOGIN, method)
        for path, endpoint, method in login_routes(context, senders)
    ]
    app = Starlette(
        routes=guarded([*others, *entries]),
        exception_handlers={404: _missing, 405: _wrong_method, 400: _missing},
    )
    # Such redirects are answers without the guard, to the host and scheme that the request states:
    # behind a proxy with TLS, clients would repeat their tokens without it.
    app.router.redirect_slashes = False
    app.state.guard = Guard(
        context.access, senders, Rates(context.limits), partial(problem_page, context)
    )
    if context.audit is not None:
        app.add_middleware(Audited, audit=context.audit)
    app.add_middleware(_SecurityHeaders)
    return app


def _endpoint(route: Route) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        values = parse_query(route, request.query_params.multi_items())
        found: Response = await route.handler(request, **request.path_params, **values)
        return found

    return endpoint


def _description(routes: Sequence[Route]) -> Endpoint:
    body = Body.kept(json.dumps(describe(routes, __version__), indent=1).encode())

    async def endpoint(request: Request) -> Response:
        return answer(request, body)

    return endpoint


async def _missing(request: Request, error: Exception) -> Response:
    return failed(
        request,
        NotFound(
            f"cannot find {request.url.path}",
            why="the service has no such URL",
            hint="see /api/v1/openapi.json",
        ),
    )


async def _wrong_method(request: Request, error: Exception) -> Response:
    matching = [
        each.methods or ()
        for each in request.app.routes
        if isinstance(each, GuardedRoute) and each.path_regex.match(request.url.path)
    ]
    allowed = tuple(sorted({method for methods in matching for method in methods}))
    error = WrongMethod(f"cannot {request.method} {request.url.path}", allowed=allowed)
    return failed(request, error)


class _SecurityHeaders:
    """Adds headers that restrict what browsers do with answers; refuses ambiguous requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        names = {name for name, _ in scope.get("headers", ())}
        if {b"content-length", b"transfer-encoding"} <= names:
            # A proxy may take the other one of the two lengths: RFC 9112, 6.1.
            refused = problem(
                BadRequest(
                    "cannot read the request",
                    why="it has Content-Length and Transfer-Encoding",
                    hint="send one of the two headers",
                )
            )
            refused.headers["Connection"] = "close"
            await refused(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)
