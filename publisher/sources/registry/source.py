"""Images in registries: the OCI distribution API. Mirrors are tried first."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from publisher.errors import PublisherError
from publisher.log_context import event
from publisher.oci.descriptor import Descriptor
from publisher.oci.digest import check_digest, digest_of, is_digest
from publisher.oci.document import Document, detect_media_type
from publisher.oci.index import parse_index
from publisher.oci.known_hosts import suggest_host
from publisher.oci.media_types import DOCKER_SCHEMA1, INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX
from publisher.oci.reference import ImageReference
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.names import nearest
from publisher.sources.protocol import read_small_blob
from publisher.sources.registry.blob import stream_blob
from publisher.sources.registry.endpoint import Endpoint, announced_digest

log = logging.getLogger(__name__)

ACCEPT = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES, *DOCKER_SCHEMA1))
"""The accepted media types, with schema 1, for which there is an error message of its own."""

_NO_REFERRERS = (400, 404, 405, 406)
"""How registries without the referrers API answer."""

_T = TypeVar("_T")


class RegistrySource:
    """One image repository of a registry.

    `endpoints` are tried in order: mirrors first, and the registry itself last.
    """

    def __init__(self, reference: ImageReference, endpoints: Sequence[Endpoint]) -> None:
        self._reference = reference
        self._endpoints = endpoints
        self._named = reference.digest or reference.tag or "latest"

    def resolve(self) -> str:
        """Return the digest of the reference, or that of its tag by one HEAD request."""
        if self._reference.digest is not None:
            return self._reference.digest
        try:
            return self._first(self._resolve_at)
        except ImageNotFound as error:
            raise self._with_nearest_tags(error) from None

    def manifest(self, digest: str | None = None) -> Document:
        """Return the manifest or index, with the bytes of the registry, verified."""
        named = digest or self._named
        try:
            return self._first(lambda endpoint: self._manifest_at(endpoint, named))
        except ImageNotFound as error:
            raise error if is_digest(named) else self._with_nearest_tags(error) from None

    def fetch(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, verified."""
        return read_small_blob(self, descriptor, str(self._reference))

    def blob(self, descriptor: Descriptor) -> contextlib.AbstractContextManager[Iterator[bytes]]:
        """Return a blob in chunks; resume it if a connection fails."""
        return contextlib.closing(stream_blob(self._endpoints, descriptor))

    def tags(self) -> Iterator[str]:
        """Yield every tag of the registry itself, since a mirror may have only some of them."""
        return self._endpoints[-1].tags()

    def attached(self, tag: str) -> Document | None:
        """Return the manifest or index with a tag that belongs to an image; None if missing."""
        return self._first_or_none(lambda endpoint: self._manifest_at(endpoint, tag))

    def referrers(self, digest: str, artifact_types: Collection[str]) -> list[str]:
        """Return the digests of the manifests of `artifact_types` that refer to `digest`.

        A registry without the referrers API has them in the index with the tag "algorithm-hex".
        """
        document = self._first_or_none(lambda endpoint: self._referrers_at(endpoint, digest))
        document = document or self.attached(digest.replace(":", "-"))
        if document is None or document.media_type != OCI_INDEX:
            return []
        return [
            each.digest
            for each in parse_index(document).manifests
            if each.artifact_type in artifact_types
        ]

    def _referrers_at(self, endpoint: Endpoint, digest: str) -> Document:
        """Return the index of referrers; raise ImageNotFound if there is no such API."""
        what = f"cannot list the referrers of {self._reference}"
        url = endpoint.referrers_url(digest)
        _, data = endpoint.document(what, url, {"Accept": OCI_INDEX}, _NO_REFERRERS)
        return Document(data, OCI_INDEX, digest_of(data))

    def _with_nearest_tags(self, error: ImageNotFound) -> ImageNotFound:
        """Return the error for a missing tag, with similar tags if there are any."""
        try:
            tags = nearest(self._named, self.tags())
        except PublisherError:
            tags = []
        if not tags:
            return error
        why = f"{error.why}; its nearest tags: {', '.join(tags)}"
        return ImageNotFound(error.what, why=why, nearest=tags)

    def _first(self, ask: Callable[[Endpoint], _T]) -> _T:
        """Return the result of the first endpoint that has one, or raise the error of the last."""
        *mirrors, origin = self._endpoints
        for mirror in mirrors:
            try:
                return ask(mirror)
            except PublisherError as error:
                data = event("retry", place=mirror.name, why=str(error))
                text = "mirror %s failed, trying %s: %s"
                log.warning(text, mirror.name, origin.name, error, extra=data)
        return ask(origin)

    def _first_or_none(self, ask: Callable[[Endpoint], _T]) -> _T | None:
        """Return the result of the first endpoint that has one; None if the last has none."""
        try:
            return self._first(ask)
        except ImageNotFound:
            return None

    def _resolve_at(self, endpoint: Endpoint) -> str:
        url = endpoint.manifest_url(self._named)
        with endpoint.request("HEAD", url, {"Accept": ACCEPT}) as answer:
            digest = announced_digest(answer)
            if answer.status == 200 and digest is not None:
                return digest
        # If HEAD is refused, or has no digest, or a 404 without a document, GET is used.
        return self._manifest_at(endpoint, self._named).digest

    def _manifest_at(self, endpoint: Endpoint, named: str) -> Document:
        which = "the manifest" if named == self._named else f"manifest {named}"
        what = f"cannot fetch {which} of {self._reference}"
        answer, data = endpoint.document(what, endpoint.manifest_url(named), {"Accept": ACCEPT})
        if answer.is_web_page:
            raise SourceError(
                what,
                why=f"{endpoint.registry} answers with a web page",
                hint=suggest_host(endpoint.registry) or "check the host: it may not be a registry",
            )
        digest = named if is_digest(named) else announced_digest(answer) or digest_of(data)
        check_digest(data, digest, f"the manifest of {self._reference} does not match its digest")
        return Document(data, detect_media_type(data, answer.header("Content-Type")), digest)
