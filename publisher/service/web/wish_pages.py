"""The page that checks a new wish, and shows the lines to add to its list and where.

Nothing is changed: the list is edited at its forge, by a user who has access there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import field, replace

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from publisher.lazy import dataclass
from publisher.service.access import may
from publisher.service.configuration import ListConfiguration, RepositoryConfiguration
from publisher.service.projects import Project
from publisher.service.verbs import Reach, Verb
from publisher.service.web.answers import HTML
from publisher.service.web.bodies import read_form
from publisher.service.web.context import Context
from publisher.service.web.forms import form_fields
from publisher.service.web.guard import GuardedRoute, allow, identity_of, visible
from publisher.service.web.problems import Busy, NotFound
from publisher.service.web.service_pages import service_page
from publisher.service.wishes import (
    InvalidWish,
    NewWish,
    edit_address,
    is_permitted,
    read_wish,
    same_wish,
)
from publisher.sizes import human_size
from publisher.sources.git import parse_git_location
from publisher.wishlist import WishListError
from publisher.wishlist.model import Wish

PATH = "new-wish"
_FIELDS = ("image", "platforms", "note")
_AT_ONCE = 2
"""How many checks run at the same time."""


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check has found."""

    level: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a check; sizes are in bytes, or None if they are not known."""

    findings: tuple[Finding, ...]
    size: int | None = None
    new: int | None = None

    @property
    def is_good(self) -> bool:
        """Whether the wish may be added."""
        return all(each.level != "error" for each in self.findings)


@dataclass(frozen=True, slots=True)
class WishTools:
    """What the page uses.

    Attributes:
        wishes: Returns the wishes of the list at a source; raises WishListError.
        check: Checks a list with one new wish for a list of a repository: asks its registry.
    """

    wishes: Callable[[str], Sequence[Wish]]
    check: Callable[[RepositoryConfiguration, ListConfiguration, str], Checked]


@dataclass(frozen=True, slots=True)
class WishPage:
    """The page. `chosen` is the value of a list in the form, and `checked` is None before a check.

    Attributes:
        lists: Value and label of each list.
        values: The values of the other fields.
        fields: Hidden fields of the form.
        problem: A mistake in the form, or None.
        size: What the image needs, as text.
        lines: The lines to add.
        source: Where the list is.
        edit: The page of the forge that edits the list, or "".
        note: Why the registry was not asked, or what the check leaves open; or "".
    """

    lists: tuple[tuple[str, str], ...]
    chosen: str
    values: dict[str, str]
    fields: Markup
    problem: InvalidWish | None = None
    checked: Checked | None = None
    size: str = ""
    lines: tuple[str, ...] = ()
    source: str = ""
    edit: str = ""
    note: str = ""


def wish_routes(context: Context, tools: WishTools) -> list[GuardedRoute]:
    """Return the routes of the page: it is for users with the verb submit."""
    pages = _WishPages(context, tools)
    return [
        GuardedRoute(f"/{PATH}", page, Verb.SUBMIT, method, Reach.OBJECT)
        for page, method in ((pages.show, "GET"), (pages.check, "POST"))
    ]


@dataclass(slots=True)
class _WishPages:
    context: Context
    tools: WishTools
    checks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    async def show(self, request: Request) -> Response:
        """Show the empty form."""
        visible(request)
        lists = self._lists(request)
        chosen = request.query_params.get("list", lists[0][0] if lists else "")
        empty = dict.fromkeys(_FIELDS, "")
        return self._answer(request, WishPage(lists, chosen, empty, form_fields(request)))

    async def check(self, request: Request) -> Response:
        """Check the wish of the form, and show the result."""
        form = await read_form(request)
        chosen = form.get("list", "")
        repository, wish_list = self._list(request, chosen)
        values = {key: form.get(key, "") for key in _FIELDS}
        page = WishPage(self._lists(request), chosen, values, form_fields(request))
        try:
            wish = read_wish(values)
        except InvalidWish as error:
            return self._answer(request, replace(page, problem=error), 400)
        if self.checks.locked():
            raise Busy(
                "cannot check the wish",
                why=f"{_AT_ONCE} other checks are running",
                hint="send the form again",
            )
        async with self.checks:
            page = await run_in_threadpool(self._checked, page, repository, wish_list, wish)
        return self._answer(request, page)

    def _checked(
        self,
        page: WishPage,
        repository: RepositoryConfiguration,
        wish_list: ListConfiguration,
        wish: NewWish,
    ) -> WishPage:
        """Return the page with the result."""
        wishes = self._wishes(wish_list)
        project = self._project(wish_list)
        page = _with_place(page, wish, wish_list.source)
        refused = _refusal(wish, wishes, project)
        if refused is not None:
            return replace(page, checked=Checked((refused,)))
        # Without registries of the project, a form could have requests sent to any host.
        is_stated = project is not None and bool(project.registries)
        if not (is_stated or is_permitted(wish.image, wishes)):
            note = (
                f"No wish of the list names the registry {wish.image.registry}, so that it is not "
                "asked from here. The check of the change at its forge asks it."
            )
            return replace(page, note=note)
        checked = self.tools.check(repository, wish_list, wish.document)
        if not checked.is_good:
            return replace(page, checked=checked)
        return replace(page, checked=checked, size=_size(checked), note=_note_on_quota(project))

    def _wishes(self, wish_list: ListConfiguration) -> Sequence[Wish]:
        try:
            return self.tools.wishes(wish_list.source)
        except WishListError as error:
            _log.warning("cannot check a wish: %s", error)
            raise Busy(
                "cannot check the wish",
                why=f"the list {wish_list.name} cannot be read at the moment",
                hint="send the form again later",
            ) from error

    def _project(self, wish_list: ListConfiguration) -> Project | None:
        projects = self.context.access().projects
        return next((each for each in projects if each.name == wish_list.project), None)

    def _lists(self, request: Request) -> tuple[tuple[str, str], ...]:
        """Return the lists whose jobs the sender of the request may queue."""
        identity = identity_of(request)
        return tuple(
            (f"{repository.name}/{each.name}", f"{each.name}, for {repository.name}")
            for repository in self.context.repositories()
            for each in repository.lists
            if may(identity, Verb.SUBMIT, each.project)
        )

    def _list(
        self, request: Request, chosen: str
    ) -> tuple[RepositoryConfiguration, ListConfiguration]:
        name, _, wish_list = chosen.partition("/")
        for repository in self.context.repositories():
            found = repository.list_named(wish_list)
            if repository.name == name and found is not None:
                allow(request, found.project)
                return repository, found
        raise NotFound(
            "cannot find the wish list",
            why="the configuration has no list of this name",
            hint=f"begin at /{PATH}",
        )

    def _answer(self, request: Request, page: WishPage, status: int = 200) -> Response:
        headers = {"Cache-Control": "no-store", "Vary": "Authorization, Cookie"}
        headers["Content-Type"] = HTML
        body = service_page(self.context, request, "wish", PATH, page=page)
        return Response(body, status, headers)


def _with_place(page: WishPage, wish: NewWish, source: str) -> WishPage:
    """Add the lines, and where the list is edited; a path of the host is not shown."""
    page = replace(page, lines=tuple(wish.lines.splitlines()))
    if not source.startswith("git+"):
        return replace(page, source=source if source.startswith("https://") else "")
    try:
        file = parse_git_location(source)
    except WishListError:
        return page
    edit = edit_address(file.url, file.path, file.ref)
    return replace(page, source=f"{file.path} in {file.url}", edit=edit)


def _refusal(wish: NewWish, wishes: Sequence[Wish], project: Project | None) -> Finding | None:
    """Return why a wish cannot be added, as far as that is known without its registry."""
    same = same_wish(wish.image, wishes)
    if same is not None:
        return Finding("error", f"the list has this wish already, in line {same.line}")
    registry = wish.image.registry
    if project is not None and not project.may_ask(registry):
        message = f"the project {project.name} may not use the registry {registry}"
        hint = "ask an administrator to add it to registries of the project"
        return Finding("error", message, hint)
    return None


def _size(checked: Checked) -> str:
    if checked.size is None:
        return ""
    size = human_size(checked.size)
    if checked.new is None:
        return size
    return f"{size}, of which {human_size(checked.new)} are not published yet"


def _note_on_quota(project: Project | None) -> str:
    if project is None or not project.quota.is_limited:
        return ""
    return (
        f"The quota of the project {project.name} was not checked: the ingest of the list "
        "refuses an image that needs more than is left. The page about projects shows what "
        "is used."
    )
