"""One image repository at one registry (or mirror): its addresses, and requests to them.

oras-py supplies the addresses and the paging (sources/client.py); the requests are ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import oras.container
import requests

from publisher.oci.reference import api_host
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.registry.answers import Refusal, is_page
from publisher.sources.registry.auth import RegistryAuth
from publisher.sources.registry.body import BrokenBody, read_document
from publisher.sources.registry.exchange import Exchange

DOCUMENT_TRIES = 5


class Endpoint:
    """Requests to one image repository. Safe to use from several threads."""

    def __init__(self, auth: RegistryAuth, repository: str, actions: str = "pull") -> None:
        self.registry = auth.registry
        self.repository = repository
        self.name = f"{auth.registry}/{repository}"
        self._plain_http = auth.plain_http
        self._exchange: Exchange = auth.exchange
        self._auth = auth.repository(repository, actions)
        # Parsed by oras from a harmless name: it would take "my.org/x" for a host of its own.
        self._container = oras.container.Container("name", registry=api_host(auth.registry))
        self._container.namespace, _, self._container.repository = repository.rpartition("/")

    @property
    def base_url(self) -> str:
        """Scheme and host of the API: https, unless something else was allowed."""
        return self._exchange.base_url(self.registry, plain_http=self._plain_http)

    def manifest_url(self, reference: str) -> str:
        """The address of the manifest of a tag or digest."""
        return self._url(self._container.manifest_url(reference))

    def blob_url(self, digest: str) -> str:
        """The address of a blob."""
        return self._url(self._container.get_blob_url(digest))

    def uploads_url(self) -> str:
        """The address at which an upload begins."""
        return self._url(self._container.upload_blob_url())

    def _url(self, path: str) -> str:
        return f"{self.base_url.partition('://')[0]}://{path}"

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        data: bytes | None = None,
        authorized: bool = True,
    ) -> Iterator[requests.Response]:
        """One request, with the authorization of this image repository.

        What `refuse` makes of an answer is raised in here, and leaves as a SourceError.
        """
        authorizer = self._auth if authorized else None
        try:
            with self._exchange.request(
                method, url, headers=headers, data=data, authorizer=authorizer
            ) as response:
                yield response
        except Refusal as refusal:
            raise self._meaning(refusal) from None

    def refuse(self, what: str, response: requests.Response) -> Refusal:
        """What to raise, inside the `with` of `request`, for an answer that is not success."""
        return Refusal(what, response)

    def _meaning(self, refusal: Refusal) -> SourceError:
        """The error that a refusal is: ImageNotFound only if it surely is.

        Registries say "not found" in a JSON document. Some say nothing: then the API's root must be
        there, or this is no working registry and its 404 means nothing.
        """
        status = refusal.status
        if refusal.says_absent or (status == 404 and self._is_registry(refusal)):
            why = f"{self.registry} says that there is no such thing"
            return ImageNotFound(refusal.what, why=why)
        if status in (401, 403):
            said = f"it answers with status {status}"
            return self._auth.denied(f"{said}: {refusal.text}" if refusal.text else said)
        return refusal.as_error()

    def _is_registry(self, refusal: Refusal) -> bool:
        if refusal.is_page:
            return False
        if refusal.api_version.startswith("registry/2"):
            return True
        with self._exchange.request("GET", f"{self.base_url}/v2/", authorizer=self._auth) as root:
            return root.status_code == 200 and not is_page(root)

    def tags_url(self) -> str:
        """The address of the first page of tags."""
        return self._url(self._container.tags_url())

    def pause(self, tries: int) -> None:
        """Wait before trying again what has failed `tries` times."""
        self._exchange.pause(self._exchange.delay(tries))

    def document(
        self, what: str, url: str, headers: Mapping[str, str]
    ) -> tuple[requests.Response, bytes]:
        """A small answer and its body; asked for again where the connection breaks within it."""
        for tries in range(1, DOCUMENT_TRIES + 1):
            with self.request("GET", url, headers) as response:
                if response.status_code != 200:
                    raise self.refuse(what, response)
                try:
                    return response, read_document(response, what)
                except BrokenBody as broken:
                    why = str(broken)
            if tries < DOCUMENT_TRIES:
                self.pause(tries)
        raise SourceError(what, why=f"{why} (tried {DOCUMENT_TRIES} times)")
