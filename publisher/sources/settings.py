"""How registries are reached: mirrors, certificates, credentials, proxies. Values only.

Nothing here looks for a file or reads the environment; the command line does, and passes what it
found.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from publisher.oci.reference import HUB, api_host

MAX_CONCURRENT = 4
"""Requests in flight to one registry, unless its settings say otherwise."""


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """What one registry needs that differs from the usual."""

    mirror: str = ""
    """Where to ask first: "[http://|https://]host[:port][/prefix]"; empty: nowhere."""
    ca: Path | None = None
    """PEM file of the authorities that sign this registry's certificate."""
    client_certificate: Path | None = None
    client_key: Path | None = None
    credentials: Path | None = None
    """A file in the form of Docker's config.json, asked before all others for this registry."""
    credential_helper: str = ""
    """NAME of a docker-credential-NAME program, asked before all files."""
    max_concurrent: int = MAX_CONCURRENT
    insecure: bool = False
    """Certificates are not verified, and plain HTTP is used where TLS is not spoken."""


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies to go through, as the usual environment variables name them."""

    http: str = field(default="", repr=False)  # a proxy's address may hold a password
    https: str = field(default="", repr=False)
    no_proxy: str = ""
    """Hosts to reach directly: names, .domains, addresses, networks (10.0.0.0/8), or "*"."""

    def for_host(self, scheme: str, host: str, port: int) -> dict[str, str]:
        """The proxies for requests to this host, as requests wants them."""
        proxy = self.https if scheme == "https" else self.http
        if not proxy or bypasses_proxy(host, port, self.no_proxy):
            return {}
        return {scheme: proxy if "://" in proxy else f"http://{proxy}"}


@dataclass(frozen=True, slots=True)
class EngineTLS:
    """How a Docker engine is reached that listens on the network: with TLS on both sides."""

    folder: Path
    """Holds ca.pem, cert.pem and key.pem, as docker names them."""
    verify: bool
    """Whether the engine has to show a certificate that ca.pem signed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about reaching sources that is not in an image reference."""

    registries: Mapping[str, RegistrySettings] = field(default_factory=dict)
    """By host[:port] in lower case; Docker Hub is "docker.io"."""
    credential_files: tuple[Path, ...] = ()
    """Files in the form of Docker's config.json or podman's auth.json, the first match wins."""
    credentials: str = field(default="", repr=False)
    """The text of such a file, asked before all files: for credentials from the environment."""
    proxies: Proxies = Proxies()
    docker_host: str = ""
    """Where the Docker engine listens, such as unix:///run/docker.sock; empty: the usual place."""
    docker_tls: EngineTLS | None = None

    def registry(self, name: str) -> RegistrySettings:
        """The settings of the registry `name`, or the usual ones."""
        return self.registries.get(canonical_name(name), _USUAL)


_USUAL = RegistrySettings()


def canonical_name(registry: str) -> str:
    """One name for each registry: Docker Hub has several hosts, all of which are docker.io."""
    name = registry.lower()
    return HUB if api_host(name) == api_host(HUB) else name


def bypasses_proxy(host: str, port: int, no_proxy: str) -> bool:
    """Whether `no_proxy` names this host."""
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
