"""The keys of an identity provider: kept, and read again when a token has another one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from publisher.lazy import dataclass
from publisher.service.login.fetch import ProviderUnavailable, fetch
from publisher.service.providers import Provider, is_secure

MOST_KEYS = 100
RETRY_SECONDS = 60.0
"""Keys are requested at most once in this time, however many tokens have unknown ones."""
FRESH_SECONDS = 3600.0
"""After this time keys are requested again, so that those that were withdrawn are not used."""
STALE_SECONDS = 24 * 3600.0
"""For this time keys are used while the provider cannot be reached."""
_WAIT_SECONDS = 10.0
_MOST_WAITING = 8
"""How many requests wait while keys are read: tokens with forged names of keys hold no further
threads."""
_WEAK_BITS = 2048


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key, and the only algorithm that it is for; "" for any of its type."""

    key: Any
    algorithm: str


class ProviderKeys:
    """The public keys of one provider, and its discovery document. Safe in several threads."""

    def __init__(self, provider: Provider, clock: Callable[[], float] = time.monotonic) -> None:
        self.provider = provider
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)
        self._keys: Mapping[str, PublicKey] = {}
        self._read = float("-inf")
        self._tried = float("-inf")
        self._document: dict[str, Any] = {}
        self._discovered = float("-inf")

    def find(self, kid: str) -> PublicKey | None:
        """Return the key with this identifier, None if the provider has no such key.

        Raises:
            ProviderUnavailable: The keys are not known, and cannot be read now.
        """
        if not self._is_due(kid):
            return self._known(kid)
        if not self._waiting.acquire(blocking=False):
            return self._known_or_busy(kid)
        try:
            return self._read_for(kid)
        finally:
            self._waiting.release()

    def _read_for(self, kid: str) -> PublicKey | None:
        if not self._lock.acquire(timeout=_WAIT_SECONDS):
            return self._known_or_busy(kid)
        try:
            if self._is_due(kid):
                self._read_keys()
        except ProviderUnavailable:
            if kid not in self._keys:
                raise
        finally:
            self._lock.release()
        return self._known(kid)

    def _read_keys(self) -> None:
        began = self._clock()
        try:
            self._keys = self._load()
            self._read = self._clock()
        finally:
            self._tried = began  # not before: other requests wait for the keys, too

    def _known_or_busy(self, kid: str) -> PublicKey:
        known = self._known(kid)
        if known is None:
            raise _busy(self.provider.issuer)
        return known

    def endpoint(self, name: str) -> str:
        """Return an address in the discovery document; raise ProviderUnavailable."""
        with self._lock:
            return self._endpoint(name)

    def _is_due(self, kid: str) -> bool:
        now = self._clock()
        is_fresh = kid in self._keys and now - self._read < FRESH_SECONDS
        return not is_fresh and now - self._tried >= RETRY_SECONDS

    def _known(self, kid: str) -> PublicKey | None:
        return self._keys.get(kid) if self._clock() - self._read < STALE_SECONDS else None

    def _load(self) -> Mapping[str, PublicKey]:
        url = self.provider.jwks or self._endpoint("jwks_uri")
        found = fetch(url, self.provider.ca).get("keys")
        values = found[:MOST_KEYS] if isinstance(found, list) else []
        return {value["kid"]: key for value in values if (key := _usable(value)) is not None}

    def _endpoint(self, name: str) -> str:
        issuer = self.provider.issuer
        if self._clock() - self._discovered >= FRESH_SECONDS:
            url = issuer.rstrip("/") + "/.well-known/openid-configuration"
            document = fetch(url, self.provider.ca)
            if document.get("issuer") != issuer:
                raise _wrong(issuer, "its discovery document has another issuer")
            self._document, self._discovered = document, self._clock()
        address = self._document.get(name)
        if not (isinstance(address, str) and is_secure(address)):
            raise _wrong(issuer, f"its discovery document has no address {name} with TLS")
        return address


def _usable(value: object) -> PublicKey | None:
    """Return a public key for signatures; None for other keys, and for malformed ones."""
    if not isinstance(value, dict) or value.get("kty") not in ("RSA", "EC", "OKP"):
        return None  # a symmetric key would be one that everyone can read
    if value.get("use", "sig") != "sig" or not isinstance(value.get("kid"), str):
        return None
    try:
        key = jwt.PyJWK(value).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < _WEAK_BITS:
        return None
    return PublicKey(key, str(value.get("alg", "")))


def _busy(issuer: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"cannot use the identity provider {issuer}",
        why="its keys are being read, and many requests wait for them",
        hint="send the request again in some seconds",
    )


def _wrong(issuer: str, why: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"cannot use the identity provider {issuer}",
        why=why,
        hint="correct issuer in the configuration of the service",
    )
