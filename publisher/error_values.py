"""Errors as JSON values, for documents and for answers of the service."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date

from publisher.codec import camel_case
from publisher.errors import PublisherError, printable
from publisher.lazy import pattern
from publisher.problems import Problem

_MESSAGES = ("what", "why", "hint")
_WORD_START = pattern(r"(?<=.)(?=[A-Z][a-z])")


def error_value(error: PublisherError) -> dict[str, object]:
    """Return the value of "error" in the document `error/1`."""
    return {
        "what": error.what,
        "why": error.why,
        "hint": error.hint,
        "kind": error_kind(type(error)),
        "data": _data(error),
    }


def error_kind(error_class: type[BaseException]) -> str:
    """Return the name of the class in kebab case ("not-published"), or of its first public base."""
    public = next(each for each in error_class.__mro__ if not each.__name__.startswith("_"))
    return _WORD_START.sub("-", public.__name__).lower()


def _data(error: PublisherError) -> dict[str, object]:
    """Return the attributes of `error` that JSON can hold, other than its messages."""
    found = {
        camel_case(name): _json_value(value)
        for name, value in vars(error).items()
        if name not in _MESSAGES and not name.startswith("_")
    }
    return {key: value for key, value in found.items() if value is not None}


def _json_value(value: object) -> object:
    """Return what the schema of `error/1` knows as a JSON value; None for all else.

    That is strings, numbers, days, lists of strings, and the problems of a file.
    """
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return [printable(each) for each in value]
    if isinstance(value, tuple) and all(isinstance(each, Problem) for each in value):
        return [{k: _json_value(v) for k, v in asdict(each).items()} for each in value]
    return None
