"""The state that all requests to one host share: connections, slots, and the back-off."""

from __future__ import annotations

import functools
import ssl
import threading
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import urllib3
import urllib3.exceptions
from urllib3 import BaseHTTPResponse

from publisher.lazy import pattern
from publisher.oci.reference import api_host
from publisher.sources import SourceError
from publisher.sources.http.answer import same_origin
from publisher.sources.http.clock import Clock
from publisher.sources.http.connections import Connections, peer_of
from publisher.sources.http.faults import describe
from publisher.sources.http.networks import ForbiddenAddress, Network, leads_to, network_of
from publisher.sources.settings import RegistrySettings, Settings

# `insecure: true` is explicit; a warning for each request would hide other messages.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

_NETLOC_END = pattern(r"[/?#]")

DOWN_SECONDS = 60.0
"""Seconds for which a host that could not be reached in several tries counts as down."""
PROBE_SECONDS = 10.0
"""Seconds between two requests to a host that is down; others fail at once."""


class NotAnAddress(ValueError):
    """The address is malformed, or neither http nor https."""


class Host:
    """One scheme, host and port. `usual_trust` returns the context that most hosts share.

    `origin` is the network of the server that led to it, or None; see networks.py.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        scheme: str,
        host: str,
        port: int,
        clock: Clock,
        usual_trust: Callable[[], ssl.SSLContext],
        origin: Network | None = None,
    ) -> None:
        own = settings.registry(name)
        self._clock = clock
        _check_certificates(name, own)
        self.name = name
        self.slots = threading.BoundedSemaphore(own.max_concurrent)
        proxy = settings.proxies.for_host(scheme, host, port)
        tls = _tls(own, usual_trust) if scheme == "https" else {}
        if proxy.startswith("https:"):
            tls["proxy_ssl_context"] = _trust_of_proxy(own, usual_trust)
        try:
            self.connections = Connections(proxy, own.max_concurrent, tls, origin)
        except ValueError as error:  # its text may have a password
            raise SourceError(
                f"cannot use the proxy for {name}",
                why=describe(error),
                hint=f"set {scheme.upper()}_PROXY to an address such as http://proxy.example.org:3128",
            ) from None
        self._is_direct = not proxy
        is_refused = proxy and origin is not None and not leads_to(origin, host)
        self._refused = host if is_refused else ""
        self.network = network_of(host)
        """That of the address that answered last; through a proxy, PUBLIC for a name."""
        self._lock = threading.Lock()
        self._waiting = 0.0
        self._down = 0.0
        self._probe = 0.0
        self._worked = float("-inf")
        self._reason = ""

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeouts: tuple[float, float],
    ) -> BaseHTTPResponse:
        """Send one request, as `Connections.send` does; may raise ForbiddenAddress."""
        if self._refused:
            raise ForbiddenAddress(self._refused)
        response = self.connections.send(method, url, headers, body, timeouts)
        if self._is_direct:
            self.network = network_of(peer_of(response))
        return response

    @property
    def waiting(self) -> float:
        """The time (of the clock) before which no request is sent to this host."""
        with self._lock:
            return self._waiting

    def wait_until(self, moment: float) -> None:
        """Send no request to this host before `moment` (of the clock)."""
        with self._lock:
            self._waiting = max(self._waiting, moment)

    @property
    def is_down(self) -> bool:
        """Whether it could not be reached in the last DOWN_SECONDS."""
        with self._lock:
            return self._clock.monotonic() < self._down

    def mark_down(self, why: str, since: float) -> None:
        """Mark the host as down because of `why`, after all tries of a request.

        It is not down if it answered any request `since` the first try (by the clock).
        """
        with self._lock:
            now = self._clock.monotonic()
            if self._worked < since:
                self._down, self._probe, self._reason = now + DOWN_SECONDS, now + PROBE_SECONDS, why

    def unreachable(self) -> str:
        """Return why a request must not be sent to this host now, or "".

        Without this, each of thousands of images would wait for the time-out of a host that does
        not answer, and would delay images of other hosts.
        """
        with self._lock:
            now = self._clock.monotonic()
            if now >= self._down:
                return ""
            if now < self._probe:
                return self._reason
            self._probe = now + PROBE_SECONDS
            self._down = now + 2 * DOWN_SECONDS  # longer than any wait for an answer
            return ""

    def mark_working(self) -> None:
        """Mark the host as working: it answered."""
        with self._lock:
            self._worked, self._down = self._clock.monotonic(), 0.0


def _tls(own: RegistrySettings, usual_trust: Callable[[], ssl.SSLContext]) -> dict[str, object]:
    """Return how TLS is used with a registry, as arguments of urllib3's pools."""
    options: dict[str, object] = {"cert_reqs": "CERT_NONE" if own.insecure else "CERT_REQUIRED"}
    if own.client_certificate is not None:
        options["cert_file"] = str(own.client_certificate)
        options["key_file"] = str(own.client_key) if own.client_key else None
    if own.ca is not None and not own.insecure:
        options["ca_certs"] = str(own.ca)
    elif not own.insecure:
        # A certificate of the client becomes a part of the context.
        is_usual = own.client_certificate is None
        options["ssl_context"] = usual_trust() if is_usual else ssl.create_default_context()
    return options


def _trust_of_proxy(
    own: RegistrySettings, usual_trust: Callable[[], ssl.SSLContext]
) -> ssl.SSLContext:
    """Return how the certificate of a proxy is verified, always: the registry may be insecure.

    Its authority is a usual one, or that of the registry.
    """
    if own.ca is None:
        return usual_trust()
    context = ssl.create_default_context()
    context.load_verify_locations(own.ca)
    return context


def _check_certificates(name: str, own: RegistrySettings) -> None:
    """Raise SourceError for an unusable file; a request would report an error of TLS instead."""
    path = own.ca
    if path is None and own.client_certificate is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if own.ca is not None:
            context.load_verify_locations(own.ca)
        path = own.client_certificate
        if path is not None:
            # Without this password, OpenSSL would prompt for one on the terminal.
            context.load_cert_chain(path, own.client_key, password="")
    except (OSError, ValueError) as error:  # SSLError is an OSError
        why = "not a PEM file with the expected content" if isinstance(error, ssl.SSLError) else ""
        raise SourceError(
            f"cannot use the certificate {path} for {name}",
            why=why or getattr(error, "strerror", "") or str(error),
            hint="correct the registry's settings in the configuration",
        ) from error


class Hosts:
    """All hosts that requests were sent to."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._hosts: dict[tuple[str, str, Network | None], Host] = {}
        self._named = _named(settings)
        self._lock = threading.Lock()
        self._usual_trust = functools.cache(ssl.create_default_context)  # it takes 20 ms

    def of(self, url: str, origin: Network | None = None) -> Host:
        """Return the host of an address; raise NotAnAddress if it is neither http nor https.

        `origin` is as in `Host`: connections for requests with another one are not used.
        """
        scheme, separator, rest = url.partition("://")
        netloc = _NETLOC_END.split(rest, maxsplit=1)[0].lower()
        with self._lock:
            known = self._hosts.get((scheme, netloc, origin))
            if known is None:
                try:
                    parts = urlsplit(url)
                    port = parts.port
                except ValueError:
                    raise NotAnAddress("its address is malformed") from None
                if not separator or scheme not in ("http", "https") or not parts.hostname:
                    raise NotAnAddress("its address is not http or https")
                if _is_ambiguous(netloc):
                    raise NotAnAddress("its address is malformed")
                known = self._hosts[scheme, netloc, origin] = Host(
                    netloc.rpartition("@")[2],
                    self._settings,
                    scheme,
                    parts.hostname,
                    port or (443 if scheme == "https" else 80),
                    self._clock,
                    self._usual_trust,
                    origin,
                )
            return known

    def origin(self, url: str, led_by: str, its_origin: Network | None = None) -> Network | None:
        """Return the `origin` of an address that a server has named.

        It is None if only certain registries are not permitted anyway, or if the settings name the
        host.

        Args:
            url: The address.
            led_by: An address of the server, which has answered.
            its_origin: That of `led_by`.

        Raises:
            ValueError: One of them is malformed.
        """
        if not self._settings.only or not self._named.isdisjoint(_names_of_host(url)):
            return None
        if same_origin(url, led_by):
            return its_origin
        return self.of(led_by, its_origin).network

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for host in self._hosts.values():
                host.connections.close()


def _named(settings: Settings) -> frozenset[str]:
    """Return the hosts that the settings name: registries, and mirrors."""
    names = {*settings.only, *settings.registries}
    mirrors = (each.mirror for each in settings.registries.values())
    places = (each.rpartition("://")[2].partition("/")[0] for each in mirrors if each)
    return frozenset({*map(api_host, names), *names, *(each.lower() for each in places)})


def _names_of_host(url: str) -> tuple[str, str]:
    """Return how settings may name the host of an address: without and with the usual port."""
    scheme, _, rest = url.partition("://")
    netloc = _NETLOC_END.split(rest, maxsplit=1)[0].lower().rpartition("@")[2]
    usual = ":443" if scheme == "https" else ":80"
    host = netloc.removesuffix(usual)
    return host, host + usual


def _is_ambiguous(netloc: str) -> bool:
    """Return whether urllib3 would connect to another host than urlsplit finds.

    The latter decides which credentials and settings are used. For https://one\\@two, urllib3
    connects to "one", and urlsplit finds "two"; it decodes percent signs, too.
    """
    host = netloc.rpartition("@")[2]
    is_encoded = "%" in host and not host.startswith("[")  # the zone of an IPv6 address has one
    return is_encoded or "\\" in netloc or not netloc.isprintable()
