"""`publisher serve`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from publisher.service.configuration import Listen
    from publisher.service.host import Host


_BACKLOG = 64
"""How many connections are accepted before it is counted how many there are."""


@click.command()
@config_option
@check_option
@log_options
def serve(path: str, check: bool) -> int:
    """Run the service: jobs by schedule, and an HTTP server.

    A job is a command of the publisher, such as an ingest of one wish list, that runs in a process
    of its own; one at a time for each repository. Jobs are in an SQLite file of this host, or in a
    PostgreSQL database, from which further hosts take jobs too: see `publisher worker`. A job whose
    host dies runs again.

    Runs until it is terminated, as an ordinary user who may write to the repositories. SIGHUP reads
    the configuration again; one with errors is not used. GET /livez and /readyz report whether the
    process is alive, and whether it takes jobs. / has pages about the published images, and
    /api/v1/openapi.json describes the REST interface; access and tokens in the configuration state
    which requests are answered.

    \b
    publisher serve --config /etc/publisher/service.yaml --check
    publisher serve --config /etc/publisher/service.yaml

    Ends with 2 if the configuration has errors, with 3 if the state is used by another process.
    """
    configuration = read_service_configuration(path)
    if check:
        echo(summary(configuration))
        return DONE
    listening = _listen(configuration.listen)
    return run_host(configuration, lambda host: _serve(host, listening))


def _listen(listen: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        listening = socket.create_server((listen.host, listen.port), family=family)
        # Connections inherit it. Without it, the body of an answer waits until the client has
        # acknowledged the head, which takes 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise UsageError(
            f"cannot listen on {listen.host} port {listen.port}",
            why=error.strerror or str(error),
            hint="correct listen in the configuration, or end what uses the port",
        ) from error


def _serve(host: Host, listening: socket.socket) -> Callable[[], None]:
    """Begin to answer requests in a thread; return what ends that."""
    import uvicorn

    from publisher.repository.descriptors import connections_within_limit, raise_limit
    from publisher.service.web.connections import MOST, bounded

    raise_limit()
    most = connections_within_limit(MOST)
    server = uvicorn.Server(
        uvicorn.Config(
            _application(host),
            log_config=None,
            proxy_headers=False,  # only the proxy of the configuration is trusted
            access_log=False,
            timeout_graceful_shutdown=5,
            http=bounded(most),
            ws="none",
            backlog=_BACKLOG,
            server_header=False,
        )
    )
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, name="http", daemon=True
    )
    thread.start()

    def end() -> None:
        server.should_exit = True
        thread.join(10)

    return end


def _application(host: Host) -> Starlette:
    """Return what answers requests, by the configuration that `host` has at that moment."""
    from publisher.cli.served_checks import ServedChecks
    from publisher.cli.served_lists import ServedLists
    from publisher.cli.served_trees import ServedTrees
    from publisher.service.health import health_routes
    from publisher.service.jobs.pushed import PushedImages
    from publisher.service.web.application import application
    from publisher.service.web.context import Context
    from publisher.service.web.hooks import HookContext, hook_routes
    from publisher.service.web.wish_pages import WishTools, wish_routes

    trees = ServedTrees(lambda: host.configuration)
    context = Context(
        trees,
        lambda: host.configuration.access,
        host.jobs,
        lambda: host.configuration.repositories,
        project_of=trees.project_of,
        database=host.engine,
        limits=lambda: host.configuration.limits,
        audit=host.audit,
    )
    lists = ServedLists()
    hooks = HookContext(
        lambda: host.configuration.hooks,
        lambda: host.configuration.repositories,
        lists,
        PushedImages(host.engine, host.jobs).submit,
    )
    tools = WishTools(lists, ServedChecks(lambda: host.configuration))
    others = [
        *health_routes(lambda: host.trouble),
        *hook_routes(hooks),
        *wish_routes(context, tools),
    ]
    return application(context, others)
