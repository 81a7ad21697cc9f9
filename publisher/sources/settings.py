"""How sources are reached: mirrors, certificates, credentials, proxies, engines. Pure.

The command line reads files and the environment, and passes the result.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from publisher.oci.reference import HUB, api_host

MAX_CONCURRENT = 4
"""Requests in flight to one registry, by default."""

IMAGE_TIMEOUT = timedelta(minutes=15)
"""The time that one image may wait for its registry, by default: see http/deadline.py."""


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The settings of one registry."""

    mirror: str = ""
    """The mirror to try first: "[http://|https://]host[:port][/prefix]"; empty for none."""
    ca: Path | None = None
    """PEM file of the authorities that sign this registry's certificate."""
    client_certificate: Path | None = None
    client_key: Path | None = None
    credentials: Path | None = None
    """A file in the format of Docker's config.json, read before all others for this registry."""
    credential_helper: str = ""
    """NAME of a program docker-credential-NAME, used before all files."""
    max_concurrent: int = MAX_CONCURRENT
    image_timeout: timedelta = IMAGE_TIMEOUT
    insecure: bool = False
    """Certificates are not verified, and plain HTTP is used where the server does not speak TLS."""


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies, as the usual environment variables name them."""

    http: str = field(default="", repr=False)  # a proxy's address may hold a password
    https: str = field(default="", repr=False)
    no_proxy: str = ""
    """Hosts without a proxy: names, .domains, addresses, networks (10.0.0.0/8), or "*"."""

    def for_host(self, scheme: str, host: str, port: int) -> dict[str, str]:
        """Return the proxies for requests to this host, in the form of the library requests."""
        proxy = self.https if scheme == "https" else self.http
        if not proxy or bypasses_proxy(host, port, self.no_proxy):
            return {}
        return {scheme: proxy if "://" in proxy else f"http://{proxy}"}


@dataclass(frozen=True, slots=True)
class EngineTLS:
    """TLS, with certificates of both sides, for an engine that listens on the network."""

    folder: Path
    """Contains ca.pem, cert.pem and key.pem, as docker names them."""
    verify: bool
    """Whether the engine's certificate has to be signed by ca.pem."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How sources are reached, apart from what image references contain."""

    registries: Mapping[str, RegistrySettings] = field(default_factory=dict)
    """By host[:port] in lower case; Docker Hub is "docker.io"."""
    credential_files: tuple[Path, ...] = ()
    """Files in the format of Docker's config.json or podman's auth.json; the first match counts."""
    credentials: str = field(default="", repr=False)
    """The content of such a file, from the environment; it is used before all files."""
    proxies: Proxies = Proxies()
    docker_host: str = ""
    """The engine's address, such as unix:///run/docker.sock; empty for the default one."""
    docker_tls: EngineTLS | None = None

    def registry(self, name: str) -> RegistrySettings:
        """Return the settings of the registry `name`, or the defaults."""
        return self.registries.get(canonical_name(name), _DEFAULTS)


_DEFAULTS = RegistrySettings()


def canonical_name(registry: str) -> str:
    """Return the one name of a registry: the several hosts of Docker Hub are all docker.io."""
    name = registry.lower()
    return HUB if api_host(name) == api_host(HUB) else name


def bypasses_proxy(host: str, port: int, no_proxy: str) -> bool:
    """Whether `no_proxy` includes this host."""
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
