"""The configuration of the service as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import timedelta
from pathlib import Path

from publisher.lazy import dataclass
from publisher.problems import InvalidFile
from publisher.service.access import Access
from publisher.service.harbor.model import HarborConfiguration
from publisher.service.hooks.model import Hook
from publisher.service.kinds import JobKind
from publisher.service.projects import Project
from publisher.tree.layout import RepositoryURL

SCHEDULED = (JobKind.PRUNE, JobKind.GC, JobKind.VERIFY, JobKind.SITE, JobKind.RECONCILE)
"""The jobs that a repository may have schedules for; those of wish lists are with the lists."""


class InvalidServiceConfiguration(InvalidFile):
    """The configuration of the service has mistakes, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Listen:
    """The address of the HTTP server."""

    host: str = "127.0.0.1"
    port: int = 8080


@dataclass(frozen=True, slots=True)
class ListConfiguration:
    """A wish list of a repository.

    `source` is what `publisher ingest` accepts as LIST: a path, a web address, or a place in a git
    repository. `schedule` is a cron expression, or "" for a list that is ingested on request only.
    `project` is the project that it belongs to, or "".
    """

    name: str
    source: str
    schedule: str = ""
    project: str = ""


@dataclass(frozen=True, slots=True)
class RepositoryConfiguration:
    """A published file system.

    `arguments` are further options for the commands of each kind. `site` is the directory of the
    static site that jobs of kind SITE write, or None. `projects` may publish single images to it,
    beside those of its lists. `jobs` is how many ingests may run at the same time if the engine of
    the repository allows several; None for a number of the service.
    """

    name: str
    url: str
    lists: tuple[ListConfiguration, ...] = ()
    schedules: Mapping[JobKind, str] = field(default_factory=dict)
    arguments: Mapping[JobKind, tuple[str, ...]] = field(default_factory=dict)
    site: Path | None = None
    projects: tuple[str, ...] = ()
    jobs: int | None = None

    @property
    def cvmfs_name(self) -> str:
        """The name of a CVMFS repository; "" for a directory."""
        url = RepositoryURL.parse(self.url)
        return url.location if url.kind == "cvmfs" else ""

    def list_named(self, name: str) -> ListConfiguration | None:
        """Return the wish list of this name."""
        return next((each for each in self.lists if each.name == name), None)

    def lists_of(self, project: str) -> tuple[ListConfiguration, ...]:
        """Return the wish lists of a project."""
        return tuple(each for each in self.lists if each.project == project)

    def may_publish(self, project: str) -> bool:
        """Return whether jobs of a project may publish single images to the repository."""
        return project in (*self.projects, *(each.project for each in self.lists if each.project))


@dataclass(frozen=True, slots=True)
class Limits:
    """What one host, and what all of them together, may use.

    Attributes:
        jobs: How many jobs this host runs at the same time.
        queued: How many jobs may wait.
        events: How many lines of the output of one job are kept.
        job_time: After this time, a job is ended as if it was cancelled, and has failed.
        host_timeout: After this time without a sign of a host, its jobs run on other hosts.
        writes: How many requests that change something each sender may send in a minute.
        requests: How many requests each address may send in a minute.
    """

    jobs: int = 2
    queued: int = 10_000
    events: int = 20_000
    job_time: timedelta = timedelta(days=1)
    host_timeout: timedelta = timedelta(seconds=30)
    writes: int = 300
    requests: int = 60_000


@dataclass(frozen=True, slots=True)
class History:
    """Which jobs that have ended are kept: those within both bounds."""

    jobs: int = 10_000
    age: timedelta = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class ServiceConfiguration:
    """The configuration `name`.

    `database` is a URL of SQLAlchemy, for SQLite or PostgreSQL, and may contain a password: it is
    not in `repr`. `state` is the directory of this host. `environment` names the variables that
    jobs receive, beside those that every command needs. `digest` is that of the file.
    """

    name: str
    state: Path
    database: str = field(repr=False)
    repositories: tuple[RepositoryConfiguration, ...]
    listen: Listen = Listen()
    limits: Limits = Limits()
    history: History = History()
    environment: tuple[str, ...] = ()
    access: Access = field(default_factory=Access)
    hooks: tuple[Hook, ...] = ()
    harbor: HarborConfiguration | None = None
    digest: str = ""

    @property
    def is_shared(self) -> bool:
        """Whether several hosts may use the database."""
        return not self.database.startswith("sqlite")

    @property
    def limited_projects(self) -> tuple[str, ...]:
        """The projects with a quota."""
        return tuple(each.name for each in self.access.projects if each.quota.is_limited)

    def repository(self, name: str) -> RepositoryConfiguration | None:
        """Return the repository of this name."""
        return next((each for each in self.repositories if each.name == name), None)

    def project(self, name: str) -> Project | None:
        """Return the project of this name."""
        return next((each for each in self.access.projects if each.name == name), None)
