"""`publisher worker`."""

from __future__ import annotations

import click

from publisher.cli.failures import DONE, UsageError
from publisher.cli.logs import log_options
from publisher.cli.rendering import echo
from publisher.cli.service_process import (
    check_option,
    config_option,
    read_service_configuration,
    run_host,
    summary,
)


@click.command()
@config_option
@check_option
@log_options
def worker(path: str, check: bool) -> int:
    """Run a further host of the service, which takes jobs and answers no requests.

    Its configuration is that of `publisher serve`, with a directory of its own as `state`; the
    database has to be PostgreSQL. All hosts need the same access to repositories and wish lists.

    Runs until it is terminated. SIGHUP reads the configuration again. If this host dies, its jobs
    run on other hosts; if it is terminated in order, they do so at once.

    \b
    publisher worker --config /etc/publisher/service.yaml

    Ends with 2 if the configuration has errors, with 3 if the state is used by another process.
    """
    configuration = read_service_configuration(path)
    if not configuration.is_shared:
        raise UsageError(
            "cannot take jobs",
            why="an SQLite database is for one host",
            hint="name a PostgreSQL database in the configuration of all hosts",
        )
    if check:
        echo(summary(configuration))
        return DONE
    return run_host(configuration, lambda host: lambda: None)
