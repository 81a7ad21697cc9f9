"""What all forms of pages have."""

from __future__ import annotations

from markupsafe import Markup
from starlette.requests import Request


def form_fields(request: Request) -> Markup:
    """Return the hidden fields of each form in a page for the sender of the request."""
    return Markup("")
