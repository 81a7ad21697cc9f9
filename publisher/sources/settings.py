"""The settings of sources: mirrors, certificates, credentials, proxies, engines. Pure.

The command line reads them from files and the environment.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import field
from datetime import timedelta
from pathlib import Path

from publisher.lazy import dataclass
from publisher.oci.reference import canonical_name

MAX_CONCURRENT = 4
"""The default number of simultaneous requests to one registry."""

IMAGE_TIMEOUT = timedelta(minutes=15)
"""The default time that one image may wait for its registry; see http/deadline.py."""


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The settings of one registry."""

    mirror: str = ""
    """The mirror to try first: "[http://|https://]host[:port][/prefix]"; empty for none."""
    ca: Path | None = None
    """The PEM file with the certificate authorities for this registry."""
    client_certificate: Path | None = None
    client_key: Path | None = None
    credentials: Path | None = None
    """A file in the format of Docker's config.json, which is read first for this registry."""
    credential_helper: str = ""
    """The NAME of a program docker-credential-NAME, which is used before all files."""
    max_concurrent: int = MAX_CONCURRENT
    image_timeout: timedelta = IMAGE_TIMEOUT
    insecure: bool = False
    """Do not verify certificates, and use plain HTTP if the server does not support TLS."""


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies, as the usual environment variables name them."""

    http: str = field(default="", repr=False)  # the address of a proxy may contain a password
    https: str = field(default="", repr=False)
    no_proxy: str = ""
    """Hosts without a proxy: names, .domains, addresses, networks (10.0.0.0/8), or "*"."""

    def for_host(self, scheme: str, host: str, port: int) -> str:
        """Return the address of the proxy for requests to this host, or ""."""
        proxy = self.https if scheme == "https" else self.http
        if not proxy or bypasses_proxy(host, port, self.no_proxy):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"


@dataclass(frozen=True, slots=True)
class EngineTLS:
    """TLS, with certificates of both sides, for an engine that listens on the network."""

    directory: Path
    """The directory with ca.pem, cert.pem and key.pem."""
    verify: bool
    """Whether the engine's certificate has to be signed by ca.pem."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of all sources."""

    registries: Mapping[str, RegistrySettings] = field(default_factory=dict)
    """The settings by host[:port] in lower case; Docker Hub is "docker.io"."""
    credential_files: tuple[Path, ...] = ()
    """Files in the format of Docker's config.json or podman's auth.json; the first match wins."""
    authfile: Path | None = None
    """The file that replaces the usual ones, as the option --authfile names it."""
    only: frozenset[str] = frozenset()
    """The canonical names of the registries to which requests are sent; empty for all."""
    credentials: str = field(default="", repr=False)
    """The content of such a file from the environment, which is used before all files."""
    proxies: Proxies = Proxies()
    docker_host: str = ""
    """The address of the engine, such as unix:///run/docker.sock; "" for the default."""
    docker_tls: EngineTLS | None = None

    def registry(self, name: str) -> RegistrySettings:
        """Return the settings of the registry `name`, or the defaults."""
        return self.registries.get(canonical_name(name), _DEFAULTS)


_DEFAULTS = RegistrySettings()


def bypasses_proxy(host: str, port: int, no_proxy: str) -> bool:
    """Return whether `no_proxy` includes this host."""
    host = host.lower().strip("[]")
    for entry in (item.strip().lower() for item in no_proxy.split(",")):
        if not entry:
            continue
        if entry == "*":
            return True
        name, colon, entry_port = entry.rpartition(":")
        if colon and entry_port.isdecimal() and ":" not in name:
            if int(entry_port) != port:
                continue
            entry = name
        if _in_network(host, entry):
            return True
        domain = entry.removeprefix("*").lstrip(".")
        if domain and (host == domain or host.endswith("." + domain)):
            return True
    return False


def _in_network(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False
