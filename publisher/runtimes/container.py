"""What a container is started with, read from an image's config as engines read it. Pure.

Source: OCI image specification 1.1, config page ("config" object).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publisher.oci.config import ImageConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What engines search where an image says nothing."""


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """What runs in a container, as whom, where, and with which environment.

    `user` is as written ("", "name", "uid", "user:group"); `directory` is "/" if not given.
    """

    environment: Mapping[str, str]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    user: str
    directory: str

    @classmethod
    def of(cls, config: ImageConfig) -> ContainerConfig:
        """Read an image's config; what has the wrong type counts as not given."""
        settings: Mapping[str, Any] = config.values.get("config") or {}
        user, directory = settings.get("User"), settings.get("WorkingDir")
        return cls(
            _environment(settings.get("Env")),
            _words(settings.get("Entrypoint")),
            _words(settings.get("Cmd")),
            user if isinstance(user, str) else "",
            directory if isinstance(directory, str) and directory else "/",
        )

    def arguments(self, given: Sequence[str] = ()) -> tuple[str, ...]:
        """What is executed: what is `given` replaces the command, never the entry point."""
        return (*self.entrypoint, *(given or self.command))


def _environment(raw: Any) -> dict[str, str]:
    variables: dict[str, str] = {}
    for item in raw if isinstance(raw, list) else ():
        name, equals, value = item.partition("=") if isinstance(item, str) else ("", "", "")
        if name and equals:
            variables[name] = value  # of two, engines take the last
    return variables


def _words(raw: Any) -> tuple[str, ...]:
    if isinstance(raw, str):
        return (raw,)  # as old configs have it
    return tuple(word for word in raw or () if isinstance(word, str))
