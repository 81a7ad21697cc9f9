"""`publisher harbor`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from publisher.cli.failures import DONE, SOME_FAILED, UsageError
from publisher.cli.logs import log_options
from publisher.cli.options import output_option
from publisher.cli.rendering import echo, print_json
from publisher.cli.service_process import config_option, read_service_configuration
from publisher.cli.sources import load_settings
from publisher.errors import printable
from publisher.sizes import plural

if TYPE_CHECKING:
    from publisher.service.harbor.model import Result


@click.group()
def harbor() -> None:
    """Make the projects of a Harbor those of the configuration of the service."""


@harbor.command()
@config_option
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option(
    "--prune",
    is_flag=True,
    help="Remove members, robot accounts and empty projects that the configuration does not have.",
)
@output_option
@log_options
def sync(path: str, dry_run: bool, prune: bool, output: str) -> int:
    """Make a Harbor match the configuration.

    Its projects, members, quotas and robot accounts are created and changed. The key `harbor` of
    the configuration names the Harbor, and `projects` what it should have. A robot account that may
    pull is created for each project with `credentials`, and its secret is stored in that file. What
    Harbor has and the configuration does not is printed, and is removed only with --prune. A
    project that has images is never removed.

    \b
    publisher harbor sync --config /etc/publisher/service.yaml --dry-run
    publisher harbor sync --config /etc/publisher/service.yaml

    An action that fails does not stop the others; the next run repeats it. Ends with 1 if one has
    failed, or Harbor cannot be reached, and with 2 if the configuration has errors.
    """
    configuration = read_service_configuration(path, packages=())
    from publisher.service.harbor.client import HarborClient
    from publisher.service.harbor.decide import wanted_projects
    from publisher.service.harbor.sync import Synchronization
    from publisher.sources.credentials.files import has_login, store_login
    from publisher.sources.http.exchange import Exchange

    found = configuration.harbor
    if found is None:
        raise UsageError(
            "cannot synchronize Harbor",
            why=f"{configuration.name} has no key harbor",
            hint="add harbor: {url: 'https://HOST', user: NAME, password-file: PATH}",
        )
    host = urlsplit(found.url).netloc
    access = configuration.access
    logins = {
        each.name
        for each in access.projects
        if each.credentials is not None and has_login(each.credentials, host)
    }

    def store(file: Path, name: str, secret: str) -> None:
        store_login(file, host, name, secret)

    exchange = Exchange(load_settings({}))
    try:
        client = HarborClient(exchange, found)
        wanted = wanted_projects(found, access.projects, access.administrators, logins)
        run = Synchronization(client, found.user, store)
        results = run.run(wanted, dry_run=dry_run, prune=prune)
    finally:
        exchange.close()
    if output == "json":
        values = [_value(each) for each in results]
        print_json("harbor-sync/1", {"url": found.url, "dryRun": dry_run, "actions": values})
    else:
        _print(results)
    return SOME_FAILED if any(each.status == "failed" for each in results) else DONE


def _print(results: Sequence[Result]) -> None:
    for each in results:
        action = each.action
        subject = f" {action.subject}" if action.subject else ""
        detail = f" ({action.detail})" if action.detail else ""
        error = f": {each.error}" if each.error else ""
        text = f"{each.status}: {action.kind} {action.project}{subject}{detail}{error}"
        echo(printable(text), err=each.status == "failed")
    counts: dict[str, int] = {}
    for each in results:
        counts[each.status] = counts.get(each.status, 0) + 1
    parts = [f"{plural(count, 'action')} {status}" for status, count in counts.items()]
    echo(", ".join(parts) or "Harbor matches the configuration")


def _value(result: Result) -> dict[str, object]:
    action = result.action
    return {
        "action": str(action.kind),
        "project": action.project,
        "subject": action.subject,
        "detail": action.detail,
        "status": str(result.status),
        "error": result.error,
    }
