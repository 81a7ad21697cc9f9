"""One repository is made to match the configuration: behind `publisher reconcile`.

Wishes of lists that the configuration does not have any more are withdrawn, with their grace
periods. All lists are ingested again, each with the credentials of its project, by jobs of their
own: so images that are missing, or scheduled although a list requests them, are published. What
nothing requests in the directory of a project is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from publisher.errors import PublisherError, explain
from publisher.lazy import dataclass
from publisher.removal.prune import Report as Withdrawal
from publisher.removal.prune import prune
from publisher.removal.restore import restore
from publisher.removal.withdrawal import Guard
from publisher.repository import Repository, RepositoryError
from publisher.repository.reading import load_publication, load_schedule
from publisher.service.access import Access
from publisher.service.configuration import RepositoryConfiguration
from publisher.service.jobs.lists import ConfiguredLists
from publisher.service.jobs.model import JobKind, JobRequest, Jobs, QueueFull
from publisher.service.lists import projects_by_list
from publisher.sources.wish_lists import project_identity
from publisher.tree import layout
from publisher.tree.publication import Publication
from publisher.tree.schedule import Reason, ScheduledRemoval

if TYPE_CHECKING:
    from publisher.sources.open import Sources


@dataclass(frozen=True, slots=True)
class Report:
    """What was done, or would be.

    Attributes:
        gone: The lists that the configuration does not have any more.
        scheduled: Their images that no other list requests.
        restored: Single images of projects that are back, which were scheduled.
        kept: Further images of these lists, which stay, with the reason.
        unrequested: Images in the directory of a project that none of its lists requests, with the
            name of the project.
        unreadable: Images whose lists are not known, or that cannot be restored, with the reason.
        queued: The lists that are ingested by new jobs; with a dry run, all lists.
        waiting: How many further ingests could not be queued, since too many jobs wait.
    """

    gone: frozenset[str] = frozenset()
    scheduled: tuple[ScheduledRemoval, ...] = ()
    restored: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    unrequested: Mapping[str, str] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    queued: tuple[str, ...] = ()
    waiting: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether everything could be done."""
        return not (self.unreadable or self.waiting)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What a reconciliation uses.

    Attributes:
        access: The projects and their members.
        lists: The lists that the configuration had.
        jobs: Where ingests are queued.
        sources: Not asked: no list is read.
        now: The clock.
    """

    access: Access
    lists: ConfiguredLists
    jobs: Jobs
    sources: Sources
    now: Callable[[], datetime]

    def run(
        self, configured: RepositoryConfiguration, repository: Repository, *, dry_run: bool = False
    ) -> Report:
        """Reconcile a repository; with `dry_run`, change nothing, and queue nothing.

        Raises:
            RepositoryError: The repository cannot be used.
            JobsUnavailable: The database cannot be reached.
        """
        projects = self.access.projects
        gone = self.lists.gone(configured, projects)
        withdrawal = Withdrawal()
        if gone:
            withdrawal = prune(
                repository,
                (),
                self.sources,
                self.now,
                withdrawn=gone,
                guard=Guard(
                    off=True
                ),  # the configuration states it, and images stay for their grace
                dry_run=dry_run,
            )
        unreadable = dict(withdrawal.unreadable)
        restored = self._back(configured, repository, unreadable)
        if not dry_run:
            restored = tuple(e for e in restored if self._restore(repository, e, unreadable))
        unrequested = self._unrequested(configured, repository, unreadable)
        report = Report(
            gone,
            withdrawal.scheduled,
            restored,
            withdrawal.kept,
            unrequested,
            unreadable,
        )
        if dry_run:
            return replace(report, queued=tuple(each.name for each in configured.lists))
        if not withdrawal.unreadable:
            self.lists.withdrawn(configured, gone, withdrawal.unknown_lists)
        queued, waiting = self._queue(configured)
        return replace(report, queued=queued, waiting=waiting)

    def _back(
        self,
        configured: RepositoryConfiguration,
        repository: Repository,
        unreadable: dict[str, str],
    ) -> tuple[str, ...]:
        """Return the scheduled single images whose project was removed, and is back.

        No ingest of a list takes them off the schedule.
        """
        projects = {
            project_identity(each.name)
            for each in self.access.projects
            if configured.may_publish(each.name)
        }
        found: dict[str, None] = {}
        for entry in load_schedule(repository).entries:
            publication = _read(repository, entry.name, unreadable)
            if (
                entry.reason == Reason.WITHDRAWN
                and publication is not None
                and publication.manifest_digest == entry.manifest_digest
                and publication.wish_lists & projects
            ):
                found[layout.split_platform(entry.name)[1]] = None
        return tuple(found)

    def _restore(self, repository: Repository, name: str, unreadable: dict[str, str]) -> bool:
        """Return whether an image is restored; if it is damaged, the reason is in `unreadable`."""
        try:
            restore(repository, name, self.now)
        except RepositoryError:
            raise
        except PublisherError as error:
            unreadable[name] = str(error)
            return False
        return True

    def _unrequested(
        self,
        configured: RepositoryConfiguration,
        repository: Repository,
        unreadable: dict[str, str],
    ) -> dict[str, str]:
        """Return the images of projects that none of their lists requests."""
        projects = {f"{each.prefix}/": each.name for each in self.access.projects if each.prefix}
        if not projects:
            return {}
        of_list = projects_by_list(configured, self.access.projects)
        scheduled = {entry.name for entry in load_schedule(repository).entries}
        found: dict[str, str] = {}
        for name in repository.names():
            plain = layout.split_platform(name)[1]
            owner = next((projects[each] for each in projects if plain.startswith(each)), "")
            if not owner or name in scheduled:
                continue
            publication = _read(repository, name, unreadable)
            lists = publication.wish_lists if publication is not None else frozenset()
            if name not in unreadable and owner not in {of_list.get(each) for each in lists}:
                found[name] = owner
        return found

    def _queue(self, configured: RepositoryConfiguration) -> tuple[tuple[str, ...], int]:
        """Queue an ingest of each list; return the new ones, and how many could not be queued."""
        queued = []
        for number, each in enumerate(configured.lists):
            request = JobRequest(
                JobKind.INGEST_LIST,
                configured.name,
                each.name,
                requested_by="reconcile",
                reason="reconcile",
                project=each.project,
            )
            try:
                if self.jobs.submit(request).is_new:
                    queued.append(each.name)
            except QueueFull:
                return tuple(queued), len(configured.lists) - number
        return tuple(queued), 0


def _read(repository: Repository, name: str, unreadable: dict[str, str]) -> Publication | None:
    """Return the record of an image; None, and the reason in `unreadable`, if it is damaged."""
    try:
        return load_publication(repository, name)
    except (PublisherError, OSError) as error:
        unreadable[name] = str(explain(error))
        return None
