"""Which project each list belongs to, by the names that the records of repositories have."""

from __future__ import annotations

from collections.abc import Iterable

from publisher.errors import PublisherError
from publisher.service.configuration import ListConfiguration, RepositoryConfiguration
from publisher.service.projects import SERVICE, Project
from publisher.sources.wish_lists import list_identity, project_identity


def identity_of(wish_list: ListConfiguration) -> str:
    """Return the name of a list in records; "" for one whose address is malformed."""
    try:
        return list_identity(wish_list.source)
    except PublisherError:
        return ""  # it cannot be ingested either, and its jobs fail


def projects_by_list(
    repository: RepositoryConfiguration, projects: Iterable[Project]
) -> dict[str, str]:
    """Return the project of each list, SERVICE for none, and of the single images of projects."""
    lists = {identity_of(each): each.project or SERVICE for each in repository.lists}
    single = {
        project_identity(each.name): each.name
        for each in projects
        if repository.may_publish(each.name)
    }
    return {name: project for name, project in (lists | single).items() if name}


def names_in_records(
    repository: RepositoryConfiguration, projects: Iterable[Project]
) -> frozenset[str]:
    """Return the names in records of all lists of a repository, and of its projects."""
    lists = frozenset(map(identity_of, repository.lists)) - {""}
    return lists | projects_by_list(repository, projects).keys()
