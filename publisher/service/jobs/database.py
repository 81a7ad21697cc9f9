"""The tables of jobs, and the connections to SQLite or PostgreSQL.

The queue itself is in tables of DBOS, in the same database. Times are milliseconds since 1970.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from publisher.service.jobs.model import JobState, JobsUnavailable

_BUSY_SECONDS = 10
"""How long one statement waits for the database."""

_AWAY = "make sure that the database runs, and that this user may connect to it"
_FULL = "free space for the database of jobs"
_READ_ONLY = (
    "make the database writable: it may be a standby, or on a file system that is read-only"
)
_DAMAGED = (
    "end the service, and restore its SQLite file from a backup, or move it away, with -wal and "
    "-shm: then the service begins without its former jobs and tokens"
)
_HINTS = (
    (re.compile(r"\bis full\b|No space left|could not extend|disk I/O error"), _FULL),
    (re.compile(r"read-?only|recovery is in progress"), _READ_ONLY),
    (re.compile(r"file is not a database|database disk image is malformed"), _DAMAGED),
)

_CONNECTION = {"keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3"}
"""Parameters of libpq: without them, a connection to a host that is gone ends after hours."""

_CREATION = 0x7075626C
"""The number of the lock that is held while tables are created."""

METADATA = sa.MetaData()

JOBS = sa.Table(
    "publisher_jobs",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("work", sa.Text, nullable=False),  # the digest of the request's key
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("repository", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("arguments", sa.Text, nullable=False),  # a JSON list
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("started", sa.BigInteger),
    sa.Column("ended", sa.BigInteger),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("exit_code", sa.Integer),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("cancelled_by", sa.Text),
    sa.Column("requested_from", sa.Text, nullable=False, server_default=""),
    sa.Column("project", sa.Text, nullable=False, server_default=""),
)
# The same work is queued only once, whichever hosts request it at the same time.
IS_QUEUED = JOBS.c.state == sa.literal_column(f"'{JobState.QUEUED}'")
"""As a literal: a partial index is not used for a parameter."""
sa.Index(
    "publisher_jobs_queued_once",
    JOBS.c.work,
    unique=True,
    sqlite_where=IS_QUEUED,
    postgresql_where=IS_QUEUED,
)
sa.Index(
    "publisher_jobs_queued",
    JOBS.c.repository,
    JOBS.c.subject,
    sqlite_where=IS_QUEUED,
    postgresql_where=IS_QUEUED,
)
sa.Index("publisher_jobs_state", JOBS.c.state, JOBS.c.ended)
# Pages of the list of jobs, the newest first, of what the filters select.
sa.Index("publisher_jobs_of_state", JOBS.c.state, JOBS.c.id)
sa.Index("publisher_jobs_of_repository", JOBS.c.repository, JOBS.c.id)
sa.Index("publisher_jobs_of_project", JOBS.c.project, JOBS.c.id)

EVENTS = sa.Table(
    "publisher_job_events",
    METADATA,
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("value", sa.Text, nullable=False),  # a JSON object
)

KEYS = sa.Table(
    "publisher_job_keys",
    METADATA,
    sa.Column("key", sa.Text, primary_key=True),  # a digest
    sa.Column("work", sa.Text, nullable=False),
    sa.Column("job", sa.Text, nullable=False, index=True),
)

AUDIT = sa.Table(
    "publisher_audit",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("sender", sa.Text, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
)

HOSTS = sa.Table(
    "publisher_hosts",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("beats", sa.BigInteger, nullable=False),
)

SESSIONS = sa.Table(
    "publisher_sessions",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),  # the SHA-256 of the cookie
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("person", sa.Text, nullable=False),  # a JSON object: groups, claims
    sa.Column("expires", sa.BigInteger, nullable=False),  # seconds since 1970
)

TOKENS = sa.Table(
    "publisher_tokens",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("projects", sa.Text, nullable=False),  # a JSON list
    sa.Column("allows", sa.Text, nullable=False),  # a JSON list
    sa.Column("created", sa.BigInteger, nullable=False),  # seconds since 1970, as the next ones
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("used", sa.BigInteger),
    sa.Column("person", sa.Text, nullable=False, server_default=""),  # its creator, as JSON
)

LISTS = sa.Table(
    "publisher_lists",
    METADATA,
    sa.Column("repository", sa.Text, primary_key=True),  # its URL
    sa.Column("list", sa.Text, primary_key=True),  # its name in records
    sa.Column("withdrawn", sa.BigInteger),  # when its wishes were, None as long as it is configured
)

TICKS = sa.Table(
    "publisher_schedules",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("last", sa.BigInteger, nullable=False),
)


def digest(text: str) -> str:
    """Return the SHA-256 of a text, in hexadecimal digits, by which rows are found."""
    return hashlib.sha256(text.encode()).hexdigest()


def seconds(moment: datetime) -> int:
    """Return a time as seconds since 1970."""
    return int(moment.astimezone(UTC).timestamp())


def now() -> int:
    """Return the time as it is stored."""
    return time.time_ns() // 1_000_000


def driver_url(url: str) -> sa.URL:
    """Return the URL with the name of its driver."""
    parsed = sa.make_url(url)
    if not url.startswith("postgres"):
        return parsed
    more = {name: text for name, text in _CONNECTION.items() if name not in parsed.query}
    return parsed.set(drivername="postgresql+psycopg").update_query_dict(more)


def connect(url: str) -> sa.Engine:
    """Return connections to the database, which are opened when they are needed."""
    if url.startswith("sqlite"):
        engine = sa.create_engine(driver_url(url), connect_args={"timeout": _BUSY_SECONDS})

        @sa.event.listens_for(engine, "connect")
        def lock_at_once(connection: sqlite3.Connection, record: object) -> None:
            # Otherwise two transactions that read before they write could not both continue.
            connection.isolation_level = "IMMEDIATE"

        return engine
    milliseconds = _BUSY_SECONDS * 1000
    return sa.create_engine(
        driver_url(url),
        pool_pre_ping=True,  # connections that a restart of the server has closed
        pool_size=10,
        pool_timeout=_BUSY_SECONDS,
        connect_args={
            "connect_timeout": 5,
            "application_name": "publisher",
            "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
        },
    )


def create_tables(engine: sa.Engine) -> None:
    """Create the tables that are missing; raise JobsUnavailable."""
    if engine.dialect.name == "sqlite":
        _create_file(Path(str(engine.url.database)))
        with available(), engine.connect() as connection:
            # One sync for each commit instead of several, and no reader waits for a writer.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    with available(), engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Otherwise hosts that start at the same time could all create the same table.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION)))
        METADATA.create_all(connection)
        _add_missing(connection)


def _add_missing(connection: sa.Connection) -> None:
    """Add the columns and indexes that the tables of earlier releases lack."""
    for column in (JOBS.c.requested_from, JOBS.c.project, TOKENS.c.person):
        table = column.table.name
        known = {each["name"] for each in sa.inspect(connection).get_columns(table)}
        if column.name not in known:
            statement = f"ALTER TABLE {table} ADD COLUMN {column.name} TEXT NOT NULL DEFAULT ''"
            connection.execute(sa.text(statement))
    for index in JOBS.indexes:
        index.create(connection, checkfirst=True)


def _create_file(path: Path) -> None:
    """Create the file so that only its owner can read it: requests may have private names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


@contextmanager
def available() -> Iterator[None]:
    """Raise JobsUnavailable for errors of the database; IntegrityError is raised unchanged."""
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except sa.exc.SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise JobsUnavailable(
            "cannot reach the database of jobs",
            why=" ".join(str(cause).split())[:300],
            hint=next((hint for text, hint in _HINTS if text.search(str(cause))), _AWAY),
        ) from error
