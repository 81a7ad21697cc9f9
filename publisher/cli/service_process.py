"""The process of one host of the service, for `publisher serve` and `publisher worker`."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.cli.failures import DONE, UsageError
from publisher.cli.logs import is_requested, line_start
from publisher.cli.rendering import message
from publisher.cli.systemd import notify_systemd
from publisher.errors import PublisherError, install_hint, printable
from publisher.repository import RepositoryError
from publisher.sizes import plural

if TYPE_CHECKING:
    import sqlalchemy as sa

    from publisher.service.configuration import ServiceConfiguration
    from publisher.service.host import Host

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}

_REPEATED_SECONDS = 60.0

config_option = click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    required=True,
    envvar="PUBLISHER_SERVICE_CONFIG",
    show_envvar=True,
    help="The configuration of the service: see docs/service.md.",
)
check_option = click.option(
    "--check", is_flag=True, help="Report all errors in the configuration, and run nothing."
)


_OF_A_HOST = ("dbos", "jinja2", "msgspec", "starlette", "uvicorn")
"""Packages of the extra `service` that a host needs, beside those that read its configuration."""


def read_service_configuration(
    path: str, packages: Sequence[str] = _OF_A_HOST
) -> ServiceConfiguration:
    """Return the configuration in a file; raise UsageError if a package is missing.

    `packages` are those that are needed beside the ones that read the configuration.
    """
    try:
        for package in packages:
            importlib.import_module(package)
        from publisher.service.parse_configuration import read_configuration
    except ModuleNotFoundError as error:
        raise UsageError(
            "cannot run the service",
            why=f"the Python package {error.name} is missing",
            hint=install_hint("service"),
        ) from error
    from publisher.cli.service_arguments import check_arguments

    return read_configuration(os.path.abspath(path), check_arguments)


def open_database(configuration: ServiceConfiguration, command: str) -> sa.Engine:
    """Return the database, with the tables that it lacks before the first start of the service.

    Raises UsageError if it belongs to another user; `command` is what to run as that user.
    """
    from publisher.service.jobs.database import connect, create_tables

    engine = connect(configuration.database)
    if not configuration.is_shared:
        _check_owner(Path(str(engine.url.database)), command)
    create_tables(engine)
    return engine


def _check_owner(file: Path, command: str) -> None:
    """Raise UsageError if the file belongs to another user, or its directory does.

    Files that another user adds there could not be written by the service.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    owned = file if file.exists() else file.parent
    owner = owned.stat().st_uid
    if owner != os.geteuid():
        raise UsageError(
            f"cannot use {owned}",
            why=f"it belongs to the user with the number {owner}, as the service does",
            hint=f"run the command as this user: sudo -u '#{owner}' publisher {command} …",
        )


def summary(configuration: ServiceConfiguration) -> str:
    """Return what a configuration contains, in one line."""
    lists = sum(len(each.lists) for each in configuration.repositories)
    repositories = ", ".join(each.name for each in configuration.repositories)
    kind = "PostgreSQL" if configuration.is_shared else "SQLite"
    counted = f"repositories {repositories}; {plural(lists, 'list')}"
    return f"{configuration.name}: {counted}, jobs in {kind}"


def run_host(
    configuration: ServiceConfiguration, begin: Callable[[Host], Callable[[], None]]
) -> int:
    """Run one host until SIGTERM or SIGINT; SIGHUP reads the configuration again.

    `begin` starts what else the process does, and returns what ends it. Does not return: threads of
    the queue would wait for the ends of jobs, which run elsewhere now.
    """
    from publisher.service.host import Host, StateInUse

    _log_to_stderr()
    # Blocked before any thread begins, the signals are received by `sigwait` alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        host = Host(configuration, dict(os.environ))
        end = begin(host)
    except StateInUse as error:
        raise RepositoryError(error.what, why=error.why, hint=error.hint) from error
    host.start()
    message(f"serving {summary(configuration)}", prefix=line_start())
    notify_systemd("READY=1")
    while signal.sigwait(_SIGNALS) == signal.SIGHUP:
        _reload(host)
    notify_systemd("STOPPING=1")
    end()
    host.stop()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(DONE)


def _reload(host: Host) -> None:
    notify_systemd("RELOADING=1")
    try:
        configuration = read_service_configuration(host.configuration.name)
        host.reload(configuration)
        message(f"reloaded {summary(configuration)}", prefix=line_start())
    except PublisherError as error:
        text = "; ".join(str(error).splitlines())  # an error in each line
        message(f"the former configuration stays in use: {text}", prefix=line_start())
    notify_systemd("READY=1")


def _log_to_stderr() -> None:
    if is_requested():
        logging.getLogger("dbos").addHandler(logging.NullHandler())  # else it adds one of its own
        return  # lines as those of other commands
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    handler.addFilter(_Repetitions())
    for name in ("publisher.service", "dbos", "uvicorn.error"):
        log = logging.getLogger(name)
        log.handlers[:] = [handler]
        log.setLevel(logging.WARNING)
        log.propagate = False


class _OneLine(logging.Formatter):
    """A line for each record: DBOS logs tracebacks of each error of the database."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage().partition("\n")[0]
        if record.exc_info and record.exc_info[1] is not None:
            text += f" {str(record.exc_info[1]).partition(chr(10))[0]}"
        start = line_start(record.created, record.levelno)
        return f"{start}{record.levelname}: {printable(text)}"


class _Repetitions(logging.Filter):
    """Leaves out what was logged less than a minute ago: many threads try again every second."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()[:200]
        if record.created - self._logged.get(text, float("-inf")) < _REPEATED_SECONDS:
            return False
        if len(self._logged) > 1000:
            self._logged.clear()
        self._logged[text] = record.created
        return True
