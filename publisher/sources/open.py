"""From an image reference to the source that has the image."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from publisher.reference import ImageReference, Transport, api_host
from publisher.sources import Source
from publisher.sources.auth import RegistryAuth
from publisher.sources.credentials import Credentials
from publisher.sources.endpoint import Endpoint
from publisher.sources.exchange import Exchange
from publisher.sources.files import Folder
from publisher.sources.oci_layout import LayoutSource
from publisher.sources.registry import RegistrySource
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
        self._registries: dict[tuple[str, str], RegistryAuth] = {}
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
            case Transport.OCI_ARCHIVE | Transport.DOCKER_ARCHIVE | Transport.DOCKER_DAEMON:
                raise NotImplementedError(reference.transport)

    def _endpoints(self, reference: ImageReference) -> list[Endpoint]:
        """Where to ask, in this order: the registry's mirror, if it has one, and the registry."""
        scheme = "http" if reference.plain_http else "https"
        return [self._endpoint(reference.registry, scheme, reference.repository)]

    def _endpoint(self, registry: str, scheme: str, repository: str) -> Endpoint:
        base_url = f"{scheme}://{api_host(registry)}"
        with self._lock:
            auth = self._registries.get((scheme, registry))
            if auth is None:
                auth = RegistryAuth(registry, base_url, self._exchange, self._credentials)
                self._registries[scheme, registry] = auth
        return Endpoint(auth, base_url, repository)
