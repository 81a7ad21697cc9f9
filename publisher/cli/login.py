"""`publisher login` and `publisher logout`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from publisher.cli.failures import UsageError
from publisher.cli.logs import log_options
from publisher.cli.options import output_option
from publisher.cli.rendering import echo, print_json
from publisher.cli.sources import credential_files, load_settings, source_options
from publisher.errors import presentable
from publisher.oci.reference import parse_reference
from publisher.sources.credentials.files import has_login, remove_login, store_login
from publisher.sources.registry.login import check_login

MAX_PASSWORD = 64 * 1024


@click.command()
@click.argument("registry")
@click.option("-u", "--username", help="By default, a terminal prompts for it.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@source_options
@output_option
@log_options
def login(
    registry: str,
    username: str | None,
    password_stdin: bool,
    output: str,
    **source_settings: str | None,
) -> None:
    """Verify a user name and password at REGISTRY, and store them.

    They are stored as docker and podman store them, and work for those as well: in --authfile, else
    in podman's auth.json or docker's config.json if it has an entry for the registry, else in
    docker's; or with the credential helper that the file names. REGISTRY is a host with an optional
    port; http:// before it means plain HTTP.

    \b
    publisher login registry.example.org -u robot --password-stdin < password
    """
    host, plain_http = _registry(registry)
    if password_stdin:
        password = _read_password(registry)
    elif sys.stdin.isatty():
        username = username or click.prompt("User name", err=True)
        password = click.prompt("Password", hide_input=True, err=True)
    else:
        raise UsageError(
            f"cannot log in to {registry}",
            why="there is no terminal to ask for a password",
            hint="pass it on standard input with --password-stdin",
        )
    if not username or not password:
        raise UsageError(
            f"cannot log in to {registry}",
            why="a user name and a password are needed",
            hint="give --username, and the password on standard input",
        )
    _check(registry, username, password)
    check_login(load_settings(source_settings), host, username, password, plain_http=plain_http)
    kept = store_login(_file(source_settings["authfile"], host), host, username, password)
    if output == "json":
        print_json("login/1", {"registry": host, "keptIn": kept})
    else:
        echo(f"logged in to {host}; stored in {kept}")


@click.command()
@click.argument("registry")
@source_options
@output_option
@log_options
def logout(registry: str, output: str, **source_settings: str | None) -> None:
    """Remove what `publisher login REGISTRY` stored."""
    host, _ = _registry(registry)
    removed = remove_login(_file(source_settings["authfile"], host), host)
    if output == "json":
        print_json("logout/1", {"registry": host, "removed": removed})
    else:
        echo(f"logged out of {host}" if removed else f"was not logged in to {host}")


def _read_password(registry: str) -> str:
    """Return all of standard input, as docker reads it: a password can have many lines."""
    data = sys.stdin.buffer.read(MAX_PASSWORD + 1)
    if len(data) > MAX_PASSWORD:
        raise UsageError(
            f"cannot log in to {registry}", why=f"the password is longer than {MAX_PASSWORD} bytes"
        )
    return data.decode(errors="surrogateescape").removesuffix("\n").removesuffix("\r")


def _check(registry: str, username: str, password: str) -> None:
    """Refuse what Basic authentication cannot transmit."""
    why = "the user name contains a colon" if ":" in username else ""
    try:
        (username + password).encode()
    except UnicodeEncodeError:
        why = "user name and password have to be UTF-8"
    if why:
        raise UsageError(f"cannot log in to {registry}", why=why)


def _registry(text: str) -> tuple[str, bool]:
    """Return the host, and whether to use plain HTTP. The rules are those of image references."""
    scheme, separator, host = text.rpartition("://")
    host = host.rstrip("/")
    if "/" in host:
        raise UsageError(
            f"cannot use {presentable(text)!r} as a registry",
            why="it has a path, and a login is for a whole registry",
            hint=f"write {presentable(text[: len(scheme + separator)] + host.partition('/')[0])}",
        )
    # Without a scheme, a name could be one of Docker Hub, which would receive the password.
    reference = parse_reference(f"{scheme or 'https'}://{host}/name")
    return reference.registry, reference.plain_http


def _file(authfile: str | None, registry: str) -> Path:
    """Return the file with an entry for the registry, else docker's, which outlives the session."""
    files = list(credential_files(authfile))
    return next((file for file in files if has_login(file, registry)), files[-1])
