"""What ties the log lines of one image together, in all threads that work on it, and log events.

A log record of the publisher may have two attributes beside those of `logging`: `event`, the name
of what happened, and `data`, its details. docs/output.md lists the events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_image: ContextVar[str] = ContextVar("image", default="")


@contextmanager
def logged_image(name: str) -> Iterator[None]:
    """Attribute what this thread logs in the block to the image with that public name."""
    token = _image.set(name)
    try:
        yield
    finally:
        _image.reset(token)


def current_image() -> str:
    """Return the name of the image that this thread works on, or ""."""
    return _image.get()


def in_this_context(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return `function` for another thread, whose log lines belong to this thread's image."""
    context = copy_context()

    def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return context.run(function, *args, **kwargs)

    return run


def event(name: str, **data: object) -> Mapping[str, object]:
    """Return the argument `extra` of a logging call for an event.

    Args:
        name: The event, such as "image-step".
        data: Details in the form of JSON: strings, numbers, and mappings of them. None is left out.
    """
    return {"event": name, "data": {k: value for k, value in data.items() if value is not None}}
