"""Send requests with retries, one back-off per host, and redirects.

All requests to registries, token services and web servers go through one `Exchange`, so that they
share each host's connections, its limit of requests in flight, and its back-off. The log
contains method, host, path, status and try of each, but no header, query or body.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from urllib.parse import urljoin

import urllib3.exceptions
from urllib3 import HTTPHeaderDict

from publisher.lazy import dataclass
from publisher.log_context import event
from publisher.oci.known_hosts import suggest_host
from publisher.oci.reference import api_host
from publisher.sources import SourceError
from publisher.sources.errors import RateLimited
from publisher.sources.http.answer import Answer, same_origin
from publisher.sources.http.clock import Clock
from publisher.sources.http.connections import basic_authorization
from publisher.sources.http.deadline import Deadline
from publisher.sources.http.faults import (
    describe,
    is_certificate_error,
    is_forbidden_address,
    is_not_tls,
    is_proxy_login,
    place,
)
from publisher.sources.http.hosts import Host, Hosts, NotAnAddress
from publisher.sources.http.networks import Network
from publisher.sources.http.retries import MAX_WAIT, RETRIED, Fault, Tries, backoff
from publisher.sources.settings import Settings

log = logging.getLogger(__name__)

# urllib3 logs complete addresses, and the query of a signed address is a credential.
logging.getLogger("urllib3").setLevel(logging.ERROR)

MAX_REDIRECTS = 5
TIMEOUTS = (15.0, 60.0)
"""The time-outs in seconds of a connection, and between two pieces of an answer."""
_VERBS = {"HEAD": "reach", "POST": "send to", "PUT": "send to"}
_HEADERS = {"User-Agent": "publisher", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class _Request:
    """One request, as it is to be sent."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    data: bytes | None = field(repr=False)
    deadline: Deadline
    origin: Network | None = None
    """The network of the server that led to the host; see networks.py."""

    @property
    def what(self) -> str:
        """The beginning of errors about the request: "cannot fetch HOST/PATH"."""
        return f"cannot {_VERBS.get(self.method, 'fetch')} {place(self.url)}"

    def at(self, url: str, origin: Network | None) -> _Request:
        """Return the request for another address; Authorization is only sent to the same origin."""
        headers = self.headers
        if not same_origin(url, self.url):
            headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
        return replace(self, url=url, headers=headers, origin=origin)


class Exchange:
    """Requests to any number of hosts. Safe to use from several threads.

    Args:
        settings: Mirrors, certificates and limits of each registry, and the proxies.
        on_wait: Called with a message if a server requests a wait.
        base_delay: The first back-off in seconds.
        clock: The clock for waits and deadlines.
    """

    def __init__(
        self,
        settings: Settings,
        on_wait: Callable[[str], None] | None = None,
        *,
        base_delay: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or Clock()
        self._hosts = Hosts(settings, self._clock)
        self._lock = threading.Lock()
        self._insecure: dict[str, str] = {}
        self._on_wait = on_wait
        self._base_delay = base_delay
        self._closed = threading.Event()

    def close(self) -> None:
        """Close all connections, and open no others.

        Waiting requests end at once with an error, except that one that looks up the address of its
        host may take until the time-out of the resolver.
        """
        self._closed.set()
        self._hosts.close()

    def check_open(self) -> None:
        """Raise SourceError after `close`."""
        if self._closed.is_set():
            raise SourceError("the request was cancelled", why="the program is ending")

    def deadline(self, registry: str) -> Deadline:
        """Return the time that one image of a registry may wait."""
        return self.deadline_after(self._settings.registry(registry).image_timeout.total_seconds())

    def deadline_after(self, seconds: float) -> Deadline:
        """Return a time of `seconds` that requests may wait."""
        return Deadline(seconds, self._clock)

    def base_url(self, registry: str, *, plain_http: bool) -> str:
        """Return scheme and host of a registry's API.

        If `insecure` permits both, TLS is tried first; the result is kept.
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
        """Return whether a host supports TLS; None if it cannot be reached."""
        url = f"https://{host}/v2/"
        try:
            self._host(url).send("GET", url, _HEADERS, None, TIMEOUTS).close()
        except (OSError, urllib3.exceptions.HTTPError) as error:
            log.debug("GET %s: %s", place(url), describe(error))
            return False if is_not_tls(error) else None
        return True

    def pause(self, tries: int, what: str, why: str, deadline: Deadline) -> None:
        """Wait before the next try of `what`, which failed `tries` times, lastly because of `why`.

        Raises SourceError after `close`, and OutOfTime if the wait would exceed the deadline.
        """
        self._sleep(backoff(tries, self._base_delay), what, why, deadline)

    def _sleep(self, seconds: float, what: str, why: str, deadline: Deadline) -> None:
        deadline.check(what, why, seconds)
        with deadline.waiting():
            self._clock.wait(seconds, self._closed)
        self.check_open()

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: str,
        *,
        deadline: Deadline,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        led_by: str = "",
    ) -> Iterator[Answer]:
        """Yield the answer to one request, after redirects and retries, with an unread body.

        The Authorization header, if any, is sent to the origin of `url` only. A slot of the host is
        held until the `with` ends; no other request may be made in it. `led_by` is an address of
        the server that has named `url` in an answer, "" if the user did.

        Raises:
            SourceError: All tries failed, or had a temporary status (408, 429, 500, 502, 503,
                504); or a redirect cannot be followed; or a server leads to an address that it may
                not lead to.
            OutOfTime: The deadline has passed.
        """
        origin = self._origin(url, led_by) if led_by else None
        with contextlib.ExitStack() as stack:
            yield self._answer(stack, _Request(method, url, headers or {}, data, deadline, origin))

    def _origin(self, url: str, led_by: str) -> Network | None:
        try:
            return self._hosts.origin(url, led_by)
        except ValueError:
            why = "its address is malformed"
            raise SourceError(f"cannot fetch {place(url)}", why=why) from None

    def _answer(self, stack: contextlib.ExitStack, request: _Request) -> Answer:
        host = self._host(request.url, request.origin)
        if why := host.unreachable():
            raise SourceError(
                request.what,
                why=f"{host.name} could not be reached shortly before: {why}",
                hint=suggest_host(host.name),
            )
        tries = Tries(self._base_delay, self._clock.monotonic())
        why = "its answer is awaited"
        while True:
            tries.count += 1
            self._wait_for(host, request, why)
            result = self._try(stack, request, tries.count)
            if isinstance(result, Answer):
                host.mark_working()
                return result
            why = result.why
            text = "%s %s: %s (try %d)"
            asked = request.method, place(request.url)
            data = event("retry", method=asked[0], place=asked[1], why=why, tries=tries.count)
            log.warning(text, *asked, why, tries.count, extra=data)
            if result.wait is not None and result.wait > MAX_WAIT:
                host.wait_until(self._clock.monotonic() + result.wait)
                self._wait_for(host, request, why)
            pause = tries.pause_after(result, is_down=host.is_down)
            if pause is None:
                if result.is_unreachable:
                    host.mark_down(why, tries.began)
                times = f" (tried {tries.count} times)" if tries.count > 1 else ""
                hint = suggest_host(host.name) if result.is_unreachable else ""
                kind = RateLimited if result.is_rate_limit else SourceError
                raise kind(request.what, why=why + times, hint=hint)
            if result.wait is None:
                self._sleep(pause, request.what, why, request.deadline)
            else:
                host.wait_until(self._clock.monotonic() + pause)
                self._report_wait(f"waiting {pause:.0f} s for {host.name}: {why}")

    def _try(self, stack: contextlib.ExitStack, request: _Request, tried: int) -> Answer | Fault:
        """Return an answer or a temporary fault; raise SourceError for a permanent one."""
        request.deadline.check(request.what, "its answer is awaited")
        try:
            answer = self._redirected(stack, request, tried)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            _raise_if_lasting(request, error)
            return Fault(describe(error), is_unreachable=True)
        if answer.status not in RETRIED:
            return answer
        stack.close()
        # Zero means that the server is ready, so that the usual back-off applies.
        wait = answer.retry_after(self._clock.utc_now()) or None
        return Fault(f"status {answer.status}", wait, is_rate_limit=answer.status == 429)

    def _wait_for(self, host: Host, request: _Request, why: str) -> None:
        """Wait until requests to the host are allowed again."""
        self.check_open()
        while (left := host.waiting - self._clock.monotonic()) > 0:
            if left > MAX_WAIT + 60:
                raise RateLimited(
                    request.what,
                    why=f"{host.name} asks to wait {left:.0f} seconds",
                    hint="run again later; many registries allow more requests after a login",
                )
            self._sleep(left, request.what, why, request.deadline)

    def _report_wait(self, text: str) -> None:
        log.warning("%s", text, extra=event("retry", why=text))
        if self._on_wait is not None:
            self._on_wait(text)

    def _redirected(self, stack: contextlib.ExitStack, request: _Request, tried: int) -> Answer:
        """Send the request, and follow redirects."""
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._send(stack, request, tried)
            if answer.status not in (301, 302, 303, 307, 308) or not answer.location:
                return answer
            stack.close()
            if request.data is not None:
                raise SourceError(request.what, why="it redirects an upload")
            request = self._target(request, answer.location)
        raise SourceError(request.what, why=f"more than {MAX_REDIRECTS} redirects")

    def _target(self, request: _Request, location: str) -> _Request:
        """Return the request that a redirect leads to; raise SourceError if it is not followed."""
        try:
            target = urljoin(request.url, location)
            origin = self._hosts.origin(target, request.url, request.origin)
            self._hosts.of(target, origin)
        except ValueError:
            raise SourceError(
                request.what, why="it redirects to an address that is not http or https"
            ) from None
        if request.url.startswith("https:") and not target.startswith("https:"):
            raise SourceError(
                request.what, why=f"it redirects from HTTPS to {place(target)}, without encryption"
            )
        return request.at(target, origin)

    def _send(self, stack: contextlib.ExitStack, request: _Request, tried: int) -> Answer:
        host = self._host(request.url, request.origin)
        method, url, headers = request.method, request.url, HTTPHeaderDict(_HEADERS)
        headers.update(request.headers)
        if authorization := basic_authorization(url):
            headers["Authorization"] = authorization
        stack.enter_context(host.slots)
        try:
            with request.deadline.waiting():
                response = host.send(method, url, headers, request.data, TIMEOUTS)
            sent = headers.get("Authorization", "")
            answer = Answer(response, request.deadline, method, url, sent)
        except BaseException:
            stack.close()
            raise
        stack.callback(answer.close)
        data = event(
            "request", method=method, place=answer.place, status=answer.status, tries=tried
        )
        text = "%s %s %d (try %d)"
        log.debug(text, method, answer.place, answer.status, tried, extra=data)
        return answer

    def _host(self, url: str, origin: Network | None = None) -> Host:
        try:
            return self._hosts.of(url, origin)
        except NotAnAddress as error:
            raise SourceError(f"cannot fetch {place(url)}", why=str(error)) from None


def _raise_if_lasting(request: _Request, error: Exception) -> None:
    """Raise SourceError for a permanent failure."""
    if is_forbidden_address(error):
        raise SourceError(
            request.what,
            why=describe(error),
            hint="if that is intended, add its host to the permitted registries: `registries` of "
            "the project, or PUBLISHER_REGISTRIES",
        ) from None
    if is_certificate_error(error):
        raise SourceError(
            request.what,
            why=describe(error),
            hint="set `ca` for this registry in the configuration, or renew the certificate",
        ) from None
    if is_proxy_login(error):  # repeated wrong passwords may lock the user out
        raise SourceError(
            request.what,
            why=describe(error),
            hint="correct user and password of the proxy, in HTTPS_PROXY",
        ) from None
    if is_not_tls(error):
        raise SourceError(
            request.what,
            why="it does not support TLS",
            hint="write http:// before its name if the registry is to be used without encryption",
        ) from None
