"""Signed tokens: which are accepted, and what they state about a user or a job."""

from __future__ import annotations

from typing import Any

import jwt

from publisher.errors import PublisherError
from publisher.lazy import pattern
from publisher.service.login.keys import ProviderKeys

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""Those with a public key. Neither `none` nor HMAC is among them."""

LEEWAY_SECONDS = 60
"""By how much the clock of a provider may differ."""

MAX_BYTES = 16 * 1024
_FORM = pattern(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_LONGEST_KID = 256
_MOST_GROUPS = 10_000
_REQUIRED = ["iss", "aud", "exp", "iat", "sub"]
_ERRORS = (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError)


class InvalidToken(PublisherError):
    """A signed token is not accepted; the message does not quote it."""


def is_signed_token(text: str) -> bool:
    """Return whether a text has the form of a signed token."""
    return len(text) <= MAX_BYTES and _FORM.fullmatch(text) is not None


def issuer_of(token: str) -> str:
    """Return the issuer that a token names, which is not verified; "" if it names none."""
    try:
        found = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except _ERRORS:
        return ""
    return found if isinstance(found, str) else ""


def verify(token: str, keys: ProviderKeys, audience: str) -> dict[str, Any]:
    """Return the claims of a token of one provider for one audience.

    Raises:
        InvalidToken: It is malformed, not signed by the provider, for another audience, or not
            valid at this time.
        ProviderUnavailable: The keys of the provider are not known.
    """
    if not is_signed_token(token):
        raise _invalid("it is malformed")
    try:
        header = jwt.get_unverified_header(token)
    except _ERRORS as error:
        raise _invalid("its header is malformed") from error
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS or "crit" in header:
        raise _invalid("its algorithm is not one with a public key")
    # An identifier, compared with those of the keys; it is neither a path nor an address.
    if not (isinstance(kid, str) and len(kid) <= _LONGEST_KID):
        raise _invalid("it does not name its key")
    key = keys.find(kid)
    if key is None:
        raise _invalid("the identity provider has no such key")
    if key.algorithm not in ("", algorithm):
        raise _invalid("its algorithm is not that of its key")
    try:
        return jwt.decode(
            token,
            key.key,
            algorithms=[algorithm],
            audience=audience,
            issuer=keys.provider.issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": _REQUIRED},
        )
    except jwt.ExpiredSignatureError as error:
        raise _invalid("it has expired") from error
    except jwt.ImmatureSignatureError as error:
        raise _invalid("it is not valid yet") from error
    except jwt.InvalidAudienceError as error:
        raise _invalid("it is for another audience") from error
    except _ERRORS as error:
        raise _invalid("it is not one of the identity provider") from error


def texts(claims: dict[str, Any]) -> dict[str, str]:
    """Return the claims with a single value as texts: numbers, and `true` and `false`, too."""
    found = {}
    for name, value in claims.items():
        if isinstance(value, bool):
            found[name] = "true" if value else "false"
        elif isinstance(value, str | int):
            found[name] = str(value)
    return found


def groups(claims: dict[str, Any], name: str) -> frozenset[str]:
    """Return the groups in a claim: a list of texts, or a single one."""
    value = claims.get(name)
    values = value[:_MOST_GROUPS] if isinstance(value, list) else [value]
    return frozenset(each for each in values if isinstance(each, str))


def _invalid(why: str) -> InvalidToken:
    return InvalidToken(
        "cannot accept the signed token", why=why, hint="request a new one, and send it at once"
    )
