"""The pages of `publisher.site`, made from the latest snapshot when they are requested."""

from __future__ import annotations

import mimetypes
from functools import cache

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from publisher.service.access import Verb, may
from publisher.service.web.answers import HTML, answer, tag_of
from publisher.service.web.guard import Endpoint, identity_of
from publisher.service.web.problems import NotFound
from publisher.service.web.snapshots import Snapshot
from publisher.service.web.trees import Trees
from publisher.site import addresses
from publisher.site.compose import image_page, list_page
from publisher.site.details import image_files, image_packages
from publisher.site.overview import layer_page, removals_page, wishes_page
from publisher.site.pages import Link
from publisher.site.rendering import Renderer, static_files
from publisher.site.space import space_page

_static_files = cache(static_files)
_renderer = cache(Renderer)


class Pages:
    """Answers requests for pages."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees

    def routes(self) -> list[tuple[str, Endpoint, Verb]]:
        """Return paths, their endpoints, and what requests for them do."""
        folder = "/repositories/{repository}/"
        return [
            ("/", self.start, Verb.BROWSE),
            (folder + addresses.WISHES, self.wishes, Verb.READ),
            (folder + "{path:path}", self.page, Verb.BROWSE),
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
        folder, _, name = path.partition("/")
        if folder == addresses.STATIC and name in _static_files():
            data = _static_files()[name]
            media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
            return answer(request, data, tag_of(data), media_type)
        has_states = may(identity_of(request), Verb.READ)
        kind = "page" if has_states else "page without states"
        key = f"{kind} {path}"
        found = snapshot.cache.get(key)
        if found is None:
            made = await run_in_threadpool(_make, snapshot, path, has_states)
            for each, body in made.items():
                snapshot.cache.put(f"{kind} {each}", body, tag_of(body))
            if path not in made:
                raise NotFound(
                    f"cannot find the page {path}",
                    why="it does not exist, or its image is no longer published",
                    hint=f"begin at /repositories/{snapshot.name}/{addresses.INDEX}",
                )
            found = made[path], tag_of(made[path])
        return answer(request, *found, HTML)


def _make(snapshot: Snapshot, path: str, has_states: bool) -> dict[str, bytes]:
    """Return the page at `path`, and others that were made with it; empty if it is missing.

    Without `has_states`, pages do not have the states of wishes.
    """
    survey, renderer = snapshot.survey, _renderer(snapshot.title)
    facts = snapshot.facts if has_states else snapshot.facts_without_states
    folder = path.partition("/")[0]
    if folder == addresses.IMAGES:
        image = snapshot.by_page.get(path)
        if image is None:
            return {}
        page: object = image_page(facts, snapshot.repository, image)
        return {path: renderer.render("image", path, page=page)}
    if folder == addresses.LAYERS:
        digest = snapshot.layers_by_page.get(path)
        if digest is None:
            return {}
        return {path: renderer.render("layer", path, page=layer_page(survey, digest))}
    if folder == addresses.CONTENTS:
        return _contents(snapshot, path)
    if path == addresses.INDEX:
        return {path: renderer.render("images", path, page=list_page(facts))}
    if path == addresses.WISHES and has_states:
        return {path: renderer.render("wishes", path, page=wishes_page(survey))}
    if path == addresses.REMOVALS:
        return {path: renderer.render("removals", path, page=removals_page(facts))}
    if path == addresses.SPACE:
        return {path: renderer.render("space", path, page=space_page(survey))}
    return {}


def _contents(snapshot: Snapshot, path: str) -> dict[str, bytes]:
    """Return the page about an image's packages, or all pages about its files."""
    folder = path.rpartition("/")[0]
    image = snapshot.by_folder.get(folder)
    if image is None:
        return {}
    renderer = _renderer(snapshot.title)
    known = Link(image.name, addresses.image_page(image.name))
    if path == addresses.packages_page(image.manifest_digest):
        packages = image_packages(snapshot.repository, image)
        return {path: renderer.render("packages", path, page=packages, image=known)}
    return {
        each: renderer.render("files", each, page=page, image=known)
        for each, page in image_files(snapshot.repository, image)
    }
