"""The lists that the service had in its configuration, by which those that are gone are noticed.

A repository may also have images of lists that the service never had, which are left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import sqlalchemy as sa

from publisher.service.configuration import RepositoryConfiguration
from publisher.service.jobs.database import LISTS, available, now
from publisher.service.lists import names_in_records
from publisher.service.projects import Project


class ConfiguredLists:
    """The lists in the database of `engine`; methods raise JobsUnavailable."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def note(self, repository: RepositoryConfiguration, projects: Iterable[Project]) -> bool:
        """Record the lists of a repository; return whether some are gone, or are back.

        Those that are gone count until they are recorded as withdrawn.
        """
        try:
            return self._note(repository.url, names_in_records(repository, projects))
        except sa.exc.IntegrityError:  # another host inserted the same rows
            return self._note(repository.url, names_in_records(repository, projects))

    def _note(self, repository: str, configured: frozenset[str]) -> bool:
        with available(), self._engine.begin() as connection:
            query = sa.select(LISTS).where(LISTS.c.repository == repository)
            known = {row.list: row.withdrawn for row in connection.execute(query)}
            back = [name for name in configured if known.get(name) is not None]
            for name in back:
                change = sa.update(LISTS).where(*_is(repository, name))
                connection.execute(change.values(withdrawn=None))
            new = [
                {"repository": repository, "list": name, "withdrawn": None}
                for name in configured
                if name not in known
            ]
            if new:
                connection.execute(sa.insert(LISTS), new)
        is_gone = any(each is None and name not in configured for name, each in known.items())
        return bool(back) or is_gone

    def gone(
        self, repository: RepositoryConfiguration, projects: Iterable[Project]
    ) -> frozenset[str]:
        """Return the lists that were in the configuration of a repository, and are not any more."""
        query = sa.select(LISTS.c.list).where(LISTS.c.repository == repository.url)
        with available(), self._engine.connect() as connection:
            known = connection.execute(query).scalars().all()
        return frozenset(known) - names_in_records(repository, projects)

    def withdrawn(
        self, repository: RepositoryConfiguration, names: Iterable[str], unused: Collection[str]
    ) -> None:
        """Record that the wishes of these lists were withdrawn; forget the `unused` ones."""
        with available(), self._engine.begin() as connection:
            for name in names:
                chosen = _is(repository.url, name)
                if name in unused:
                    connection.execute(sa.delete(LISTS).where(*chosen))
                else:
                    connection.execute(sa.update(LISTS).where(*chosen).values(withdrawn=now()))


def _is(repository: str, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    return LISTS.c.repository == repository, LISTS.c.list == name
