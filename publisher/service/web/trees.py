"""The routes about published trees: images, files, packages, layers, wishes and removals."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from publisher.browse.contents import list_path
from publisher.browse.images import name_matcher, show_image
from publisher.browse.packages import image_packages
from publisher.browse.status import Condition
from publisher.browse.values import details_value, entry_value, packages_value, run_value
from publisher.errors import PublisherError, explain
from publisher.packages.model import PACKAGE_TYPES
from publisher.service.access import Verb
from publisher.service.verbs import Reach
from publisher.service.web.answers import Body, answer, encode
from publisher.service.web.context import Context
from publisher.service.web.guard import visible
from publisher.service.web.paging import Item, paginate
from publisher.service.web.problems import NotFound
from publisher.service.web.routes import Kind, Parameter, Route
from publisher.service.web.snapshots import Snapshot, Snapshots

_LIMIT = Parameter(
    "limit", "How many items a page has.", Kind.INTEGER, default=100, bounds=(1, 1000)
)
_CURSOR = Parameter("cursor", "`next` of the page before, with the same parameters.", default="")
_OWNER = Parameter("owner", "Only those with this owner.")
_LIST = Parameter("wishList", "Only those that this wish list requested.")
_LONGEST_GLOB = 512
"""The time to read a glob grows with the square of its length."""

_NAME = Parameter(
    "name", "Only those whose names match this glob.", default="", longest=_LONGEST_GLOB
)

BASE = "/api/v1/repositories"
ONE = BASE + "/{repository}"


def _page_of(*keys: str) -> tuple[Parameter, ...]:
    """Return the parameters of a list in pages, which can be sorted by `keys`."""
    choices = tuple(sign + key for key in keys for sign in ("", "-"))
    text = "The key to sort by; with - in descending order."
    return (Parameter("sort", text, choices=choices, default=keys[0]), _LIMIT, _CURSOR)


_IMAGE_QUERY = (
    _NAME,
    _OWNER,
    _LIST,
    Parameter("platform", "Only those for this platform."),
    Parameter("pinned", "Only those with, or without, a pin.", Kind.BOOLEAN),
    Parameter("scheduled", "Only those that are, or are not, to be removed.", Kind.BOOLEAN),
    *_page_of("name", "publishedAt", "bytes"),
)
_FILE_QUERY = (Parameter("path", "Relative to the image's root.", default=""),)
_PACKAGE_QUERY = (
    Parameter("type", "Only packages of this type.", choices=tuple(PACKAGE_TYPES)),
    Parameter(
        "package", "Only those whose names match this glob.", default="*", longest=_LONGEST_GLOB
    ),
)
_LAYER_QUERY = _page_of("digest", "bytes", "images")
_WISH_QUERY = (
    _NAME,
    _OWNER,
    _LIST,
    Parameter("status", "Only those in this state.", choices=tuple(map(str, Condition))),
    *_page_of("name", "failingSince", "lastSuccess"),
)
_REMOVAL_QUERY = (_NAME, *_page_of("notBefore", "name", "bytes"))


class Trees:
    """The published trees, and the answers to requests about them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._snapshots: dict[str, Snapshots] = {}

    @property
    def snapshots(self) -> dict[str, Snapshots]:
        """The latest snapshots by repository; those of unchanged repositories stay."""
        trees = {tree.name: tree for tree in self._context.trees()}
        if {name: each.tree for name, each in self._snapshots.items()} != trees:
            known = self._snapshots
            self._snapshots = {
                name: known[name]
                if name in known and known[name].tree == tree
                else Snapshots(tree, self._context)
                for name, tree in trees.items()
            }
        return self._snapshots

    async def snapshot(self, name: str) -> Snapshot:
        """Return the latest snapshot of the repository `name`; raise NotFound."""
        found = self.snapshots.get(name)
        if found is None:
            raise NotFound(
                f"cannot find the repository {name}",
                why="the configuration has no repository of this name",
                hint=f"list the repositories: {BASE}",
            )
        return await found.latest()

    async def _answer(
        self,
        request: Request,
        repository: str,
        kind: str,
        make: Callable[[Snapshot], Any],
        scope: str = "",
    ) -> Response:
        """Answer with the document `make` returns, made once for each snapshot, URL and `scope`.

        `scope` differs between senders that may not read the same.
        """
        snapshot = await self.snapshot(repository)
        # Not request.url, which some releases of Starlette build from any Host header.
        key = f"{scope} {request.scope['path']}?{request.scope['query_string'].decode('latin-1')}"
        found = snapshot.cache.get(key)
        if found is None:
            found = await snapshot.once(key, lambda: Body.kept(encode(kind, make(snapshot))))
            snapshot.cache.put(key, found)
        return answer(request, found)

    async def repositories(self, request: Request) -> Response:
        """List the repositories."""
        values = []
        for name in self.snapshots:
            try:
                values.append(_repository_value(await self.snapshot(name)))
            except (PublisherError, OSError) as error:
                # Nothing is published to it yet, or it is away: the others are listed all the same.
                values.append({**_UNREADABLE, "name": name, "error": str(explain(error))})
        body = encode("repositories/1", {"repositories": values})
        return answer(request, Body.of(body))

    async def images(self, request: Request, repository: str, **values: Any) -> Response:
        """List images."""

        def make(snapshot: Snapshot) -> dict[str, object]:
            chosen = _chosen(
                snapshot.images,
                values,
                {"owner": "owner", "platform": "platform", "pinned": "pinned"},
            )
            if values["wishList"] is not None:
                wanted = values["wishList"]
                survey = snapshot.survey
                chosen = [
                    each
                    for each in chosen
                    if (record := survey.images[str(each["name"])].publication)
                    and wanted in record.wish_lists
                ]
            if values["scheduled"] is not None:
                is_scheduled = values["scheduled"]
                chosen = [e for e in chosen if (e["removableFrom"] is not None) == is_scheduled]
            return _page("images", chosen, values, lambda item: str(item["name"]))

        return await self._answer(request, repository, "list/1", make)

    async def image(self, request: Request, repository: str, name: str) -> Response:
        """Show one image."""

        def make(snapshot: Snapshot) -> dict[str, object]:
            found = snapshot.image(name)
            return details_value(show_image(snapshot.repository, found.name, lambda error: None))

        return await self._answer(request, repository, "show/1", make)

    async def files(self, request: Request, repository: str, name: str, path: str) -> Response:
        """List a directory of an image."""

        def make(snapshot: Snapshot) -> dict[str, object]:
            entries = list_path(snapshot.repository, snapshot.image(name).name, path)
            return {"entries": [entry_value(each) for each in entries]}

        return await self._answer(request, repository, "ls/1", make)

    async def packages(
        self, request: Request, repository: str, name: str, type: str | None, package: str
    ) -> Response:
        """List the packages of an image."""

        def make(snapshot: Snapshot) -> dict[str, object]:
            found = image_packages(snapshot.repository, snapshot.image(name).name)
            shown = [
                each
                for each in found.packages
                if type in (None, str(each.type))
                and fnmatch.fnmatchcase(each.package.name, package)
            ]
            return packages_value(found, shown)

        return await self._answer(request, repository, "packages/1", make)

    async def layers(self, request: Request, repository: str, **values: Any) -> Response:
        """List layers."""

        def make(snapshot: Snapshot) -> dict[str, object]:
            return _page("layers", snapshot.layers, values, lambda item: str(item["digest"]))

        return await self._answer(request, repository, "layers/1", make)

    async def wishes(self, request: Request, repository: str, **values: Any) -> Response:
        """List wishes and their states: those in lists of the projects that may be read."""
        projects = visible(request)

        def make(snapshot: Snapshot) -> dict[str, object]:
            keys = {"owner": "owner", "wishList": "wishList", "status": "status"}
            chosen = _chosen(snapshot.wishes, values, keys)
            last = snapshot.remembered.last_run
            if projects is not None:
                last = None  # it may be that of another project
                of_list = self._context.project_of
                chosen = [e for e in chosen if of_list(repository, str(e["wishList"])) in projects]
            return _page(
                "wishes", chosen, values, lambda item: f"{item['name']}\0{item['wishList']}"
            ) | {
                "revision": None,
                "replicas": [],
                "lastRun": run_value(last) if last else None,
                "lastRuns": [run_value(last)] if last else [],
                "hasState": snapshot.remembered.is_known,
            }

        scope = "" if projects is None else json.dumps(sorted(projects))
        return await self._answer(request, repository, "status/1", make, scope)

    async def removals(self, request: Request, repository: str, **values: Any) -> Response:
        """List what may be removed."""

        def make(snapshot: Snapshot) -> dict[str, object]:
            chosen = _chosen(snapshot.removals, values, {})
            return _page(
                "entries", chosen, values, lambda item: f"{item['name']}\0{item['manifestDigest']}"
            )

        return await self._answer(request, repository, "schedule/1", make)

    def routes(self) -> tuple[Route, ...]:
        """Return the routes about trees."""
        return (
            Route(
                BASE,
                "listRepositories",
                "List the repositories.",
                "repositories-1",
                Verb.BROWSE,
                self.repositories,
            ),
            Route(
                ONE + "/images",
                "listImages",
                "List the published images.",
                "list-1",
                Verb.BROWSE,
                self.images,
                _IMAGE_QUERY,
            ),
            Route(
                ONE + "/images/{name:path}",
                "showImage",
                "Show one image.",
                "show-1",
                Verb.BROWSE,
                self.image,
            ),
            Route(
                ONE + "/files/{name:path}",
                "listFiles",
                "List a directory of an image, from the indexes of its layers.",
                "ls-1",
                Verb.BROWSE,
                self.files,
                _FILE_QUERY,
            ),
            Route(
                ONE + "/packages/{name:path}",
                "listPackages",
                "List the packages of an image.",
                "packages-1",
                Verb.BROWSE,
                self.packages,
                _PACKAGE_QUERY,
            ),
            Route(
                ONE + "/layers",
                "listLayers",
                "List the layers.",
                "layers-1",
                Verb.BROWSE,
                self.layers,
                _LAYER_QUERY,
            ),
            Route(
                ONE + "/wishes",
                "listWishes",
                "List the wishes and their states.",
                "status-1",
                Verb.READ,
                self.wishes,
                _WISH_QUERY,
                reach=Reach.OBJECT,
            ),
            Route(
                ONE + "/removals",
                "listRemovals",
                "List the images to be removed.",
                "schedule-1",
                Verb.BROWSE,
                self.removals,
                _REMOVAL_QUERY,
            ),
        )


_UNREADABLE = {"name": "", "mount": None, "images": None, "layers": None}


def _repository_value(snapshot: Snapshot) -> dict[str, object]:
    survey = snapshot.survey
    return {
        "name": snapshot.name,
        "mount": survey.mount,
        "images": len(survey.images),
        "layers": len(survey.users),
        "error": "",
    }


def _chosen(
    items: Sequence[dict[str, object]], values: Mapping[str, Any], keys: Mapping[str, str]
) -> list[dict[str, object]]:
    """Return the items whose names match, and that have the requested values."""
    matches = name_matcher(values.get("name", ""))
    wanted = {keys[name]: values[name] for name in keys if values[name] is not None}
    return [
        each
        for each in items
        if matches(str(each["name"])) and all(each.get(k) == v for k, v in wanted.items())
    ]


def _page(
    name: str, items: Sequence[Item], values: Mapping[str, Any], identity: Callable[[Item], str]
) -> dict[str, object]:
    page = paginate(items, values["sort"], identity, values["limit"], values["cursor"])
    return {name: page.items, "total": page.total, "next": page.following or None}
