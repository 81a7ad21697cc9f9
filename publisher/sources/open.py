"""Open sources by image reference, with shared connections and settings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.closing import Closing
from publisher.oci.reference import ImageReference, Transport, canonical_name
from publisher.sources import Source
from publisher.sources.errors import RegistryNotPermitted
from publisher.sources.settings import Settings

if TYPE_CHECKING:  # each transport is loaded at its first use: many commands use none
    from publisher.sources.archive import Archive
    from publisher.sources.credentials.lookup import Credentials
    from publisher.sources.engine import Engine
    from publisher.sources.http.clock import Clock
    from publisher.sources.http.exchange import Exchange
    from publisher.sources.registry.auth import RegistryAuth
    from publisher.sources.registry.endpoint import Endpoint
    from publisher.sources.registry.upload import RegistryDestination


class Sources(Closing):
    """Opens sources, which share settings, connections, and the back-off of each host.

    It is a context manager, which closes all connections. Safe to use from several threads.

    Args:
        settings: How registries and engines are reached.
        on_wait: Called with a message if a registry requests a wait.
        base_delay: The first back-off after a failed request in seconds.
        clock: The clock for waits for registries.
    """

    def __init__(
        self,
        settings: Settings = Settings(),  # noqa: B008  # immutable: one value can serve all
        on_wait: Callable[[str], None] | None = None,
        *,
        base_delay: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._on_wait = on_wait
        self._base_delay = base_delay
        self._clock = clock
        self._connections: Exchange | None = None
        self._credentials: Credentials | None = None
        self._registries: dict[tuple[str, bool], RegistryAuth] = {}
        self._closed = False
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close all connections; requests that wait end with a SourceError."""
        with self._lock:
            self._closed = True
            connections = self._connections
        if connections is not None:
            connections.close()

    def open(self, reference: ImageReference) -> Source:
        """Return the source of `reference`.

        Registries, layouts and engines are not accessed here. A `docker-archive:` is read to find
        the image, with the errors of `open_docker_archive`.

        Raises:
            RegistryNotPermitted: The settings do not permit requests to its registry.
        """
        match reference.transport:
            case Transport.REGISTRY:
                from publisher.sources.registry.source import RegistrySource

                self.require_permitted(reference)
                return RegistrySource(reference, self._endpoints(reference))
            case Transport.OCI:
                from publisher.sources.files import Directory
                from publisher.sources.oci_layout import LayoutSource

                directory = Directory(Path(reference.location), f"oci:{reference.location}")
                return LayoutSource(directory, reference.tag, reference.digest)
            case Transport.OCI_ARCHIVE:
                from publisher.sources.oci_layout import LayoutSource

                return LayoutSource(_archive(reference), reference.tag, reference.digest)
            case Transport.DOCKER_ARCHIVE:
                from publisher.sources.docker_archive import open_docker_archive

                return open_docker_archive(_archive(reference), _engine_name(reference))
            case Transport.DOCKER_DAEMON:
                from publisher.sources.docker_daemon import EngineSource

                return EngineSource(self.engine(), _engine_name(reference) or "")

    def engine(self) -> Engine:
        """Return the container engine that the settings name."""
        from publisher.sources.engine import Engine

        return Engine(
            self._settings.docker_host,
            self._settings.docker_tls,
            check=self._exchange.check_open,
        )

    def destination(
        self, reference: ImageReference, *, delete: bool = False
    ) -> RegistryDestination:
        """Return the image repository to push to, in the registry itself and not its mirror.

        `delete`: the permission to delete is requested as well. Raises RegistryNotPermitted.
        """
        from publisher.sources.registry.upload import RegistryDestination

        self.require_permitted(reference)
        actions = "pull,push,delete" if delete else "pull,push"
        return RegistryDestination(
            self._endpoint(reference.registry, reference.plain_http, reference.repository, actions)
        )

    def require_permitted(self, reference: ImageReference) -> None:
        """Raise RegistryNotPermitted if the settings do not permit requests to its registry."""
        only, registry = self._settings.only, canonical_name(reference.registry)
        if only and registry not in only:
            raise RegistryNotPermitted(
                f"cannot request {reference}",
                why=f"requests to the registry {registry} are not permitted",
                hint=f"use one of {', '.join(sorted(only))}, or ask the administrator of the "
                "service to add it",
            )

    def _endpoints(self, reference: ImageReference) -> list[Endpoint]:
        """Return the endpoints in the order of tries: the mirror, if any, then the registry."""
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
        from publisher.sources.credentials.lookup import Credentials
        from publisher.sources.registry.auth import RegistryAuth
        from publisher.sources.registry.endpoint import Endpoint

        with self._lock:
            if self._credentials is None:
                self._credentials = Credentials(self._settings)
            auth = self._registries.get((registry, plain_http))
            if auth is None:
                auth = RegistryAuth(registry, plain_http, self._exchange, self._credentials)
                self._registries[registry, plain_http] = auth
        return Endpoint(auth, repository, actions)

    @property
    def _exchange(self) -> Exchange:
        from publisher.sources.http.exchange import Exchange

        with self._lock:
            if self._connections is None:
                self._connections = Exchange(
                    self._settings, self._on_wait, base_delay=self._base_delay, clock=self._clock
                )
                if self._closed:
                    self._connections.close()  # so that requests fail, as after `close`
            return self._connections


def _archive(reference: ImageReference) -> Archive:
    from publisher.sources.archive import Archive

    return Archive(f"{reference.transport}:{reference.location}", Path(reference.location))


def _engine_name(reference: ImageReference) -> str | None:
    if not reference.repository:
        return None
    return f"{reference.repository}:{reference.tag or 'latest'}"
