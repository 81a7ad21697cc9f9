"""Options about where images come from, and the sources that they describe."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from publisher.cli.failures import UsageError
from publisher.sources.open import Sources
from publisher.sources.settings import Settings, parse_settings

_F = TypeVar("_F", bound=Callable[..., Any])


def source_options(command: _F) -> _F:
    """`--config` and `--authfile`; the command receives them as `config` and `authfile`."""
    for option in (
        click.option(
            "--authfile",
            type=click.Path(dir_okay=False),
            envvar="REGISTRY_AUTH_FILE",
            show_envvar=True,
            help="Credentials, as podman and docker store them; without it their usual places.",
        ),
        click.option(
            "--config",
            type=click.Path(dir_okay=False),
            envvar="PUBLISHER_CONFIG",
            show_envvar=True,
            help="Registry settings: see docs/registries.md. Without it, publisher/config.yaml in "
            "XDG_CONFIG_HOME or ~/.config, if there is one.",
        ),
    ):
        command = option(command)
    return command


def open_sources(options: Mapping[str, str | None]) -> Sources:
    """The sources as the options, the environment and the configuration file describe them."""
    raise NotImplementedError
