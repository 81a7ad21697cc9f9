"""Images in registries: the OCI distribution API, with mirrors in front where there are any."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from publisher.errors import DigestMismatch, PublisherError
from publisher.oci.descriptor import Descriptor
from publisher.oci.digest import check_digest, digest_of, is_digest
from publisher.oci.document import Document, detect_media_type
from publisher.oci.media_types import DOCKER_SCHEMA1, INDEX_TYPES, MANIFEST_TYPES
from publisher.oci.reference import ImageReference
from publisher.sources import SourceError
from publisher.sources.registry.answers import is_page
from publisher.sources.registry.blob import stream_blob
from publisher.sources.registry.client import Client
from publisher.sources.registry.endpoint import Endpoint
from publisher.sources.small import read_small_blob

log = logging.getLogger(__name__)

ACCEPT = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES, *DOCKER_SCHEMA1))
"""Schema 1 is asked for too, so that it can be refused by its name."""

_T = TypeVar("_T")


class RegistrySource:
    """One image repository of a registry, read through its endpoints: mirrors first."""

    def __init__(self, reference: ImageReference, endpoints: Sequence[Endpoint]) -> None:
        self._reference = reference
        self._endpoints = endpoints
        self._named = reference.digest or reference.tag or "latest"

    def resolve(self) -> str:
        """The digest of what the reference names now, by one HEAD request."""
        return self._first(self._resolve_at)

    def manifest(self, digest: str | None = None) -> Document:
        """The manifest or index, exactly as the registry keeps it, verified."""
        return self._first(lambda endpoint: self._manifest_at(endpoint, digest or self._named))

    def fetch(self, descriptor: Descriptor) -> bytes:
        """A small blob, whole and verified."""
        return read_small_blob(self, descriptor, str(self._reference))

    def blob(self, descriptor: Descriptor) -> contextlib.AbstractContextManager[Iterator[bytes]]:
        """A blob in chunks, continued where a connection breaks."""
        return contextlib.closing(stream_blob(self._endpoints, descriptor))

    def tags(self) -> Iterator[str]:
        """Every tag, by the registry's own word: a mirror lists only what passed through it."""
        return iter(Client(self._endpoints[-1]).list_tags())

    def _first(self, ask: Callable[[Endpoint], _T]) -> _T:
        """The answer of the first endpoint that has one; the last one's error is the error."""
        *mirrors, origin = self._endpoints
        for mirror in mirrors:
            try:
                return ask(mirror)
            except PublisherError as error:
                log.info("mirror %s does not serve; asking %s: %s", mirror.name, origin.name, error)
        return ask(origin)

    def _resolve_at(self, endpoint: Endpoint) -> str:
        url = endpoint.manifest_url(self._named)
        with endpoint.request("HEAD", url, {"Accept": ACCEPT}) as response:
            digest = response.headers.get("Docker-Content-Digest", "")
            if response.status_code == 200 and is_digest(digest):
                return self._as_asked(digest, self._named)
        # Refused, without a digest, or "absent" with no words to say so: GET tells.
        return self._manifest_at(endpoint, self._named).digest

    def _manifest_at(self, endpoint: Endpoint, named: str) -> Document:
        which = "the manifest" if named == self._named else f"manifest {named}"
        what = f"cannot fetch {which} of {self._reference}"
        response, data = endpoint.document(what, endpoint.manifest_url(named), {"Accept": ACCEPT})
        kind = response.headers.get("Content-Type", "")
        if is_page(response):
            raise SourceError(
                what,
                why=f"{endpoint.registry} answers with a web page",
                hint="is the host right, and is it a registry?",
            )
        told = response.headers.get("Docker-Content-Digest", "")
        if is_digest(named):
            check_digest(
                data, named, f"the manifest of {self._reference} is not what was asked for"
            )
            digest = named
        elif is_digest(told):
            check_digest(data, told, f"the manifest of {self._reference} is not what was announced")
            digest = told
        else:
            digest = digest_of(data)
        return Document(data, detect_media_type(data, kind), digest)

    def _as_asked(self, digest: str, named: str) -> str:
        """The digest of the wish, or the one told; both of one algorithm must be equal."""
        if not is_digest(named) or digest == named:
            return named if is_digest(named) else digest
        if digest.partition(":")[0] != named.partition(":")[0]:
            return named
        raise DigestMismatch(
            f"the manifest of {self._reference} is not what was asked for",
            expected=named,
            actual=digest,
        )
