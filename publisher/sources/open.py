"""From an image reference to the source that has the image."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from publisher.oci.reference import ImageReference, Transport
from publisher.sources import Source
from publisher.sources.archive import Archive
from publisher.sources.docker_archive import open_docker_archive
from publisher.sources.docker_daemon import EngineSource
from publisher.sources.engine import Engine
from publisher.sources.files import Folder
from publisher.sources.oci_layout import LayoutSource
from publisher.sources.registry.auth import RegistryAuth
from publisher.sources.registry.credentials import Credentials
from publisher.sources.registry.endpoint import Endpoint
from publisher.sources.registry.exchange import Exchange
from publisher.sources.registry.source import RegistrySource
from publisher.sources.registry.upload import RegistryDestination
from publisher.sources.settings import Settings


class Sources:
    """Opens sources, and keeps what they share: settings, connections, the back-off of each host.

    `on_wait` is called with a sentence whenever a registry makes us wait. Use as a context manager:
    its end closes all connections. Safe to use from several threads.
    """

    def __init__(
        self,
        settings: Settings = Settings(),  # noqa: B008  # frozen: one value for all is right
        on_wait: Callable[[str], None] | None = None,
        *,
        base_delay: float = 1.0,
    ) -> None:
        self._settings = settings
        self._exchange = Exchange(settings, on_wait, base_delay=base_delay)
        self._credentials = Credentials(settings)
        self._registries: dict[tuple[str, bool], RegistryAuth] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; requests that wait end with an error."""
        self._exchange.close()

    def open(self, reference: ImageReference) -> Source:
        """The source of `reference`. Nothing is asked of it yet."""
        match reference.transport:
            case Transport.REGISTRY:
                return RegistrySource(reference, self._endpoints(reference))
            case Transport.OCI:
                folder = Folder(Path(reference.location), f"oci:{reference.location}")
                return LayoutSource(folder, reference.tag, reference.digest)
            case Transport.OCI_ARCHIVE:
                archive = _archive(reference)
                return LayoutSource(archive, reference.tag, reference.digest)
            case Transport.DOCKER_ARCHIVE:
                return open_docker_archive(_archive(reference), _engine_name(reference))
            case Transport.DOCKER_DAEMON:
                return EngineSource(self.engine(), _engine_name(reference) or "")

    def engine(self) -> Engine:
        """Return the container engine that the settings name."""
        return Engine(
            self._settings.docker_host,
            self._settings.docker_tls,
            check=lambda: self._exchange.pause(0),
        )

    def destination(
        self, reference: ImageReference, *, delete: bool = False
    ) -> RegistryDestination:
        """Where an image is pushed to: always the registry itself, never its mirror.

        `delete` asks for the right to delete there as well.
        """
        actions = "pull,push,delete" if delete else "pull,push"
        return RegistryDestination(
            self._endpoint(reference.registry, reference.plain_http, reference.repository, actions)
        )

    def _endpoints(self, reference: ImageReference) -> list[Endpoint]:
        """Where to ask, in this order: the registry's mirror, if it has one, and the registry."""
        endpoints = []
        mirror = self._settings.registry(reference.registry).mirror
        if mirror:
            scheme, _, rest = mirror.rpartition("://")
            host, slash, prefix = rest.partition("/")
            repository = f"{prefix}{slash}{reference.repository}"
            endpoints.append(self._endpoint(host.lower(), scheme == "http", repository))
        own = self._endpoint(reference.registry, reference.plain_http, reference.repository)
        return [*endpoints, own]

    def _endpoint(
        self, registry: str, plain_http: bool, repository: str, actions: str = "pull"
    ) -> Endpoint:
        with self._lock:
            auth = self._registries.get((registry, plain_http))
            if auth is None:
                auth = RegistryAuth(registry, plain_http, self._exchange, self._credentials)
                self._registries[registry, plain_http] = auth
        return Endpoint(auth, repository, actions)


def _archive(reference: ImageReference) -> Archive:
    return Archive(f"{reference.transport}:{reference.location}", Path(reference.location))


def _engine_name(reference: ImageReference) -> str | None:
    if not reference.repository:
        return None
    return f"{reference.repository}:{reference.tag or 'latest'}"
