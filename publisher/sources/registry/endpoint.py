"""One image repository at one registry or mirror: its addresses, requests to them, its tags.

oras-py makes the addresses.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from urllib.parse import urljoin, urlsplit, urlunsplit

import oras.container

from publisher.lazy import pattern
from publisher.oci.digest import is_digest
from publisher.oci.reference import api_host
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.http.answer import Answer, BrokenBody
from publisher.sources.http.exchange import Exchange
from publisher.sources.http.retries import MAX_TRIES
from publisher.sources.registry.auth import RegistryAuth
from publisher.sources.registry.refusal import Refusal

MAX_PAGES = 2_000
MAX_TAGS = 200_000
_TAG = pattern(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")


class Endpoint:
    """Requests to one image repository for one image. Safe to use from several threads."""

    def __init__(self, auth: RegistryAuth, repository: str, actions: str = "pull") -> None:
        self.registry = auth.registry
        self.repository = repository
        self.name = f"{auth.registry}/{repository}"
        self._plain_http = auth.plain_http
        self._exchange: Exchange = auth.exchange
        self._deadline = self._exchange.deadline(auth.registry)
        self._auth = auth.repository(repository, actions)
        # oras would take the first part of "my.org/x" for a host: it parses a harmless name.
        self._container = oras.container.Container("name", registry=api_host(auth.registry))
        self._container.namespace, _, self._container.repository = repository.rpartition("/")

    @property
    def base_url(self) -> str:
        """Scheme and host of the API."""
        return self._exchange.base_url(self.registry, plain_http=self._plain_http)

    def manifest_url(self, reference: str) -> str:
        """Return the address of the manifest of a tag or digest."""
        return self._url(self._container.manifest_url(reference))

    def blob_url(self, digest: str) -> str:
        """Return the address of a blob."""
        return self._url(self._container.get_blob_url(digest))

    def referrers_url(self, digest: str) -> str:
        """Return the address of the index of the manifests that refer to a digest."""
        container = self._container
        return self._url(f"{container.registry}/v2/{container.api_prefix}/referrers/{digest}")

    def uploads_url(self) -> str:
        """Return the address at which an upload begins."""
        return self._url(self._container.upload_blob_url())

    def tags_url(self) -> str:
        """Return the address of the first page of tags."""
        return self._url(self._container.tags_url())

    def _url(self, path: str) -> str:
        return f"{self.base_url.partition('://')[0]}://{path}"

    def at_this_host(self, url: str) -> str:
        """Return an address of the registry with the scheme and host of this endpoint.

        A registry behind a proxy often returns addresses with another host, or with http.
        """
        base, parts = urlsplit(self.base_url), urlsplit(url)
        return urlunsplit((base.scheme, base.netloc, parts.path, parts.query, ""))

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        data: bytes | None = None,
        authorized: bool = True,
    ) -> Iterator[Answer]:
        """Yield the answer to a request, `authorized` for this image repository or anonymous.

        The address of an anonymous one is that of another host, which the registry has named. A
        Refusal that is raised within the `with` is converted to a SourceError.
        """
        send = self._auth.request
        if not authorized:
            send = partial(self._exchange.request, led_by=self.base_url)
        try:
            with send(method, url, deadline=self._deadline, headers=headers, data=data) as answer:
                yield answer
        except Refusal as refusal:
            raise self._meaning(refusal) from None

    def _meaning(self, refusal: Refusal) -> SourceError:
        """Return the error for a refusal: ImageNotFound only if that is certain.

        The 404 of a registry has an error document. One without it is accepted if the root of the
        registry's API exists; otherwise the host is not a working registry.
        """
        status = refusal.status
        if refusal.means_absent or (status == 404 and self._is_registry(refusal)):
            return ImageNotFound(refusal.what, why=f"{self.registry} does not have it")
        if status in (401, 403):
            why = f"it answers with status {status}"
            return self._auth.denied(f"{why}: {refusal.text}" if refusal.text else why)
        return refusal.as_error()

    def _is_registry(self, refusal: Refusal) -> bool:
        if refusal.is_web_page:
            return False
        if refusal.api_version.startswith("registry/2"):
            return True
        url = f"{self.base_url}/v2/"
        with self._auth.request("GET", url, deadline=self._deadline) as root:
            return root.status == 200 and not root.is_web_page

    def pause(self, tries: int, what: str, why: str) -> None:
        """Wait before the next try of `what`, which failed `tries` times, lastly by `why`."""
        self._exchange.pause(tries, what, why, self._deadline)

    def document(
        self, what: str, url: str, headers: Mapping[str, str], absent: Collection[int] = ()
    ) -> tuple[Answer, bytes]:
        """Fetch a small document; try again if the connection fails.

        Args:
            what: The `what` of errors ("cannot fetch …").
            url: Its address.
            headers: Headers of the request.
            absent: Statuses that mean ImageNotFound, whatever the answer contains.

        Returns:
            The answer, for its headers, and the body.
        """
        for tries in range(1, MAX_TRIES + 1):
            with self.request("GET", url, headers) as answer:
                if answer.status in absent:
                    why = f"{self.registry} answers with status {answer.status}"
                    raise ImageNotFound(what, why=why)
                if answer.status != 200:
                    raise Refusal(what, answer)
                try:
                    return answer, answer.document(what)
                except BrokenBody as broken:
                    why = str(broken)
            if tries < MAX_TRIES:
                self.pause(tries, what, why)
        raise SourceError(what, why=f"{why} (tried {MAX_TRIES} times)")

    def tags(self) -> Iterator[str]:
        """Yield every tag once, over all pages.

        Raises SourceError if the answer is not a list of tags, or has no end.
        """
        what = f"cannot list the tags of {self.name}"
        seen: set[str] = set()
        url = self.tags_url()
        for page in range(1, MAX_PAGES + 1):
            tags, following = self._page(what, url, is_first=page == 1)
            new = [tag for tag in dict.fromkeys(tags) if tag not in seen]
            seen.update(new)
            yield from new
            if not following:
                return
            if len(seen) > MAX_TAGS:
                break
            if page > 1 and not new:
                raise SourceError(what, why=f"page {page} has no new tag, and is not the last")
            url = following
        raise SourceError(what, why=f"the list does not end: {page} pages, {len(seen)} tags")

    def _page(self, what: str, url: str, *, is_first: bool) -> tuple[list[str], str]:
        """Return the tags of one page, and the address of the next one, or ""."""
        try:
            answer, data = self.document(what, url, {})
        except ImageNotFound:
            if is_first:
                raise
            # The image repository exists, so this is not a missing image.
            raise SourceError(what, why="a page that the list links to does not exist") from None
        try:
            following = answer.next_page
            if following:
                following = self.at_this_host(urljoin(url, following))
        except ValueError:
            raise SourceError(what, why="its link to the next page is malformed") from None
        return _parse_tags(data, what), following


def _parse_tags(data: bytes, what: str) -> list[str]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    tags = value.get("tags") or [] if isinstance(value, dict) else None
    if not isinstance(tags, list):
        raise SourceError(what, why="the answer is not a list of tags")
    return [tag for tag in tags if isinstance(tag, str) and _TAG.match(tag)]


def announced_digest(answer: Answer) -> str | None:
    """Return the digest of the manifest that an answer is about, if the registry states one."""
    digest = answer.header("Docker-Content-Digest")
    return digest if is_digest(digest) else None
