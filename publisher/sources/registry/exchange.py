"""HTTP as registries need it: retries, one back-off per host, redirects, bounded answers.

Everything that talks to a registry or a token service goes through one `Exchange`, so that all
downloads from a host share its connections, its limit of requests in flight, and its requests to
wait. Logged are method, host, path, status and try; never a header, a query or a body.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions

from publisher.oci.reference import api_host
from publisher.sources import AuthenticationFailed, SourceError
from publisher.sources.registry.body import content_length
from publisher.sources.registry.faults import (
    MAX_TRIES,
    MAX_WAIT,
    RETRIED,
    backoff,
    describe,
    is_certificate_error,
    is_not_tls,
    place,
    retry_after,
)
from publisher.sources.registry.hosts import Host, Hosts, NotAnAddress
from publisher.sources.settings import Settings

log = logging.getLogger(__name__)

# urllib3 logs whole addresses, and a redirect's may be signed: its query is then a credential.
logging.getLogger("urllib3").setLevel(logging.ERROR)

MAX_REDIRECTS = 5
TIMEOUTS = (15.0, 60.0)
"""Seconds to connect, and between two pieces of an answer."""
DRAIN = 64 * 1024
"""Bytes of an unwanted answer that are read to keep its connection."""
_VERBS = {"HEAD": "reach", "POST": "send to", "PUT": "send to"}
_USUAL = {"User-Agent": "publisher", "Accept-Encoding": "identity"}


class Authorizer(Protocol):
    """What gives a request its Authorization header, for one image repository."""

    def header(self) -> str | None:
        """The header's value as far as it is known already."""

    def renew(self, challenge: str, refused: str | None) -> str:
        """The value that answers `challenge`; `refused` is what was sent and did not do."""

    def refused(self) -> AuthenticationFailed:
        """The error for a registry that refuses what `renew` gave as well."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Ask:
    """One request, as it is to be sent."""

    method: str
    url: str
    headers: dict[str, str] = dataclasses.field(repr=False)
    data: bytes | None = dataclasses.field(repr=False)

    @property
    def what(self) -> str:
        """What fails if it fails."""
        return f"cannot {_VERBS.get(self.method, 'fetch')} {place(self.url)}"

    def authorized(self, authorization: str | None) -> _Ask:
        """The same with this Authorization header, and no other."""
        headers = {k: v for k, v in self.headers.items() if k != "Authorization"}
        if authorization is not None:
            headers["Authorization"] = authorization
        return dataclasses.replace(self, headers=headers)


@dataclasses.dataclass(frozen=True, slots=True)
class _Fault:
    """Why a try failed that is worth another: `told` is the wait in seconds that was asked for."""

    why: str
    told: float | None = None
    unreachable: bool = False


class Exchange:
    """Requests to any number of hosts. Safe to use from several threads."""

    def __init__(
        self,
        settings: Settings,
        on_wait: Callable[[str], None] | None = None,
        *,
        base_delay: float = 1.0,
    ) -> None:
        self._settings = settings
        self._hosts = Hosts(settings)
        self._lock = threading.Lock()
        self._insecure: dict[str, str] = {}
        self._on_wait = on_wait
        self._base_delay = base_delay
        self._closed = threading.Event()

    def close(self) -> None:
        """Drop all connections, and begin no others.

        Requests that wait, also for more of an answer, end at once with an error; only one that is
        just connecting may take the time for that.
        """
        self._closed.set()
        self._hosts.close()

    def base_url(self, registry: str, *, plain_http: bool) -> str:
        """Scheme and host of a registry's API.

        Where `insecure` allows both, TLS is tried first; the answer is remembered.
        """
        host = api_host(registry)
        if plain_http or not self._settings.registry(registry).insecure:
            return f"{'http' if plain_http else 'https'}://{host}"
        with self._lock:
            if host not in self._insecure:
                speaks_tls = self._speaks_tls(host)
                if speaks_tls is None:
                    return f"https://{host}"
                self._insecure[host] = f"{'https' if speaks_tls else 'http'}://{host}"
            return self._insecure[host]

    def _speaks_tls(self, host: str) -> bool | None:
        """Whether a host speaks TLS; None if it cannot be reached at all."""
        url = f"https://{host}/v2/"
        request = requests.Request("GET", url, headers=_USUAL).prepare()
        try:
            self._host(url).send(request, TIMEOUTS).close()
        except (OSError, urllib3.exceptions.HTTPError) as error:
            log.debug("GET %s: %s", place(url), describe(error))
            return False if is_not_tls(error) else None
        return True

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond `close`."""
        if self._closed.wait(seconds):
            raise SourceError("the request was given up", why="the program is ending")

    def delay(self, tries: int) -> float:
        """Seconds to wait after `tries` tries have failed."""
        return backoff(tries, self._base_delay)

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        authorizer: Authorizer | None = None,
    ) -> Iterator[requests.Response]:
        """The answer to one request, its body not read yet; any status that is not a fault.

        One slot of the host is held until the `with` ends: no other request belongs into it.
        """
        with contextlib.ExitStack() as stack:
            yield self._answer(stack, _Ask(method, url, dict(headers or {}), data), authorizer)

    def _answer(
        self, stack: contextlib.ExitStack, ask: _Ask, authorizer: Authorizer | None
    ) -> requests.Response:
        """The first answer that is not a fault; SourceError when there have been enough."""
        host = self._host(ask.url)
        if why := host.given_up():
            raise SourceError(
                ask.what, why=f"{host.name} could not be reached a moment ago either: {why}"
            )
        began, tried, waited = time.monotonic(), 0, 0.0
        while True:
            tried += 1
            self._wait_for(host, ask.what)
            result = self._try(stack, ask, authorizer, tried)
            if isinstance(result, requests.Response):
                host.works()
                return result
            log.debug("%s %s: %s (try %d)", ask.method, place(ask.url), result.why, tried)
            if result.told is not None and result.told > MAX_WAIT:
                host.wait_until(time.monotonic() + result.told)
                self._wait_for(host, ask.what)
            bidden = result.told is not None and waited < MAX_WAIT and tried < 2 * MAX_TRIES
            if not bidden and tried >= (1 if host.is_down else MAX_TRIES):
                if result.unreachable:
                    host.fails(result.why, began)
                times = f" (tried {tried} times)" if tried > 1 else ""
                raise SourceError(ask.what, why=result.why + times)
            pause = self.delay(min(tried, 8))
            if result.told is None:
                self.pause(pause)
            else:
                pause = max(pause, result.told)
                waited += pause
                host.wait_until(time.monotonic() + pause)
                self._tell(f"{host.name} asks us to wait {pause:.0f} s ({result.why})")

    def _try(
        self,
        stack: contextlib.ExitStack,
        ask: _Ask,
        authorizer: Authorizer | None,
        tried: int,
    ) -> requests.Response | _Fault:
        """An answer, or a fault that may pass; SourceError for one that will not."""
        try:
            response = self._authorized(stack, ask, authorizer, tried)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            _raise_if_lasting(ask, error)
            return _Fault(describe(error), unreachable=True)
        if response.status_code not in RETRIED:
            return response
        stack.close()
        now = datetime.datetime.now(datetime.UTC)
        told = retry_after(response.headers.get("Retry-After"), now)
        return _Fault(f"status {response.status_code}", told)

    def _wait_for(self, host: Host, what: str) -> None:
        """Wait until the host may be asked again."""
        self.pause(0)
        while (left := host.waiting - time.monotonic()) > 0:
            if left > MAX_WAIT + 60:
                raise SourceError(
                    what,
                    why=f"{host.name} asks us to wait {left:.0f} seconds",
                    hint="run again later; many registries allow more to those who log in",
                )
            self.pause(left)

    def _tell(self, text: str) -> None:
        log.info(text)
        if self._on_wait is not None:
            self._on_wait(text)

    def _authorized(
        self,
        stack: contextlib.ExitStack,
        ask: _Ask,
        authorizer: Authorizer | None,
        tried: int,
    ) -> requests.Response:
        """One try, which a 401 makes two: the second with what the challenge asks for."""
        if authorizer is None:
            return self._redirected(stack, ask, tried)
        sent = authorizer.header()
        response = self._redirected(stack, ask.authorized(sent), tried)
        if response.status_code != 401 or _origin(response.url) != _origin(ask.url):
            return response
        challenge = response.headers.get("WWW-Authenticate", "")
        stack.close()  # a token may have to come from the same host
        fresh = authorizer.renew(challenge, sent)
        response = self._redirected(stack, ask.authorized(fresh), tried)
        if response.status_code == 401 and _origin(response.url) == _origin(ask.url):
            raise authorizer.refused()
        return response

    def _redirected(self, stack: contextlib.ExitStack, ask: _Ask, tried: int) -> requests.Response:
        """Send, and follow redirects; the Authorization header never leaves the origin."""
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(stack, ask, tried)
            location = response.headers.get("Location")
            if response.status_code not in (301, 302, 303, 307, 308) or not location:
                return response
            stack.close()
            if ask.data is not None:
                raise SourceError(ask.what, why="it redirects what was to be sent")
            ask = self._follow(ask, location)
        raise SourceError(ask.what, why=f"more than {MAX_REDIRECTS} redirects, in a circle?")

    def _follow(self, ask: _Ask, location: str) -> _Ask:
        """The request that a redirect leads to, to an address that we can use."""
        try:
            target = urljoin(ask.url, location)
            self._hosts.of(target)
        except ValueError:
            raise SourceError(ask.what, why="it redirects to what is no http address") from None
        if ask.url.startswith("https:") and not target.startswith("https:"):
            raise SourceError(ask.what, why="it redirects away from HTTPS")
        follow = dataclasses.replace(ask, url=target)
        return follow if _origin(target) == _origin(ask.url) else follow.authorized(None)

    def _send(self, stack: contextlib.ExitStack, ask: _Ask, tried: int) -> requests.Response:
        host = self._host(ask.url)
        prepared = requests.Request(
            ask.method, ask.url, headers=_USUAL | ask.headers, data=ask.data
        ).prepare()
        stack.enter_context(host.slots)
        try:
            response = host.send(prepared, TIMEOUTS)
        except BaseException:
            stack.close()
            raise
        stack.callback(_finish, response)
        log.debug("%s %s %d (try %d)", ask.method, place(ask.url), response.status_code, tried)
        return response

    def _host(self, url: str) -> Host:
        try:
            return self._hosts.of(url)
        except NotAnAddress as error:
            raise SourceError(f"cannot fetch {place(url)}", why=str(error)) from None


def _raise_if_lasting(ask: _Ask, error: Exception) -> None:
    """Raise SourceError for what is the same however often one tries."""
    if is_certificate_error(error):
        raise SourceError(
            ask.what,
            why=describe(error),
            hint="set `ca` for this registry in the configuration, or renew the certificate",
        ) from None
    if is_not_tls(error):
        raise SourceError(
            ask.what,
            why="it does not speak TLS",
            hint="write http:// in front of the image if that is as it should be",
        ) from None


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port


def _finish(response: requests.Response) -> None:
    """Close an answer, after reading what little may be left of it: its connection lives on."""
    if _is_short(response):
        # Nobody needs these bytes: if they cannot be read, the connection is closed, that is all.
        with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):
            response.raw.read1(DRAIN, decode_content=False)
    response.close()


def _is_short(response: requests.Response) -> bool:
    length = content_length(response)
    return response.request.method == "HEAD" or (length is not None and length <= DRAIN)
