"""Errors as answers: application/problem+json, as RFC 9457 describes it, with the remedy."""

from __future__ import annotations

import json
from collections.abc import Callable

from starlette.responses import Response

from publisher.browse.contents import NoContents, NoSuchPath
from publisher.error_values import error_value
from publisher.errors import InvalidReference, PublisherError, explain
from publisher.lazy import pattern
from publisher.repository.errors import RepositoryError
from publisher.repository.published import NotPublished
from publisher.service.access import Forbidden, Unauthorized
from publisher.service.hooks.model import InvalidPayload
from publisher.service.jobs.command import CannotRun
from publisher.service.jobs.model import (
    CannotRetry,
    JobEnded,
    JobsUnavailable,
    KeyReused,
    NoSuchJob,
    QueueFull,
)
from publisher.service.login.flow import LoginFailed
from publisher.service.login.tokens import NoSuchToken, TooManyTokens
from publisher.service.web.answers import HTML
from publisher.service.web.rates import TooManyRequests

MEDIA_TYPE = "application/problem+json"

Page = Callable[[PublisherError, int], bytes]
"""Returns the page about an error with this status, as HTML."""

RETRY_SECONDS = "5"
"""After which a request that is answered with 503 may be sent again, as Retry-After has it."""


class BadRequest(PublisherError):
    """A request is malformed; `parameter` names the part of it."""

    def __init__(self, what: str, *, why: str, hint: str, parameter: str = "") -> None:
        super().__init__(what, why=why, hint=hint)
        self.parameter = parameter


class BodyTooLarge(PublisherError):
    """The body of a request has more bytes than are read."""


class BodyTooSlow(PublisherError):
    """The body of a request does not arrive in time."""


class WrongMediaType(PublisherError):
    """The body of a request is not stated to be JSON, or has an encoding that is not read."""


class Busy(PublisherError):
    """The request cannot be answered at the moment; it may be sent again."""


class NotFound(PublisherError):
    """A URL names nothing that exists."""


class CrossSite(PublisherError):
    """A request that changes something may come from a page of another site."""


class WrongMethod(PublisherError):
    """A URL does not have this method; `allowed` are those that it has."""

    def __init__(self, what: str, *, allowed: tuple[str, ...]) -> None:
        why, hint = "the URL does not have this method", f"use {' or '.join(allowed)}"
        super().__init__(what, why=why, hint=hint)
        self.allowed = allowed


class Unexpected(PublisherError):
    """A request failed by a defect, whose cause is in the log only."""

    def __init__(self) -> None:
        super().__init__(
            "cannot answer the request",
            why="an unexpected error, which the log of the service describes",
            hint="report the traceback in the log as a defect",
        )


_STATUS: tuple[tuple[type[PublisherError], int], ...] = (
    (BadRequest, 400),
    (InvalidReference, 400),
    (Unauthorized, 401),
    (Forbidden, 403),
    (CrossSite, 403),
    (LoginFailed, 403),
    (InvalidPayload, 400),
    (NotFound, 404),
    (NoSuchToken, 404),
    (TooManyTokens, 409),
    (NotPublished, 404),
    (NoSuchPath, 404),
    (NoSuchJob, 404),
    (WrongMethod, 405),
    (NoContents, 409),
    (JobEnded, 409),
    (CannotRetry, 409),
    (BodyTooSlow, 408),
    (BodyTooLarge, 413),
    (WrongMediaType, 415),
    (TooManyRequests, 429),
    (CannotRun, 422),
    (KeyReused, 422),
    (Unexpected, 500),
    (Busy, 503),
    (QueueFull, 503),
    (JobsUnavailable, 503),
)


def status_of(error: PublisherError) -> int:
    """Return the HTTP status of an error; a repository that cannot be read is 503."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 503)


_OF_COMMANDS = pattern(r"\bpublisher [a-z]|\B--[a-z]|\bthe command\b")


def hint_of(error: PublisherError) -> str:
    """Return the hint for a client, which need not have a shell on a host of the service."""
    if not _OF_COMMANDS.search(error.hint):
        return error.hint
    if isinstance(error, RepositoryError) and "--repository" in error.hint:
        return (
            "queue an ingest, which makes the repository, or correct its url in the configuration"
        )
    if isinstance(error, NoSuchPath):
        return "list the root of the image: omit the parameter path"
    return f"on a host of the service: {error.hint}"


def problem_value(error: PublisherError, status: int) -> dict[str, object]:
    """Return the document that describes an error."""
    value = error_value(error)
    return {
        "type": f"urn:publisher:problem:{value['kind']}",
        "title": value["what"],
        "status": status,
        "detail": value["why"],
        "hint": hint_of(error),
        "data": value["data"],
    }


def problem(error: Exception, page: Page | None = None) -> Response:
    """Return the answer to a request that failed with a PublisherError or OSError.

    Without `page`, it is a document for programs.
    """
    known = explain(error)
    status = status_of(known)
    headers = {"Cache-Control": "no-store"}
    if isinstance(known, WrongMethod):
        headers["Allow"] = ", ".join(known.allowed)
    if isinstance(known, Unauthorized):
        error_code = ', error="invalid_token"' if known.is_invalid else ""
        headers["WWW-Authenticate"] = f'Bearer realm="publisher"{error_code}'
    if isinstance(known, TooManyRequests):
        headers["Retry-After"] = str(known.seconds)
    if status == 503:
        headers["Retry-After"] = RETRY_SECONDS
    if page is not None:
        return Response(page(known, status), status, headers | {"Content-Type": HTML})
    body = json.dumps(problem_value(known, status)).encode()
    return Response(body, status, headers, MEDIA_TYPE)


def unexpected(page: Page | None = None) -> Response:
    """Return the answer to a request that failed by a defect, as `problem` does."""
    return problem(Unexpected(), page)
