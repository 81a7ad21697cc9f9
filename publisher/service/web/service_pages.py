"""The parts that all pages of the service have, such as the account, and errors as pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.requests import Request

from publisher.errors import PublisherError, printable
from publisher.service.access import Access, Identity, Means, Verb, may
from publisher.service.login.flow import LoginFailed, is_local
from publisher.service.web.context import Context
from publisher.service.web.forms import form_fields
from publisher.service.web.guard import known_sender
from publisher.service.web.problems import Unexpected, hint_of
from publisher.service.web.rates import TooManyRequests
from publisher.site.rendering import Renderer

LOGIN, LOGOUT, ACCOUNT = "/login", "/logout", "/account"
_RETURN = "publisher.return"
_LONGEST_NAME = 60
_DEEPEST = 32
"""How many directories deep the path of a page is at most: its links repeat `../` so often."""

_MOST_LINKS = 8

_LINKS = (
    (("Jobs", "jobs"), Verb.READ),
    (("Projects", "projects"), Verb.READ),
    (("Add a wish", "new-wish"), Verb.SUBMIT),
)


@cache
def static_files() -> Mapping[str, bytes]:
    """Return the files that pages of the service use beside those of the site."""
    directory = resources.files("publisher.service.web") / "static"
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def service_page(
    context: Context, request: Request, template: str, path: str, **values: object
) -> bytes:
    """Return the HTML of a page of the service itself, which leads to those of repositories.

    Args:
        context: What the interface reads.
        request: The request; the page has links that its sender may follow.
        template: The name of a template of the service or of the site, without its suffix.
        path: The path of the page, which links in it are relative to.
        values: The names that the template uses.
    """
    identity = known_sender(request).identity
    names = [each.name for each in context.trees()] if may(identity, Verb.BROWSE) else []
    shown = [(f"Images of {name}", f"repositories/{name}/index.html") for name in names]
    links = (*shown[:_MOST_LINKS], *service_links(context, identity))
    account = account_of(request, context.access())
    return _renderer(links).render(template, path, account=account, **values)


def service_links(context: Context, identity: Identity) -> Sequence[tuple[str, str]]:
    """Return label and path of the pages of the service that a sender may read."""
    if context.jobs is None:
        return ()
    return [link for link, verb in _LINKS if identity.projects(verb) != frozenset()]


def account_of(request: Request, access: Access) -> Markup:
    """Return the part of a page with the name of the sender, and what signs in or out.

    A page with it is for this sender only.
    """
    identity = known_sender(request).identity
    if not identity.name:
        if access.login is None:
            return Markup("")
        target = f"{LOGIN}?{urlencode({'return': return_path(request)})}"
        return Markup('<p class="account"><a href="{}">Sign in</a></p>').format(target)
    name = printable(identity.name)
    shown = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    link = Markup('<a href="{}"><span class="visually-hidden">Signed in as </span>{}</a>').format(
        ACCOUNT, shown
    )
    if identity.means is not Means.SESSION:
        return Markup('<p class="account">{}</p>').format(link)
    button = Markup('{}<button type="submit">Sign out</button>').format(form_fields(request))
    form = Markup('<form class="account" method="post" action="{}">{}{}</form>')
    return form.format(LOGOUT, link, button)


def remember_return(request: Request, path: str) -> None:
    """State where a login that begins on the page of this request leads back to."""
    request.scope[_RETURN] = path


def return_path(request: Request) -> str:
    """Return the path to which a login leads back that begins on the page of this request."""
    kept: str = request.scope.get(_RETURN, "")
    if kept or request.method not in ("GET", "HEAD"):
        return kept or "/"
    query = request.scope["query_string"].decode("latin-1")
    path = request.scope["path"] + (f"?{query}" if query else "")
    return path if is_local(path) else "/"


def problem_page(context: Context, request: Request, error: PublisherError, status: int) -> bytes:
    """Return the page about an error: what failed, why, and what helps."""
    path: str = request.scope["path"].removeprefix("/")
    if isinstance(error, TooManyRequests | Unexpected):
        depth = min(path.count("/"), _DEEPEST)
        return _plain_page(depth, error.what, error.why, error.hint, status)
    identity = known_sender(request).identity
    access = context.access()
    begins = status == 401 or isinstance(error, LoginFailed) or _is_login(request)
    again = ""
    if begins and access.login is not None and not identity.name:
        again = f"{LOGIN}?{urlencode({'return': return_path(request)})}"
    return service_page(
        context,
        request,
        "problem",
        path,
        error=error,
        status=status,
        hint=hint_of(error),
        again=again,
    )


@lru_cache(maxsize=128)
def _plain_page(depth: int, what: str, why: str, hint: str, status: int) -> bytes:
    """Return a page about an error that costs nearly nothing, and uses nothing that may fail.

    It is without what depends on the sender and on the repositories. `depth` is how many
    directories deep the path of the request is.
    """
    error = PublisherError(what, why=why, hint=hint)
    values = {"error": error, "status": status, "hint": hint, "again": ""}
    return _renderer(()).render("problem", "/" * depth, **values)


def _is_login(request: Request) -> bool:
    path: str = request.scope["path"]
    return path.startswith(LOGIN)


@cache
def _renderer(navigation: tuple[tuple[str, str], ...]) -> Renderer:
    return Renderer(
        "Publisher",
        navigation=navigation,
        home=".",
        templates=resources.files("publisher.service.web") / "templates",
        static=static_files(),
        policy="connect-src 'self'; form-action 'self'",
    )
