"""Which requests the service answers: identities, and what each of them may do. Pure."""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from publisher.errors import PublisherError

_HEADER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +(?P<token>[A-Za-z0-9._~+/-]{1,4096}=*) *")


class Verb(enum.StrEnum):
    """What a request does; each route has one."""

    PROBE = "probe"
    """Whether the service is alive, for service managers."""
    BROWSE = "browse"
    """Reads what is published."""
    READ = "read"
    """Reads everything, such as jobs, their logs, and the states of wishes."""
    SUBMIT = "submit"
    """Queues jobs."""
    CANCEL = "cancel"
    """Ends jobs."""


GRANTED = (Verb.READ, Verb.SUBMIT, Verb.CANCEL)
"""The verbs that a token may have."""


class Anonymous(enum.StrEnum):
    """What requests without a token may read."""

    NOTHING = "nothing"
    PUBLISHED = "published"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the configuration, of which only the hash is known.

    Attributes:
        name: Which program or person has it, for people to read.
        sha256: The SHA-256 of the token, in hexadecimal digits.
        allows: What requests with it may do.
        expires: The first day (UTC) on which it is not valid, or None.
    """

    name: str
    sha256: str = field(repr=False)
    allows: frozenset[Verb]
    expires: date | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """Everything that decides about requests."""

    anonymous: Anonymous = Anonymous.NOTHING
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """The sender of a request: a token's name, or "" without a token."""

    name: str
    verbs: frozenset[Verb]


class Unauthorized(PublisherError):
    """A request has no token, or not one that is valid; `is_invalid` tells the two apart."""

    def __init__(self, what: str, *, why: str, hint: str, is_invalid: bool) -> None:
        super().__init__(what, why=why, hint=hint)
        self.is_invalid = is_invalid


class Forbidden(PublisherError):
    """A token does not allow what the request does."""

    def __init__(self, identity: Identity, verb: Verb) -> None:
        super().__init__(
            "cannot answer the request",
            why=f"the token {identity.name} does not allow to {verb}",
            hint=f"add {verb} to allows of the token in the configuration of the service",
        )
        self.name = identity.name
        self.verb = str(verb)


_ANONYMOUS = {
    Anonymous.NOTHING: frozenset[Verb](),
    Anonymous.PUBLISHED: frozenset({Verb.BROWSE}),
    Anonymous.EVERYTHING: frozenset({Verb.READ}),
}


def may(identity: Identity, verb: Verb) -> bool:
    """Return whether a request of `identity` may do this. Reading includes browsing."""
    if verb is Verb.PROBE or verb in identity.verbs:
        return True
    return verb is Verb.BROWSE and Verb.READ in identity.verbs


def identify(access: Access, headers: Sequence[str], now: datetime) -> Identity:
    """Return the sender of a request with these Authorization headers.

    A token also allows what requests without a token may read.

    Raises:
        Unauthorized: A header is not that of a valid token. It is not taken as anonymous, so that
            an expired token is noticed where anonymous requests are answered as well.
    """
    verbs = _ANONYMOUS[access.anonymous]
    if not headers:
        return Identity("", verbs)
    match = _HEADER.fullmatch(headers[0]) if len(headers) == 1 else None
    if match is None:
        raise _invalid("Authorization is not one header of the form 'Bearer TOKEN'")
    given = hashlib.sha256(match["token"].encode()).hexdigest()
    # All tokens are compared, so that the time does not depend on which of them matches.
    found = [each for each in access.tokens if hmac.compare_digest(each.sha256, given)]
    if not found:
        raise _invalid("the configuration of the service does not have this token")
    [token] = found[:1]
    if token.expires is not None and token.expires <= now.astimezone(UTC).date():
        raise _invalid(f"the token {token.name} has expired")
    return Identity(token.name, verbs | token.allows)


def check(identity: Identity, verb: Verb) -> None:
    """Raise Unauthorized or Forbidden if a request of `identity` may not do this."""
    if may(identity, verb):
        return
    if identity.name:
        raise Forbidden(identity, verb)
    raise Unauthorized(
        "cannot answer the request",
        why=f"requests without a token may not {_PHRASES[verb]}",
        hint="send the header 'Authorization: Bearer TOKEN'",
        is_invalid=False,
    )


_PHRASES = {
    Verb.PROBE: "probe the service",
    Verb.BROWSE: "read what is published",
    Verb.READ: "read jobs, their logs, and the states of wishes",
    Verb.SUBMIT: "queue jobs",
    Verb.CANCEL: "cancel jobs",
}


def _invalid(why: str) -> Unauthorized:
    hint = "use a token whose SHA-256 is in the configuration of the service"
    return Unauthorized("cannot answer the request", why=why, hint=hint, is_invalid=True)
