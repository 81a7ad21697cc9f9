"""Networks that one server must not lead to in another one, by redirects or addresses in answers.

A registry names other hosts: its storage, its token service, where layers are. Requests to these
come from inside, so that a registry on the Internet could have them sent to this machine, to the
metadata service of a cloud, or to hosts that only the publisher reaches. The address counts to
which a connection is made, whatever a name resolved to before.
"""

from __future__ import annotations

import enum
import errno
import ipaddress
import socket

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""Addresses that contain one of IPv4 (RFC 6052)."""

_INSIDE = (
    ipaddress.ip_network("192.0.0.0/24"),  # RFC 6890; earlier releases of Python call it public
    ipaddress.ip_network("168.63.129.16/32"),  # what Azure provides to its machines
    ipaddress.ip_network("fec0::/10"),  # RFC 3879; the host of a virtual machine may have one
)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Network(enum.StrEnum):
    """Where an address is."""

    PUBLIC = "public"
    PRIVATE = "private"
    """Everything that is not public, such as 10.0.0.0/8, and none of the next ones."""
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    """Metadata services of clouds have such addresses."""


_LEADS_TO = {
    Network.PUBLIC: {Network.PUBLIC},
    Network.PRIVATE: {Network.PUBLIC, Network.PRIVATE},
    Network.LOOPBACK: {Network.PUBLIC, Network.PRIVATE, Network.LOOPBACK},
    Network.LINK_LOCAL: {Network.PUBLIC, Network.LINK_LOCAL},
}


class ForbiddenAddress(OSError):
    """A server leads to an address in a network that it may not lead to."""

    def __init__(self, address: str) -> None:
        leads = f"leads to the {network_of(address)} address {address}"
        super().__init__(errno.EACCES, f"a redirect, or another answer, {leads}")


def network_of(host: str) -> Network:
    """Return the network of an address, in any of its forms; PUBLIC for a name.

    The name localhost is that of a loopback address.
    """
    host = host.strip("[]").lower().rstrip(".")
    address = _parse(host)
    if address is None:
        is_local = host == "localhost" or host.endswith(".localhost")
        return Network.LOOPBACK if is_local else Network.PUBLIC
    address = _embedded(address)
    if address.is_link_local:
        return Network.LINK_LOCAL
    if address.is_loopback or address.is_unspecified:
        return Network.LOOPBACK
    is_inside = address.is_multicast or address.is_reserved or any(address in e for e in _INSIDE)
    is_public = address.is_global and not is_inside
    return Network.PUBLIC if is_public else Network.PRIVATE


def leads_to(origin: Network, host: str) -> bool:
    """Return whether a server in the network `origin` may lead to this address or name."""
    return network_of(host) in _LEADS_TO[origin]


def _parse(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:  # such as 127.1, which resolvers and proxies accept
        return ipaddress.ip_address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _embedded(address: _Address) -> _Address:
    """Return the address of IPv4 that one of IPv6 contains; other addresses unchanged."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address
