"""`publisher token`."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

import click

from publisher.cli.failures import UsageError
from publisher.cli.logs import log_options
from publisher.cli.options import output_option
from publisher.cli.rendering import echo, message, print_json
from publisher.cli.service_process import (
    config_option,
    open_database,
    read_service_configuration,
)
from publisher.cli.tables import print_aligned
from publisher.errors import printable
from publisher.service.verbs import GRANTED, Verb
from publisher.times import utc_now

if TYPE_CHECKING:
    import sqlalchemy as sa

    from publisher.service.access import Access
    from publisher.service.configuration import ServiceConfiguration
    from publisher.service.login.tokens import StoredToken

_PATH = "/api/v1/tokens"


@click.group()
def token() -> None:
    """Create, list and revoke tokens for requests to the service, in its database.

    Neither a running service nor a login is needed: so the first token of a new service is made.
    Run it as the user of the service, on one of its hosts. Each change is in the audit log.
    """


@token.command()
@config_option
@click.option("--name", required=True, help="Which program or person has the token.")
@click.option(
    "--allow",
    "allows",
    type=click.Choice([str(verb) for verb in GRANTED]),
    multiple=True,
    required=True,
    help="What requests with it may do; may be repeated.",
)
@click.option(
    "--project",
    "projects",
    multiple=True,
    help="Where; may be repeated. By default, in the service itself and all projects.",
)
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="The first day on which it is not valid (UTC), within a year; by default, in 90 days.",
)
@output_option
@log_options
def create(
    path: str,
    name: str,
    allows: Sequence[str],
    projects: Sequence[str],
    expires: datetime | None,
    output: str,
) -> None:
    """Create a token, and print its text.

    The text is shown only once: the database has its hash. It alone is on standard output, so that
    it can be written to a file.

    \b
    umask 077
    publisher token create --config /etc/publisher/service.yaml --name ci --allow submit > token
    """
    configuration = _configuration(path)
    from publisher.service.login.tokens import Tokens, token_end, token_value

    _check_names(configuration, name, projects)
    now = utc_now()
    day: date | None = None if expires is None else expires.date()
    try:
        end = token_end(day, now)
    except ValueError as error:
        raise UsageError(
            "cannot create a token", why=str(error), hint="choose an earlier day, or a later one"
        ) from error
    engine = open_database(configuration, "token")
    verbs = frozenset(map(Verb, allows))
    made, text = Tokens(engine).create(name, sorted(set(projects)), verbs, _sender(), now, end)
    _record(engine, "POST", _PATH, 201)
    if output == "json":
        print_json("token/1", token_value(made) | {"token": text})
        return
    echo(text)
    message(f"created {made.name} ({made.id}), valid until {made.expires.date()}", prefix="")


@token.command("list")
@config_option
@output_option
@log_options
def list_command(path: str, output: str) -> None:
    """List the created tokens, without their texts.

    Those of the configuration are not included. A token allows nothing any more if its projects are
    not in the configuration, or the user who created it has no role there.

    \b
    publisher token list --config /etc/publisher/service.yaml
    """
    configuration = _configuration(path)
    engine = open_database(configuration, "token")
    from publisher.service.login.tokens import Tokens, token_value

    found = Tokens(engine).list()
    if output == "json":
        print_json("tokens/1", {"tokens": [token_value(each) for each in found]})
    elif found:
        heads = ("identifier", "name", "allows", "projects", "created by", "expires", "last used")
        rows = (_row(each, configuration.access) for each in found)
        print_aligned([heads, *rows], figures=False)
    else:
        echo("no tokens")


@token.command()
@config_option
@click.argument("identifier")
@output_option
@log_options
def revoke(path: str, identifier: str, output: str) -> None:
    """Revoke the token with IDENTIFIER.

    `publisher token list` shows it.

    \b
    publisher token revoke --config /etc/publisher/service.yaml 0123456789abcdef
    """
    engine = open_database(_configuration(path), "token")
    from publisher.service.login.tokens import NoSuchToken, Tokens, token_value

    tokens = Tokens(engine)
    try:
        found = tokens.get(identifier)
    except NoSuchToken as error:
        raise UsageError(
            f"cannot revoke {printable(identifier)}",
            why="no token has this identifier",
            hint="publisher token list",
        ) from error
    tokens.revoke(found.id)
    _record(engine, "DELETE", f"{_PATH}/{found.id}", 200)
    if output == "json":
        print_json("token/1", token_value(found))
    else:
        message(f"revoked {found.name} ({found.id})", prefix="")


def _configuration(path: str) -> ServiceConfiguration:
    return read_service_configuration(path, packages=("sqlalchemy",))


def _check_names(configuration: ServiceConfiguration, name: str, projects: Sequence[str]) -> None:
    from publisher.service.fields import is_name

    if not is_name(name):
        raise UsageError(
            "cannot create a token",
            why=f"{printable(name)!r} is not a name",
            hint="use letters, digits, '.', '_' and '-', and begin with one of the first two",
        )
    known = [each.name for each in configuration.access.projects]
    for each in projects:
        if each not in known:
            raise UsageError(
                "cannot create a token",
                why=f"the configuration has no project {printable(each)}",
                hint=f"known are {', '.join(known)}" if known else "add it to the configuration",
            )


def _sender() -> str:
    """Return the user of this command, for records."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, a user need not have a name
        user = str(os.geteuid())
    return f"{user}@{socket.gethostname()}"


def _record(engine: sa.Engine, method: str, path: str, status: int) -> None:
    """Add an entry to the audit log, as the same request has."""
    from publisher.service.audit import Audit

    Audit(engine).add(_sender(), "", method, path, status)


def _row(found: StoredToken, access: Access) -> tuple[str, ...]:
    return (
        found.id,
        printable(found.name),
        ", ".join(sorted(found.allows)) if found.grants(access) else "nothing any more",
        ", ".join(found.projects) or "all",
        printable(found.created_by),
        found.expires.date().isoformat(),
        f"{found.used:%Y-%m-%d %H}h" if found.used is not None else "never",
    )
