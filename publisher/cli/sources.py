"""Options for registries and credentials, and the sources that they describe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from publisher.cli.failures import UsageError
from publisher.cli.rendering import message
from publisher.oci.reference import canonical_name
from publisher.sources.settings import EngineTLS, Proxies, Settings

if TYPE_CHECKING:
    from publisher.sources.open import Sources

_F = TypeVar("_F", bound=Callable[..., Any])


def source_options(command: _F) -> _F:
    """`--config` and `--authfile`; the command receives them as `config` and `authfile`."""
    for option in (
        click.option(
            "--authfile",
            type=click.Path(dir_okay=False),
            envvar="REGISTRY_AUTH_FILE",
            show_envvar=True,
            help="Credentials, as podman and docker store them; by default, in their usual files.",
        ),
        click.option(
            "--config",
            type=click.Path(dir_okay=False),
            envvar="PUBLISHER_CONFIG",
            show_envvar=True,
            help="Registry settings: see docs/registries.md. By default, publisher/config.yaml in "
            "XDG_CONFIG_HOME or ~/.config, if it exists.",
        ),
    ):
        command = option(command)
    return command


def open_sources(options: Mapping[str, str | None]) -> Sources:
    """Return the sources that options, environment and configuration file describe.

    Raises:
        UsageError: A file that an option or variable names does not exist. Without credentials,
            private images would seem to be missing.
    """
    authfile = options.get("authfile")
    if authfile and not Path(authfile).exists():
        raise UsageError(
            f"cannot read credentials {authfile}",
            why="no such file",
            hint="correct --authfile or REGISTRY_AUTH_FILE; `publisher login` makes such a file",
        )
    from publisher.sources.open import Sources

    return Sources(load_settings(options), on_wait=message)


def load_settings(options: Mapping[str, str | None]) -> Settings:
    """Return the settings of the configuration file and the environment.

    Raises:
        UsageError: A file cannot be read, or PUBLISHER_REGISTRIES names no registry.
    """
    environment, authfile = os.environ, options.get("authfile")
    return replace(
        _read_configuration(options.get("config")),
        credential_files=tuple(credential_files(authfile)),
        authfile=Path(authfile) if authfile else None,
        only=_only_registries(environment),
        credentials=environment.get("DOCKER_AUTH_CONFIG", ""),
        proxies=Proxies(
            http=_first(environment, "http_proxy", "HTTP_PROXY"),
            https=_first(environment, "https_proxy", "HTTPS_PROXY"),
            no_proxy=_first(environment, "no_proxy", "NO_PROXY"),
        ),
        docker_host=environment.get("DOCKER_HOST", ""),
        docker_tls=_engine_tls(environment),
    )


def credential_files(authfile: str | None) -> Iterator[Path]:
    """Yield the credential files of podman and docker; `authfile` replaces them all."""
    if authfile:
        yield Path(authfile)
        return
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        yield Path(runtime) / "containers/auth.json"
    yield _configuration_home() / "containers/auth.json"
    yield _docker_home(os.environ) / "config.json"


def _read_configuration(path: str | None) -> Settings:
    file = Path(path) if path else _configuration_home() / "publisher/config.yaml"
    try:
        data = file.read_bytes()
    except OSError as error:
        if not path and isinstance(error, FileNotFoundError):
            return Settings()
        raise UsageError(
            f"cannot read configuration {file}", why=error.strerror or str(error)
        ) from error
    from publisher.sources.configuration import parse_settings

    return parse_settings(data, str(file))


def _only_registries(environment: Mapping[str, str]) -> frozenset[str]:
    """Return the canonical names in PUBLISHER_REGISTRIES; empty without the variable.

    One without names is an error: it may be meant to permit none, and would permit all.
    """
    text = environment.get("PUBLISHER_REGISTRIES")
    names = frozenset(map(canonical_name, (text or "").split()))
    if text is not None and not names:
        raise UsageError(
            "cannot use PUBLISHER_REGISTRIES",
            why="it names no registry",
            hint="unset it to permit all registries, or write their names, separated by spaces",
        )
    return names


def _engine_tls(environment: Mapping[str, str]) -> EngineTLS | None:
    """Read the variables as docker does: a certificate path alone is TLS without verification."""
    directory = environment.get("DOCKER_CERT_PATH")
    verify = bool(environment.get("DOCKER_TLS_VERIFY"))  # whatever the text is, also "0"
    if not directory and not verify:
        return None
    return EngineTLS(Path(directory) if directory else _docker_home(environment), verify)


def _docker_home(environment: Mapping[str, str]) -> Path:
    docker = environment.get("DOCKER_CONFIG")
    return Path(docker) if docker else _home() / ".docker"


def _configuration_home() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME")
    return Path(home) if home else _home() / ".config"


def _home() -> Path:
    """Return the user's home directory, or a missing directory where a container has none."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def _first(environment: Mapping[str, str], *names: str) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")
