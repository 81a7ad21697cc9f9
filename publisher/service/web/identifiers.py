"""Identifiers in requests: a database need not accept every text that is compared with its own."""

from __future__ import annotations

from publisher.errors import printable
from publisher.service.jobs.model import NoSuchJob
from publisher.service.web.problems import BadRequest


def is_identifier(text: str) -> bool:
    """Return whether a text may be sent to the database."""
    return text.isascii() and text.isprintable() and len(text) <= 100


def check_job(text: str) -> None:
    """Raise NoSuchJob if a text cannot be the identifier of a job."""
    if not is_identifier(text):
        raise NoSuchJob(printable(text[:100]))


def check_cursor(text: str) -> None:
    """Raise BadRequest if a text cannot be the identifier of the last item of a page."""
    if not is_identifier(text):
        raise BadRequest(
            "cannot continue the list",
            why="the cursor is not one of this list",
            hint="use `next` of the page before",
            parameter="cursor",
        )
