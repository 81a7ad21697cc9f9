"""Thin images into a Docker engine, and through it into a registry that it is logged in to.

An engine reports failures of loads and pushes as lines of an answer that says 200: each is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import docker
import docker.errors
import requests

from publisher.thin import ThinImageError
from publisher.thin.image import ThinSet
from publisher.thin.save import engine_archive

_T = TypeVar("_T")
_TIMEOUT = 300
"""Seconds for one answer of an engine."""


def load_into_engine(thin: ThinSet, host: str, name: str) -> None:
    """Load the thin image (of several platforms, the first one) as `name` ("name:tag").

    `host` is an engine's address, as DOCKER_HOST has it; empty: the usual local one.
    """
    data = engine_archive(thin.images[0], name)
    with_engine(host, f"load {name} into", lambda api: _check(api.load_image(data)))


def push_through_engine(thin: ThinSet, host: str, repository: str, tag: str) -> None:
    """Load the thin image, and have the engine push it with its own credentials."""
    load_into_engine(thin, host, f"{repository}:{tag}")
    with_engine(
        host,
        f"push {repository}:{tag} through",
        lambda api: _check(api.push(repository, tag, stream=True, decode=True)),
    )


def with_engine(host: str, what: str, action: Callable[[Any], _T]) -> _T:
    """Do something with an engine's API; every failure is a ThinImageError that says what."""
    address = host or "unix:///var/run/docker.sock"
    try:
        api = docker.APIClient(base_url=address, version="auto", timeout=_TIMEOUT)
        try:
            return action(api)
        finally:
            api.close()
    except (docker.errors.DockerException, requests.RequestException, _Refused) as error:
        raise ThinImageError(
            f"cannot {what} the Docker engine at {address}",
            why=str(error),
            hint="is it running, and may this user talk to it? DOCKER_HOST names another one",
        ) from error


class _Refused(Exception):
    """A line of an answer that reports a failure."""


def _check(lines: Iterable[Any]) -> None:
    for line in lines:
        if isinstance(line, dict) and ("error" in line or "errorDetail" in line):
            detail = line.get("errorDetail")
            message = detail.get("message") if isinstance(detail, dict) else None
            raise _Refused(str(message or line.get("error")))
