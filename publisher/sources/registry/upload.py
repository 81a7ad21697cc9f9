"""Writing to a registry: blobs that fit into memory, and manifests.

Source: OCI distribution specification 1.1, "Push".
"""

from __future__ import annotations

from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from publisher.oci.digest import check_digest, digest_of, is_digest
from publisher.oci.document import Document
from publisher.oci.media_types import INDEX_TYPES, MANIFEST_TYPES
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.registry.endpoint import Endpoint
from publisher.sources.registry.faults import MAX_TRIES

_ACCEPT = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))

_LOST_TRACK = frozenset({400, 404, 416})
"""What registries say of an upload that they do not know (any more), or know otherwise."""


class RegistryDestination:
    """One image repository of a registry, written to. Safe to use from several threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.name = endpoint.name

    def manifest_digest(self, reference: str) -> str | None:
        """The digest of the manifest that a tag or digest names; None where there is none."""
        what = f"cannot look up {self.name}:{reference}"
        url = self._endpoint.manifest_url(reference)
        with self._endpoint.request("HEAD", url, {"Accept": _ACCEPT}) as response:
            digest = response.headers.get("Docker-Content-Digest", "")
            if response.status_code == 200 and is_digest(digest):
                return digest
            if response.status_code == 404:
                # Nothing is removed on the strength of this: should it be wrong, a push fails.
                return None
        try:
            _, data = self._endpoint.document(what, url, {"Accept": _ACCEPT})
        except ImageNotFound:
            return None
        return digest_of(data)

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is there already."""
        with self._endpoint.request("HEAD", self._endpoint.blob_url(digest)) as response:
            return response.status_code == 200

    def put_blob(self, blob: Document) -> None:
        """Upload a blob in one piece; begun anew where the registry lost track of the upload.

        A piece that was sent twice, because the answer to the first got lost, is no fault either.
        """
        what = f"cannot push {blob.digest} to {self.name}"
        for tries in range(1, MAX_TRIES + 1):
            location = self._begin_upload(what)
            separator = "&" if urlsplit(location).query else "?"
            url = f"{location}{separator}digest={quote(blob.digest, safe='')}"
            headers = {"Content-Type": "application/octet-stream"}
            with self._endpoint.request(
                "PUT", url, headers, data=blob.data, authorized=self._is_ours(location)
            ) as response:
                if response.status_code in (201, 204):
                    return
                if response.status_code not in _LOST_TRACK or tries == MAX_TRIES:
                    raise self._endpoint.refuse(what, response)
            if self.has_blob(blob.digest):
                return
            self._endpoint.pause(tries)

    def put_manifest(self, manifest: Document, reference: str) -> None:
        """Upload a manifest or index under a tag or its digest."""
        what = f"cannot push {self.name}:{reference}"
        url = self._endpoint.manifest_url(reference)
        headers = {"Content-Type": manifest.media_type}
        with self._endpoint.request("PUT", url, headers, data=manifest.data) as response:
            if response.status_code not in (200, 201, 202):
                raise self._endpoint.refuse(what, response)
            told = response.headers.get("Docker-Content-Digest", manifest.digest)
        if is_digest(told):
            check_digest(manifest.data, told, f"{self.name} stored another manifest than was sent")

    def delete_manifest(self, digest: str) -> bool:
        """Delete a manifest or index with its tags; False if the registry has no such thing.

        Raises SourceError where the registry does not delete: many are set up so.
        """
        url = self._endpoint.manifest_url(digest)
        with self._endpoint.request("DELETE", url) as response:
            if response.status_code == 404:
                return False
            if response.status_code not in (200, 202, 204):
                raise self._endpoint.refuse(f"cannot delete {self.name}@{digest}", response)
        return True

    def _begin_upload(self, what: str) -> str:
        url = self._endpoint.uploads_url()
        try:
            with self._endpoint.request("POST", url, data=b"") as response:
                location = response.headers.get("Location", "")
                if response.status_code != 202 or not location:
                    raise self._endpoint.refuse(what, response)
                return self._here(urljoin(response.url, location))
        except ImageNotFound:
            # Some registries want each image repository to be made before anything is pushed.
            raise SourceError(
                what, why="there is no such image repository", hint=f"create {self.name} first"
            ) from None

    def _here(self, location: str) -> str:
        """`location` by the scheme that we use: behind a proxy, registries take theirs for http."""
        parts, base = urlsplit(location), urlsplit(self._endpoint.base_url)
        if parts.hostname != base.hostname:
            return location
        return urlunsplit((base.scheme, base.netloc, parts.path, parts.query, ""))

    def _is_ours(self, location: str) -> bool:
        """Whether our credential may go there: storage elsewhere signs its addresses itself."""
        return urlsplit(location).netloc == urlsplit(self._endpoint.base_url).netloc
