"""The projects, what their images use, and their quotas: a route and a page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from publisher.browse.statistics.charges import Charges
from publisher.errors import PublisherError, explain
from publisher.lazy import dataclass
from publisher.service.access import Verb
from publisher.service.configuration import RepositoryConfiguration
from publisher.service.lists import projects_by_list
from publisher.service.projects import Project
from publisher.service.verbs import Reach
from publisher.service.web.answers import HTML, Body, answer, encode
from publisher.service.web.context import Context
from publisher.service.web.guard import Endpoint, visible
from publisher.service.web.routes import Route
from publisher.service.web.service_pages import service_page
from publisher.service.web.snapshots import Snapshot
from publisher.service.web.trees import Trees
from publisher.wishlist.quota import Usage

BASE = "/api/v1/projects"
PATH = "projects"


@dataclass(frozen=True, slots=True)
class ProjectUsage:
    """What a project has in one repository.

    `usage` is None if the repository cannot be read; `error` is why, "" otherwise.
    """

    repository: str
    lists: tuple[str, ...]
    usage: Usage | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class ProjectRow:
    """A project, and what it has in each repository that it may publish to."""

    project: Project
    repositories: tuple[ProjectUsage, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """The charges of a snapshot, for these projects of lists."""

    snapshot: Snapshot
    groups: Mapping[str, str]
    charges: Charges


class Projects:
    """Answers requests about projects: those in which the sender may read."""

    def __init__(self, context: Context, trees: Trees) -> None:
        self._context = context
        self._trees = trees
        self._known: dict[str, _Known] = {}

    def routes(self) -> tuple[Route, ...]:
        """Return the routes of the interface."""
        summary = "List the projects, what their images use, and their quotas."
        return (
            Route(
                BASE,
                "listProjects",
                summary,
                "projects-1",
                Verb.READ,
                self.list,
                reach=Reach.OBJECT,
            ),
        )

    def pages(self) -> list[tuple[str, Endpoint, Verb]]:
        """Return the paths of pages, their endpoints, and what requests for them do."""
        return [(f"/{PATH}", self.page, Verb.READ)]

    async def list(self, request: Request) -> Response:
        """List projects."""
        values = [_value(each) for each in await self._rows(request)]
        body = encode("projects/1", {"projects": values})
        return answer(request, Body.of(body))

    async def page(self, request: Request) -> Response:
        """Show the projects."""
        rows = await self._rows(request)
        body = service_page(self._context, request, "projects", PATH, rows=rows)
        return answer(request, Body.of(body), HTML)

    async def _rows(self, request: Request) -> tuple[ProjectRow, ...]:
        shown = visible(request)
        projects = self._context.access().projects
        repositories = self._context.repositories()
        found = {each.name: await self._charges(each) for each in repositories}
        return tuple(
            ProjectRow(
                project,
                tuple(
                    _usage(each, project, found[each.name])
                    for each in repositories
                    if each.may_publish(project.name)
                ),
            )
            for project in projects
            if shown is None or project.name in shown
        )

    async def _charges(self, repository: RepositoryConfiguration) -> Charges | str:
        """Return what all projects are charged for, or why the repository cannot be read."""
        try:
            snapshot = await self._trees.snapshot(repository.name)
        except (PublisherError, OSError) as error:
            return str(explain(error))
        groups = projects_by_list(repository, self._context.access().projects)
        known = self._known.get(repository.name)
        if known is None or known.snapshot is not snapshot or known.groups != groups:
            charges = await asyncio.to_thread(Charges, snapshot.survey.holdings, groups)
            known = self._known[repository.name] = _Known(snapshot, groups, charges)
        return known.charges


def _usage(
    repository: RepositoryConfiguration, project: Project, charges: Charges | str
) -> ProjectUsage:
    lists = tuple(each.name for each in repository.lists_of(project.name))
    found = ProjectUsage(repository.name, lists)
    if isinstance(charges, str):
        return replace(found, error=charges)
    return replace(found, usage=charges.usage(project.name))


def _value(row: ProjectRow) -> dict[str, object]:
    project = row.project
    return {
        "name": project.name,
        "prefix": project.prefix,
        "quota": {"images": project.quota.images, "bytes": project.quota.bytes},
        "repositories": [
            {
                "name": each.repository,
                "lists": list(each.lists),
                "images": each.usage.images if each.usage is not None else None,
                "bytes": each.usage.bytes if each.usage is not None else None,
                "error": each.error,
            }
            for each in row.repositories
        ],
    }
