"""What the HTTP interface reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import sqlalchemy as sa

from publisher.lazy import dataclass
from publisher.repository import Repository
from publisher.service.access import Access
from publisher.service.audit import Audit
from publisher.service.configuration import Limits, RepositoryConfiguration
from publisher.service.jobs.model import Jobs
from publisher.site.survey import Remembered
from publisher.times import utc_now


@dataclass(frozen=True, slots=True)
class PublishedTree:
    """A repository that the service shows.

    Attributes:
        name: Its name in the configuration, and in URLs.
        title: The title of its pages.
        open: Opens it for reading. Called again after each change of the tree.
        remember: Returns the state of its wishes and runs on this machine.
    """

    name: str
    title: str
    open: Callable[[], Repository]
    remember: Callable[[], Remembered]


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that requests are answered from.

    Attributes:
        trees: Returns the repositories, with different names; others after a reload.
        access: Returns which requests are answered; another value after a reload.
        jobs: The jobs, or None if this service runs none.
        repositories: Returns the repositories that jobs may be queued for, as they are configured.
        database: The database of sessions; None for a service without a login.
        now: The clock.
        recheck: For how many seconds a tree is taken as unchanged.
        project_of: Returns the project of a wish list, "" for none, from the name of its repository
            and its identity in the records.
        limits: Returns how often clients may send requests.
        audit: Where requests that change something are recorded, or None.
        patience: How many seconds a request waits for a tree that has changed to be read, before it
            is answered from what was read last.
    """

    trees: Callable[[], Sequence[PublishedTree]]
    access: Callable[[], Access]
    jobs: Jobs | None = None
    repositories: Callable[[], Sequence[RepositoryConfiguration]] = tuple
    database: sa.Engine | None = None
    now: Callable[[], datetime] = utc_now
    recheck: float = 1.0
    patience: float = 0.05
    limits: Callable[[], Limits] = Limits
    audit: Audit | None = None
    project_of: Callable[[str, str], str] = lambda repository, wish_list: ""
