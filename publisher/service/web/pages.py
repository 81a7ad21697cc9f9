"""The pages of `publisher.site`, made from the latest snapshot when they are requested."""

from __future__ import annotations

import mimetypes
import secrets
from collections.abc import Mapping
from functools import cache

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from publisher.errors import presentable
from publisher.lazy import dataclass
from publisher.service.access import Verb, may
from publisher.service.web.answers import HTML, Body, accepts_gzip, answer
from publisher.service.web.context import Context
from publisher.service.web.forms import form_fields
from publisher.service.web.guard import Endpoint, identity_of
from publisher.service.web.problems import NotFound
from publisher.service.web.service_pages import account_of, remember_return, service_links
from publisher.service.web.service_pages import static_files as service_files
from publisher.service.web.snapshots import Snapshot
from publisher.service.web.trees import Trees
from publisher.site import addresses
from publisher.site.compose import image_page
from publisher.site.details import image_files, image_packages
from publisher.site.overview import layer_page, list_page, removals_page, wishes_page
from publisher.site.pages import Link
from publisher.site.rendering import NAVIGATION, Renderer, static_files
from publisher.site.space import space_page

_FIELDS = f"<!-- {secrets.token_hex(16)} -->"
_ACCOUNT = f"<!-- {secrets.token_hex(16)} -->"
"""In kept pages, in the place of the hidden fields of forms, and of the account."""

_ROOT = "../../"
"""What leads from the pages of a repository to those of the service."""


@cache
def _static_files() -> Mapping[str, Body]:
    return {name: Body.kept(data) for name, data in static_files().items()}


@cache
def _service_files() -> Mapping[str, Body]:
    return {name: Body.kept(data) for name, data in service_files().items()}


@cache
def _renderer(title: str, links: tuple[tuple[str, str], ...]) -> Renderer:
    navigation = [*NAVIGATION, *((label, _ROOT + path) for label, path in links)]
    return Renderer(title, navigation=navigation, policy="form-action 'self'")


async def service_file(request: Request) -> Response:
    """Return a file that pages of the service use, whose version is in the query."""
    return _static_answer(request, request.path_params["name"], _service_files())


def _static_answer(request: Request, name: str, more: Mapping[str, Body]) -> Response:
    """Return one of the files that pages use, or of those in `more`; raise NotFound."""
    body = _static_files().get(name, more.get(name))
    if body is None:
        raise NotFound(
            f"cannot find the file {presentable(name)}", why="no page uses it", hint="begin at /"
        )
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return answer(request, body, media_type)


class Pages:
    """Answers requests for pages."""

    def __init__(self, context: Context, trees: Trees) -> None:
        self._context = context
        self._trees = trees

    def routes(self) -> list[tuple[str, Endpoint, Verb]]:
        """Return paths, their endpoints, and what requests for them do."""
        directory = "/repositories/{repository}/"
        return [
            ("/", self.start, Verb.BROWSE),
            (directory + addresses.WISHES, self.wishes, Verb.READ),
            (directory + "{path:path}", self.page, Verb.BROWSE),
        ]

    async def start(self, request: Request) -> Response:
        """Lead to the pages of the first repository."""
        names = list(self._trees.snapshots)
        if not names:
            raise NotFound(
                "cannot show a page",
                why="the configuration has no repository",
                hint="add one to the configuration of the service",
            )
        return RedirectResponse(f"repositories/{names[0]}/{addresses.INDEX}")

    async def wishes(self, request: Request) -> Response:
        """Return the page about the states of wishes."""
        return await self._page(request, addresses.WISHES)

    async def page(self, request: Request) -> Response:
        """Return another page of one repository."""
        return await self._page(request, request.path_params["path"] or addresses.INDEX)

    async def _page(self, request: Request, path: str) -> Response:
        snapshot = await self._trees.snapshot(request.path_params["repository"])
        directory, _, name = path.partition("/")
        if directory == addresses.STATIC and name in _static_files():
            return _static_answer(request, name, {})
        identity = identity_of(request)
        has_states = may(identity, Verb.READ)
        can_retry = self._context.jobs is not None and may(identity, Verb.SUBMIT)
        has_forms = has_states and can_retry and path == addresses.WISHES
        # The query is not a part of it: each page is kept once for all senders without a name.
        remember_return(request, request.scope["path"])
        account = account_of(request, self._context.access())
        fields = form_fields(request) if has_forms else ""
        links = tuple(service_links(self._context, identity))
        kind = f"{has_states} {has_forms} {links}"
        # Not the same as that of a page for several senders, whatever the path is.
        key = f"own {kind} {account} {fields} {path}"
        found = snapshot.cache.get(key)
        if found is None or not (found.data or accepts_gzip(request)):
            page = await self._made(snapshot, kind, path, links, has_states, has_forms)
            found = await snapshot.once(key, lambda: _personal(page, account, fields))
            snapshot.cache.put(key, found.packed_only if identity.name else found)
        return answer(request, found, HTML)

    async def _made(
        self,
        snapshot: Snapshot,
        kind: str,
        path: str,
        links: tuple[tuple[str, str], ...],
        has_states: bool,
        has_forms: bool,
    ) -> Body:
        """Return a page that is the same for all senders with these links; raise NotFound."""
        found = snapshot.cache.get(f"{kind} {path}")
        if found is not None:
            return found
        making = _Making(snapshot, _renderer(snapshot.title, links), has_states, has_forms)
        made = await _made_once(snapshot, kind, path, making)
        if path not in made:
            raise NotFound(
                f"cannot find the page {path}",
                why="it does not exist, or its image is no longer published",
                hint=f"begin at /repositories/{snapshot.name}/{addresses.INDEX}",
            )
        return Body(made[path], "")


def _personal(page: Body, account: str, fields: str) -> Body:
    """Return a page for one sender."""
    data = page.data.replace(_ACCOUNT.encode(), account.encode())
    return Body.kept(data.replace(_FIELDS.encode(), fields.encode()))


async def _made_once(snapshot: Snapshot, kind: str, path: str, making: _Making) -> dict[str, bytes]:
    """Return the pages that are made for the one at `path`, made by one request at a time."""
    directory, _, name = path.rpartition("/")
    has_files = path.startswith(f"{addresses.CONTENTS}/") and name != addresses.PACKAGES
    if has_files and path not in snapshot.contents.get(directory, {path}):
        return {}  # all pages of the directory were made before

    def keep(made: dict[str, bytes]) -> None:
        if has_files and directory in snapshot.by_directory:
            snapshot.contents[directory] = frozenset(made)
        for each, body in made.items():
            snapshot.cache.put(f"{kind} {each}", Body(body, ""))

    key = f"{kind} {directory if has_files else path}"
    return await snapshot.once(key, lambda: making.make(path), keep)


@dataclass(frozen=True, slots=True)
class _Making:
    """Makes pages from a snapshot.

    Without `has_states`, they do not have the states of wishes; with `has_forms`, the page about
    wishes has forms that retry them.
    """

    snapshot: Snapshot
    renderer: Renderer
    has_states: bool
    has_forms: bool

    def make(self, path: str) -> dict[str, bytes]:
        """Return the page at `path`, and others that were made with it; empty if it is missing."""
        snapshot, render = self.snapshot, self._render
        survey = snapshot.survey
        facts = snapshot.facts if self.has_states else snapshot.facts_without_states
        directory = path.partition("/")[0]
        if directory == addresses.IMAGES:
            image = snapshot.by_page.get(path)
            if image is None:
                return {}
            page: object = image_page(facts, snapshot.repository, image)
            return {path: render("image", path, page=page)}
        if directory == addresses.LAYERS:
            digest = snapshot.layers_by_page.get(path)
            if digest is None:
                return {}
            return {path: render("layer", path, page=layer_page(survey, digest))}
        if directory == addresses.CONTENTS:
            return self._contents(path)
        if path == addresses.INDEX:
            return {path: render("images", path, page=list_page(facts))}
        if path == addresses.WISHES and self.has_states:
            forms = {"forms": Markup(_FIELDS)} if self.has_forms else {}
            return {path: render("wishes", path, page=wishes_page(survey), **forms)}
        if path == addresses.REMOVALS:
            return {path: render("removals", path, page=removals_page(facts))}
        if path == addresses.SPACE:
            return {path: render("space", path, page=space_page(survey))}
        return {}

    def _render(self, template: str, path: str, **values: object) -> bytes:
        return self.renderer.render(template, path, account=Markup(_ACCOUNT), **values)

    def _contents(self, path: str) -> dict[str, bytes]:
        """Return the page about an image's packages, or all pages about its files."""
        snapshot, render = self.snapshot, self._render
        image = snapshot.by_directory.get(path.rpartition("/")[0])
        if image is None:
            return {}
        known = Link(image.name, addresses.image_page(image.name))
        if path == addresses.packages_page(image.manifest_digest):
            packages = image_packages(snapshot.repository, image)
            return {path: render("packages", path, page=packages, image=known)}
        return {
            each: render("files", each, page=page, image=known)
            for each, page in image_files(snapshot.repository, image)
        }
