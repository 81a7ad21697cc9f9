"""`publisher reconcile`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from publisher.cli.failures import DONE, SOME_FAILED, UsageError
from publisher.cli.logs import log_options
from publisher.cli.options import repository_option, wait_option
from publisher.cli.rendering import echo, message
from publisher.cli.repositories import open_repository, whole_url
from publisher.cli.service_process import (
    config_option,
    open_database,
    read_service_configuration,
)
from publisher.cli.sources import open_sources
from publisher.errors import PublisherError
from publisher.sizes import plural
from publisher.times import format_time, utc_now

if TYPE_CHECKING:
    from publisher.service.configuration import RepositoryConfiguration
    from publisher.service.reconcile import Reconciliation, Report


@click.command()
@config_option
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option(
    "--digest",
    hidden=True,
    help="The SHA-256 of the file: that of the configuration which the service uses now.",
)
@repository_option
@wait_option
@log_options
def reconcile(
    path: str, dry_run: bool, digest: str | None, repository: str | None, wait: float
) -> int:
    """Make the repositories of the service, or that of --repository, match its configuration.

    Images of wish lists that the configuration does not have any more are scheduled for removal,
    unless another list requests them; they stay usable for their grace periods. Lists that the
    service never had, and images published by hand, are left alone. An ingest of each list is
    queued, which publishes missing images again; images whose list is back leave the schedule.
    Images in the directory of a project (`prefix`) that none of its lists requests are printed.
    Tokens that have expired are removed.

    \b
    publisher reconcile --config /etc/publisher/service.yaml --dry-run
    publisher reconcile --config /etc/publisher/service.yaml

    Ends with 1 if something could not be done, and with 2 if the configuration has errors. A
    repository that cannot be used does not keep the others from being reconciled.
    """
    configuration = read_service_configuration(path)
    if digest is not None and digest != configuration.digest:
        raise UsageError(
            "cannot reconcile",
            why=f"{path} has changed since the service read it",
            hint="send SIGHUP to the service, which then uses the file, or queue the job again",
        )
    from publisher.service.jobs.lanes import lanes_of
    from publisher.service.jobs.lists import ConfiguredLists
    from publisher.service.jobs.store import StoredJobs
    from publisher.service.login.tokens import Tokens
    from publisher.service.reconcile import Reconciliation

    chosen = [
        each
        for each in configuration.repositories
        if repository is None or whole_url(each.url) == whole_url(repository)
    ]
    if not chosen:
        raise UsageError(
            f"cannot reconcile {repository}",
            why="it is not a repository of the configuration",
            hint="omit --repository, or correct it",
        )
    engine = open_database(configuration, "reconcile")
    jobs = StoredJobs(engine, configuration.limits.queued)
    lanes = lanes_of(configuration, os.environ)
    jobs.allow_lanes(lanes, configuration.limited_projects)
    is_complete = True
    with open_sources({}) as sources:
        work = Reconciliation(configuration.access, ConfiguredLists(engine), jobs, sources, utc_now)
        for each in chosen:
            try:
                report = _reconcile(work, each, dry_run, wait)
            except PublisherError as error:
                if len(chosen) == 1:
                    raise
                message(f"cannot reconcile {each.name}: {error}")
                is_complete = False
                continue
            _print(report, "would be " if dry_run else "")
            is_complete = is_complete and report.is_complete
    tokens = Tokens(engine).remove_expired(utc_now(), dry_run=dry_run)
    if tokens:
        echo(f"{plural(tokens, 'expired token')} {'would be ' if dry_run else ''}removed")
    engine.dispose()
    return DONE if is_complete else SOME_FAILED


def _reconcile(
    work: Reconciliation, configured: RepositoryConfiguration, dry_run: bool, wait: float
) -> Report:
    repository = open_repository(configured.url, writable=not dry_run, may_be_new=True, wait=wait)
    try:
        return work.run(configured, repository, dry_run=dry_run)
    finally:
        repository.close()


def _print(report: Report, would: str) -> None:
    for name in sorted(report.gone):
        echo(f"withdrawn: {name}  is not in the configuration")
    for entry in report.scheduled:
        until = format_time(entry.not_before)
        echo(f"{would}scheduled: {entry.name}  may be removed from {until}")
    for name in report.restored:
        echo(f"{would}restored: {name}  its project is in the configuration again")
    for name, why in report.kept.items():
        echo(f"kept: {name}  {why}")
    for name, project in report.unrequested.items():
        echo(f"not requested: {name}  is in the directory of the project {project}")
    for name, why in report.unreadable.items():
        echo(f"kept: {name}: {why}", err=True)
    for name in report.queued:
        echo(f"{would}queued: ingest of {name}")
    if report.waiting:
        lists = plural(report.waiting, "list")
        echo(f"publisher: {lists} not queued: as many jobs wait as limits.queued allows", err=True)
    echo(
        f"{plural(len(report.scheduled), 'image')} {would}scheduled; "
        f"{plural(len(report.unrequested), 'image')} not requested"
    )
