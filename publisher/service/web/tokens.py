"""The routes that create, list and revoke tokens."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from publisher.errors import presentable
from publisher.service.fields import NAME
from publisher.service.jobs.command import CannotRun
from publisher.service.login.tokens import StoredToken, Tokens, token_end, token_value
from publisher.service.projects import SERVICE
from publisher.service.verbs import GRANTED, Reach, Verb
from publisher.service.web.answers import JSON, encode
from publisher.service.web.bodies import read_body
from publisher.service.web.context import Context
from publisher.service.web.guard import allow, identity_of, visible
from publisher.service.web.problems import BadRequest
from publisher.service.web.routes import Route
from publisher.service.web.threads import in_database

BASE = "/api/v1/tokens"
_NO_STORE = {"Cache-Control": "no-store"}
_NAME = rf"\A{NAME}\Z"


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """A requested token, as docs/schemas/token-request-1.schema.json describes it."""

    name: Annotated[str, msgspec.Meta(pattern=_NAME)]
    allows: Annotated[list[str], msgspec.Meta(min_length=1, max_length=len(GRANTED))]
    projects: Annotated[list[str], msgspec.Meta(max_length=1000)] = []
    expires: date | None = None


def token_routes(context: Context) -> tuple[Route, ...]:
    """Return the routes; none without a database."""
    if context.database is None:
        return ()
    return _TokenRoutes(context, Tokens(context.database)).routes()


class _TokenRoutes:
    def __init__(self, context: Context, tokens: Tokens) -> None:
        self._context = context
        self._tokens = tokens

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return (
            Route(
                BASE,
                "listTokens",
                "List the created tokens, without their texts.",
                "tokens-1",
                Verb.ADMINISTER,
                self.list,
                reach=Reach.OBJECT,
            ),
            Route(
                BASE,
                "createToken",
                "Create a token. Only this answer has its text.",
                "token-1",
                Verb.ADMINISTER,
                self.create,
                method="POST",
                body="token-request-1",
                reach=Reach.OBJECT,
            ),
            Route(
                BASE + "/{token}",
                "revokeToken",
                "Revoke a token.",
                "token-1",
                Verb.ADMINISTER,
                self.revoke,
                method="DELETE",
                reach=Reach.OBJECT,
            ),
        )

    async def list(self, request: Request) -> Response:
        """List tokens, all of whose projects the sender administers."""
        projects = visible(request)
        found = await in_database(self._tokens.list)
        shown = [each for each in found if projects is None or _is_within(each, projects)]
        value: dict[str, object] = {"tokens": [token_value(each) for each in shown]}
        return Response(encode("tokens/1", value), 200, _NO_STORE, JSON)

    async def create(self, request: Request) -> Response:
        """Create a token, which allows nothing that its creator is not allowed."""
        body = await read_body(request, TokenBody)
        wrong = next((each for each in body.allows if each not in GRANTED), None)
        if wrong is not None:
            verbs = ", ".join(GRANTED)
            why = f"a token cannot allow {presentable(wrong)}: known are {verbs}"
            raise _refused(why, "allows")
        allows = frozenset(Verb(each) for each in body.allows)
        for project in body.projects or [SERVICE]:
            allow(request, project)
            for verb in allows:
                allow(request, project, verb)
        known = {each.name for each in self._context.access().projects}
        if missing := [each for each in body.projects if each not in known]:
            raise CannotRun(
                "cannot create a token",
                why=f"the configuration has no project {presentable(missing[0])}",
                hint="correct the name, or the configuration of the service",
            )
        now = self._context.now()
        try:
            expires = token_end(body.expires, now)
        except ValueError as error:
            raise _refused(str(error), "expires") from error
        found, text = await in_database(
            self._tokens.create,
            body.name,
            sorted(set(body.projects)),
            allows,
            identity_of(request).label,
            now,
            expires,
            identity_of(request).person,
        )
        value = token_value(found) | {"token": text}
        headers = _NO_STORE | {"Location": f"{BASE}/{found.id}"}
        return Response(encode("token/1", value), 201, headers, JSON)

    async def revoke(self, request: Request, token: str) -> Response:
        """Revoke a token."""
        found = await in_database(self._tokens.get, token[:100])
        for project in found.projects or (SERVICE,):
            allow(request, project)
        await in_database(self._tokens.revoke, found.id)
        return Response(encode("token/1", token_value(found)), 200, _NO_STORE, JSON)


def _is_within(token: StoredToken, projects: frozenset[str]) -> bool:
    return bool(token.projects) and set(token.projects) <= projects


def _refused(why: str, parameter: str) -> BadRequest:
    return BadRequest(
        "cannot create a token", why=why, hint="see /api/v1/openapi.json", parameter=parameter
    )
