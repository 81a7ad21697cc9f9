"""Parse the header WWW-Authenticate, with which a registry answers 401. Pure.

Sources: RFC 9110 section 11.6.1 (challenges), and the token specification of the Docker registry.
Missing quotes, commas in quoted scopes, and several challenges in one header, which registries
send, are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from publisher.lazy import dataclass, pattern

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = pattern(rf"\s*({_TOKEN})(?=\s|,|\Z)")
_PARAMETER = pattern(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')
_TOKEN68 = pattern(r"\s+[A-Za-z0-9._~+/-]+=*\s*(?=,|\Z)")
_SEPARATOR = pattern(r"[\s,]*")

MAX_HEADER = 16 * 1024
"""The most characters that are parsed; usual challenges are much shorter."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate: the scheme in lower case, and its parameters by lower-case name."""

    scheme: str
    parameters: Mapping[str, str]

    @property
    def realm(self) -> str:
        """The address of the token service, for Bearer."""
        return self.parameters.get("realm", "")

    @property
    def service(self) -> str:
        """The name of this registry at the token service."""
        return self.parameters.get("service", "")

    @property
    def scopes(self) -> tuple[str, ...]:
        """The access that the request needs, such as "repository:library/debian:pull"."""
        return tuple(self.parameters.get("scope", "").split())


def parse_challenges(header: str) -> list[Challenge]:
    """Return the challenges in a WWW-Authenticate header, in order, without malformed parts."""
    header = header[:MAX_HEADER]
    challenges: list[Challenge] = []
    parameters: dict[str, str] = {}
    position = 0
    while position < len(header):
        position = _end(_SEPARATOR, header, position)
        parameter = _PARAMETER.match(header, position)
        scheme = _SCHEME.match(header, position)
        if parameter:
            name, quoted, bare = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
            parameters.setdefault(name.lower(), value)
            position = parameter.end()
        elif scheme:
            parameters = {}
            challenges.append(Challenge(scheme[1].lower(), parameters))
            position = _end(_TOKEN68, header, scheme.end())
        else:
            position += 1
    return challenges


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position
