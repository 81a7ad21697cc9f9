"""A route of the REST interface, its parameters, and how they are parsed. Pure.

From the table of routes come the dispatch of requests and their description (openapi.py).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

from publisher.lazy import dataclass
from publisher.service.access import Verb
from publisher.service.verbs import Reach
from publisher.service.web.problems import BadRequest

_LONGEST = 4096


class Kind(enum.StrEnum):
    """The type of a parameter, as JSON Schema names it."""

    STRING = "string"
    INTEGER = "integer"
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query.

    Attributes:
        choices: The values that it may have; any if empty.
        default: The value without it.
        bounds: The least and the largest integer.
        longest: How many characters a string has at most.
    """

    name: str
    description: str
    kind: Kind = Kind.STRING
    choices: tuple[str, ...] = ()
    default: str | int | None = None
    bounds: tuple[int, int] = (0, 2**53)
    longest: int = _LONGEST

    def parse(self, text: str) -> str | int | bool:
        """Return the value; raise BadRequest."""
        if self.kind is Kind.STRING:
            if len(text) <= self.longest and (not self.choices or text in self.choices):
                return text
            raise self._refused(f"one of {', '.join(self.choices)}" if self.choices else "shorter")
        if self.kind is Kind.BOOLEAN:
            if text in ("true", "false"):
                return text == "true"
            raise self._refused("true or false")
        least, largest = self.bounds
        if text.isascii() and text.isdigit() and len(text) < 17 and least <= int(text) <= largest:
            return int(text)
        raise self._refused(f"an integer from {least} to {largest}")

    def _refused(self, wanted: str) -> BadRequest:
        return BadRequest(
            f"cannot use the parameter {self.name}",
            why=f"its value has to be {wanted}",
            hint="see /api/v1/openapi.json",
            parameter=self.name,
        )


Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one URL.

    Attributes:
        path: With the names of its parts in braces; `{name:path}` also matches slashes.
        operation: A unique name, for generated clients.
        summary: One sentence.
        answer: The schema of the answer: a file of docs/schemas without its suffix; "" for text.
        verb: What its requests do, which their sender has to be allowed.
        handler: Called with the request and the values of all parameters.
        parameters: Those of the query.
        media_type: That of the answer.
        method: GET, or POST or DELETE for requests that change something.
        body: The schema of the body of requests, as `answer`; "" without one.
        reach: Where its sender has to be allowed the verb.
    """

    path: str
    operation: str
    summary: str
    answer: str
    verb: Verb
    handler: Callable[..., Any]
    parameters: Sequence[Parameter] = ()
    media_type: str = "application/json"
    method: str = "GET"
    body: str = ""
    reach: Reach = Reach.SERVICE


PARTS = {
    "repository": "The name of a repository in the configuration.",
    "name": "A published name, or an image reference. Slashes may be written as %2F.",
    "digest": "The digest of a layer.",
    "job": "The identifier of a job.",
    "token": "The identifier of a token, not its text.",
}
"""What the parts of paths are."""


def parse_query(route: Route, items: Sequence[tuple[str, str]]) -> Values:
    """Return the values of the route's parameters.

    Raises:
        BadRequest: A parameter is unknown, repeated or malformed.
    """
    known = {each.name: each for each in route.parameters}
    values: Values = {}
    for name, text in items:
        if name not in known or name in values:
            raise BadRequest(
                f"cannot use the parameter {name[:100]}",
                why="it is given twice" if name in values else "this URL has no such parameter",
                hint="see /api/v1/openapi.json",
                parameter=name[:100],
            )
        values[name] = known[name].parse(text)
    return {each.name: each.default for each in route.parameters} | values
