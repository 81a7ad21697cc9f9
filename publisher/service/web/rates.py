"""How often clients may send requests: token buckets in the memory of this host."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from publisher.errors import PublisherError
from publisher.service.configuration import Limits

_REFUSED = 30
"""How many requests with tokens that are not valid an address may send in a minute."""

_MOST_SENDERS = 10_000
"""How many buckets are kept; the least recently used ones are forgotten, and are full again."""


class TooManyRequests(PublisherError):
    """A client sends requests too fast; it may send the next one after `seconds`."""

    def __init__(self, what: str, seconds: int) -> None:
        super().__init__(
            "cannot answer the request",
            why=f"there are too many {what}",
            hint=f"send the request again after {seconds} seconds",
        )
        self.seconds = seconds


class Rate:
    """At most `per_minute` requests for each sender, and a `share` of them at once.

    Only the thread of the event loop uses it.
    """

    def __init__(
        self, what: str, per_minute: Callable[[], int], clock: Callable[[], float], share: float = 1
    ) -> None:
        self._what = what
        self._per_minute = per_minute
        self._share = share
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, sender: str) -> None:
        """Count a request; raise TooManyRequests."""
        level = self._level(sender)
        if level < 1:
            seconds = (1 - level) * 60 / self._per_minute()
            raise TooManyRequests(self._what, math.ceil(seconds))
        self._buckets[sender] = level - 1, self._clock()
        self._buckets.move_to_end(sender)
        if len(self._buckets) > _MOST_SENDERS:
            self._buckets.popitem(last=False)

    def _level(self, sender: str) -> float:
        burst = max(1.0, self._per_minute() * self._share)
        level, then = self._buckets.get(sender, (burst, 0.0))
        return min(burst, level + max(0.0, self._clock() - then) * self._per_minute() / 60)


def network_of(address: str) -> str:
    """Return what counts as one sender: an address of IPv4, or a network /64 of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return address


class Rates:
    """The limits of all requests; `limits` returns those that are configured."""

    def __init__(
        self, limits: Callable[[], Limits], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._requests = Rate("requests from this address", lambda: limits().requests, clock, 1 / 6)
        self._writes = Rate("requests that change something", lambda: limits().writes, clock)
        what = "requests with wrong tokens from this address"
        self._refused = Rate(what, lambda: _REFUSED, clock)

    def arrived(self, address: str) -> None:
        """Count a request of an address; raise TooManyRequests."""
        self._requests.take(network_of(address))

    def refused(self, address: str) -> None:
        """Count a request whose token is not valid; raise TooManyRequests.

        Other requests of the address are answered: it may be that of a proxy.
        """
        self._refused.take(network_of(address))

    def changing(self, name: str, address: str) -> None:
        """Count a request that changes something; raise TooManyRequests."""
        self._writes.take(f"name {name}" if name else f"address {network_of(address)}")
