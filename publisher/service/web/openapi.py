"""The description of all routes as an OpenAPI 3.1 document. Pure, apart from the schemas' files."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

from publisher.service.access import ANONYMOUS
from publisher.service.login.senders import COOKIE
from publisher.service.verbs import OPEN, Verb
from publisher.service.web.problems import MEDIA_TYPE
from publisher.service.web.routes import PARTS, Kind, Parameter, Route

_STATUS = {
    "400": "The request is malformed.",
    "401": "The request has no token, or one that is not valid.",
    "429": "There are too many requests; Retry-After states when to send it again.",
    "403": "The token does not allow this.",
    "404": "What the URL names does not exist.",
    "409": "What the URL names is not in a state for this.",
    "503": "The repository, or the database of jobs, cannot be read at the moment.",
}

_WRITE_STATUS = {
    "413": "The body of the request is too large.",
    "415": "The body of the request is not JSON.",
    "422": "The configuration does not have this, or the Idempotency-Key belongs to other work.",
}
_SCHEMES = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of the configuration, a created one, or one of a job of a forge.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "The session of a user who has logged in at /login.",
    },
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "X-CSRF-Token",
        "description": "The text csrf in the answer of /api/v1/identity to the same session.",
    },
}
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key of the same sender again returns the job of the first request.",
    "schema": {"type": "string", "maxLength": 255},
}


def describe(routes: Sequence[Route], version: str) -> dict[str, object]:
    """Return the document; `version` is that of the program."""
    paths: dict[str, Any] = {}
    for route in routes:
        path = re.sub(r":[a-z]+}", "}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    names = {name for route in routes for name in (route.answer, route.body) if name}
    names.add("problem-1")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Publisher", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": {name: _schema(name) for name in sorted(names)},
            "securitySchemes": _SCHEMES,
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    parts = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PARTS[name],
            "schema": {"type": "string", "minLength": 1},
        }
        for name in re.findall(r"{(\w+)(?::\w+)?}", route.path)
    ]
    writes = route.method != "GET"
    errors = {
        status: {
            "description": text,
            "content": {MEDIA_TYPE: {"schema": _reference("problem-1")}},
        }
        for status, text in (_STATUS | (_WRITE_STATUS if writes else {})).items()
    }
    schema = _reference(route.answer) if route.answer else {}
    good = {"description": "The document.", "content": {route.media_type: {"schema": schema}}}
    answers: dict[str, Any] = {"200": good, "304": {"description": "The ETag is current."}}
    if writes and route.answer != "job-1":
        answers = {"201" if route.method == "POST" else "200": good}
    elif writes:
        location = {"description": "The URL of the job.", "schema": {"type": "string"}}
        good |= {"description": "The job.", "headers": {"Location": location}}
        answers = {"200": good, "202": good}
        if route.verb is Verb.SUBMIT:
            parts.append(_IDEMPOTENCY)
    is_open = route.verb in OPEN
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "description": "For each sender." if is_open else f"Needs the verb {route.verb}.",
        "security": _security(route),
        "parameters": parts + [_parameter(each) for each in route.parameters],
        "responses": {**answers, **errors},
    }
    if route.body:
        content = {"application/json": {"schema": _reference(route.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _security(route: Route) -> list[dict[str, list[str]]]:
    """Return by what senders of the request may be known; {} is a request without a sender."""
    if route.method != "GET":
        return [{"token": []}, {"session": [], "csrf": []}]
    found: list[dict[str, list[str]]] = [{"token": []}, {"session": []}]
    # The configuration states what requests without a sender may read.
    return [*found, {}] if route.verb in (*OPEN, *ANONYMOUS) else found


def _reference(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": str(parameter.kind)}
    if parameter.choices:
        schema["enum"] = list(parameter.choices)
    if parameter.kind is Kind.INTEGER:
        schema["minimum"], schema["maximum"] = parameter.bounds
    if parameter.default not in (None, ""):
        schema["default"] = parameter.default
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "schema": schema,
    }


@functools.cache
def _schema(name: str) -> dict[str, Any]:
    """Return a schema of docs/schemas as a component; its references become those of a part."""
    file = resources.files("publisher.service.web") / "schemas" / f"{name}.schema.json"
    text = file.read_text(encoding="utf-8").replace(
        '"#/$defs/', f'"#/components/schemas/{name}/$defs/'
    )
    value = json.loads(text)
    assert isinstance(value, dict)
    del value["$schema"]
    return value
