"""What all forms of pages have."""

from __future__ import annotations

from markupsafe import Markup
from starlette.requests import Request

from publisher.service.web.guard import CSRF_FIELD, csrf_token


def form_fields(request: Request) -> Markup:
    """Return the hidden fields of each form in a page for the sender of the request.

    A page with them is for this sender only.
    """
    token = csrf_token(request)
    if not token:
        return Markup("")
    return Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, token)
