"""The state that all requests to one host share: connections, slots, and the back-off."""

from __future__ import annotations

import functools
import ssl
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

import urllib3
import urllib3.exceptions

from publisher.lazy import pattern
from publisher.sources import SourceError
from publisher.sources.http.clock import Clock
from publisher.sources.http.connections import Connections
from publisher.sources.http.faults import describe
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
    """One scheme, host and port. `usual_trust` returns the context that most hosts share."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        scheme: str,
        host: str,
        port: int,
        clock: Clock,
        usual_trust: Callable[[], ssl.SSLContext],
    ) -> None:
        own = settings.registry(name)
        self._clock = clock
        _check_certificates(name, own)
        self.name = name
        self.slots = threading.BoundedSemaphore(own.max_concurrent)
        try:
            self.connections = Connections(
                settings.proxies.for_host(scheme, host, port),
                own.max_concurrent,
                _tls(own, usual_trust) if scheme == "https" else {},
            )
        except ValueError as error:  # its text may have a password
            raise SourceError(
                f"cannot use the proxy for {name}",
                why=describe(error),
                hint=f"set {scheme.upper()}_PROXY to an address such as http://proxy.example.org:3128",
            ) from None
        self._lock = threading.Lock()
        self._waiting = 0.0
        self._down = 0.0
        self._probe = 0.0
        self._worked = float("-inf")
        self._reason = ""

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

    def fails(self, why: str, since: float) -> None:
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

    def works(self) -> None:
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
        self._hosts: dict[tuple[str, str], Host] = {}
        self._lock = threading.Lock()
        self._usual_trust = functools.cache(ssl.create_default_context)  # it takes 20 ms

    def of(self, url: str) -> Host:
        """Return the host of an address; raise NotAnAddress if it is neither http nor https."""
        scheme, separator, rest = url.partition("://")
        netloc = _NETLOC_END.split(rest, maxsplit=1)[0].lower()
        with self._lock:
            known = self._hosts.get((scheme, netloc))
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
                known = self._hosts[scheme, netloc] = Host(
                    netloc.rpartition("@")[2],
                    self._settings,
                    scheme,
                    parts.hostname,
                    port or (443 if scheme == "https" else 80),
                    self._clock,
                    self._usual_trust,
                )
            return known

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for host in self._hosts.values():
                host.connections.shut()


def _is_ambiguous(netloc: str) -> bool:
    """Return whether urllib3 would connect to another host than urlsplit finds.

    The latter decides which credentials and settings are used. For https://one\\@two, urllib3
    connects to "one", and urlsplit finds "two"; it decodes percent signs, too.
    """
    host = netloc.rpartition("@")[2]
    is_encoded = "%" in host and not host.startswith("[")  # the zone of an IPv6 address has one
    return is_encoded or "\\" in netloc or not netloc.isprintable()
