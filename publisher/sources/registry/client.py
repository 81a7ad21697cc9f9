"""oras-py's registry client, with our requests underneath.

oras knows the API's addresses and pages through lists; what it lacks is put under it here: retries,
limits of time and size, and an authorization that never leaves its registry.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import oras.provider
import requests

from publisher.sources import ImageNotFound, SourceError
from publisher.sources.registry.endpoint import Endpoint

MAX_PAGES = 2_000
MAX_TAGS = 200_000
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")


class Client(oras.provider.Registry):  # type: ignore[misc]  # oras has no types
    """oras's view of one image repository."""

    def __init__(self, endpoint: Endpoint) -> None:
        base = urlsplit(endpoint.base_url)
        super().__init__(hostname=base.netloc, insecure=base.scheme == "http")
        self._endpoint = endpoint
        self._what = ""

    def list_tags(self) -> list[str]:
        """Every tag, through all pages, each once. Raises SourceError for a list without an end."""
        self._what = f"cannot list the tags of {self._endpoint.name}"
        found: dict[str, None] = {}
        pages = 0

        def take(response: requests.Response) -> bool:
            nonlocal pages
            pages += 1
            before = len(found)
            found.update(dict.fromkeys(self._tags_in(response)))
            if len(found) > MAX_TAGS or pages > MAX_PAGES:
                raise SourceError(
                    self._what, why=f"the list does not end: {pages} pages, {len(found)} tags"
                )
            if pages > 1 and len(found) == before and "next" in response.links:
                raise SourceError(self._what, why=f"page {pages} holds no tag that is new")
            return True

        self._do_paginated_request(self._endpoint.tags_url(), callable=take)
        return list(found)

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: dict[str, Any] | bytes | None = None,
        headers: dict[str, str] | None = None,
        json: dict[str, Any] | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """One request of oras, sent in our way: only what reading needs."""
        if method != "GET" or data is not None or json is not None or stream:
            raise NotImplementedError(f"{method} with a body or a stream is not for this client")
        try:
            answer, body = self._endpoint.document(self._what, url, headers or {})
        except ImageNotFound:
            if url == self._endpoint.tags_url():
                raise
            raise SourceError(self._what, why="a page that it names is not there") from None
        loaded = requests.Response()
        loaded.status_code = answer.status_code
        loaded.url = url
        loaded.headers.update(answer.headers)
        loaded.raw = io.BytesIO(body)
        if link := answer.links.get("next", {}).get("url"):
            loaded.headers["Link"] = f'<{self._here(url, link)}>; rel="next"'
        return loaded

    def _here(self, url: str, link: str) -> str:
        """A link at our own host: behind a proxy, registries name themselves by other names."""
        base = urlsplit(self._endpoint.base_url)
        try:
            parts = urlsplit(urljoin(url, link))
        except ValueError:
            raise SourceError(self._what, why="its link to the next page is malformed") from None
        return urlunsplit((base.scheme, base.netloc, parts.path, parts.query, ""))

    def _tags_in(self, response: requests.Response) -> list[str]:
        try:
            value = json.loads(response.content)
        except (ValueError, RecursionError):
            value = None
        tags = value.get("tags") or [] if isinstance(value, dict) else None
        if not isinstance(tags, list):
            raise SourceError(self._what, why="the answer is not a list of tags")
        return [tag for tag in tags if isinstance(tag, str) and _TAG.match(tag)]
