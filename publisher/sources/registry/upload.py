"""Pushing to a registry: manifests, and blobs that fit into memory.

Source: OCI distribution specification 1.1, "Push".
"""

from __future__ import annotations

from urllib.parse import quote, urljoin, urlsplit

from publisher.oci.digest import check_digest, digest_of
from publisher.oci.document import Document
from publisher.oci.media_types import INDEX_TYPES, MANIFEST_TYPES
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.http.answer import same_origin
from publisher.sources.http.retries import MAX_TRIES
from publisher.sources.registry.endpoint import Endpoint, announced_digest
from publisher.sources.registry.refusal import Refusal

_ACCEPT = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))

_LOST_UPLOAD = frozenset({400, 404, 416})
"""The statuses for an upload that the registry has lost, or that is in another state."""


class RegistryDestination:
    """One image repository of a registry, to push to. Safe to use from several threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.name = endpoint.name

    def manifest_digest(self, reference: str) -> str | None:
        """Return the digest of the manifest that a tag or digest names; None if it is missing.

        Raises SourceError if the registry cannot be reached, or refuses.
        """
        what = f"cannot look up {self.name}:{reference}"
        url = self._endpoint.manifest_url(reference)
        with self._endpoint.request("HEAD", url, {"Accept": _ACCEPT}) as answer:
            digest = announced_digest(answer)
            if answer.status == 200 and digest is not None:
                return digest
            if answer.status == 404:
                # This need not be certain: if it is wrong, the following push fails.
                return None
        try:
            _, data = self._endpoint.document(what, url, {"Accept": _ACCEPT})
        except ImageNotFound:
            return None
        return digest_of(data)

    def has_blob(self, digest: str) -> bool:
        """Return whether the registry has the blob in this image repository."""
        with self._endpoint.request("HEAD", self._endpoint.blob_url(digest)) as answer:
            return answer.status == 200

    def put_blob(self, blob: Document) -> None:
        """Upload a blob in one request; begin again if the registry lost the upload.

        A blob may be sent twice if the answer to the first request was lost.
        """
        what = f"cannot push {blob.digest} to {self.name}"
        for tries in range(1, MAX_TRIES + 1):
            location = self._begin_upload(what)
            separator = "&" if urlsplit(location).query else "?"
            url = f"{location}{separator}digest={quote(blob.digest, safe='')}"
            headers = {"Content-Type": "application/octet-stream"}
            # Storage at another host has signed addresses, and must not receive the credential.
            own = same_origin(location, self._endpoint.base_url)
            with self._endpoint.request(
                "PUT", url, headers, data=blob.data, authorized=own
            ) as answer:
                if answer.status in (201, 204):
                    return
                if answer.status not in _LOST_UPLOAD or tries == MAX_TRIES:
                    raise Refusal(what, answer)
                why = f"status {answer.status}"
            if self.has_blob(blob.digest):
                return
            self._endpoint.pause(tries, what, why)

    def put_manifest(self, manifest: Document, reference: str) -> None:
        """Upload a manifest or index under a tag or its digest.

        Raises DigestMismatch if the registry stored other bytes.
        """
        what = f"cannot push {self.name}:{reference}"
        url = self._endpoint.manifest_url(reference)
        headers = {"Content-Type": manifest.media_type}
        with self._endpoint.request("PUT", url, headers, data=manifest.data) as answer:
            if answer.status not in (200, 201, 202):
                raise Refusal(what, answer)
            stored = announced_digest(answer) or manifest.digest
        check_digest(
            manifest.data, stored, f"{self.name} stored another manifest than the one that was sent"
        )

    def delete_manifest(self, digest: str) -> bool:
        """Delete a manifest or index with its tags; return False if it does not exist.

        Raises SourceError if the registry does not permit this, as many do not.
        """
        url = self._endpoint.manifest_url(digest)
        with self._endpoint.request("DELETE", url) as answer:
            if answer.status == 404:
                return False
            if answer.status not in (200, 202, 204):
                raise Refusal(f"cannot delete {self.name}@{digest}", answer)
        return True

    def _begin_upload(self, what: str) -> str:
        url = self._endpoint.uploads_url()
        try:
            with self._endpoint.request("POST", url, data=b"") as answer:
                if answer.status != 202 or not answer.location:
                    raise Refusal(what, answer)
                return self._location(what, urljoin(answer.url, answer.location))
        except ImageNotFound:
            # Some registries require that an image repository is created before the first push.
            raise SourceError(
                what, why="there is no such image repository", hint=f"create {self.name} first"
            ) from None
        except ValueError:
            raise SourceError(what, why="the address for the upload is malformed") from None

    def _location(self, what: str, location: str) -> str:
        own = urlsplit(self._endpoint.base_url)
        parts = urlsplit(location)
        if parts.hostname == own.hostname:
            return self._endpoint.at_this_host(location)
        if own.scheme == "https" and parts.scheme != "https":
            raise SourceError(what, why="the address for the upload does not use HTTPS")
        return location
