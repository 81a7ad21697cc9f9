"""What gives requests to one image repository their Authorization header.

Source: the Docker registry's token specification and its OAuth2 variant. A registry's credential
goes to that registry, and to the token service that this very registry named; nowhere else.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlencode

import requests

from publisher.sources import AuthenticationFailed, SourceError
from publisher.sources.registry.body import BrokenBody, read_document
from publisher.sources.registry.challenge import Challenge, parse_challenges
from publisher.sources.registry.credentials import Credential, Credentials
from publisher.sources.registry.exchange import Exchange
from publisher.sources.registry.faults import place
from publisher.sources.settings import canonical_name

MAX_TOKEN_ANSWER = 1024 * 1024
DEFAULT_LIFETIME = 60.0
"""Seconds that a token lives if its service does not say, by the token specification."""
LONGEST_LIFETIME = 30 * 86400.0
"""Seconds; who says that a token lives longer, or no time at all, does not say how long it does."""
MARGIN = 10.0
"""Seconds before its end at which a token is not used any more."""
REMEMBERED = 256
"""Image repositories of a registry whose tokens are kept, the latest used: a long wish list names
the tags of one image together, and all tokens of thousands of images would be much memory."""


@dataclass(frozen=True, slots=True)
class _Token:
    header: str = field(repr=False)
    good_until: float  # of time.monotonic


class RegistryAuth:
    """What was learned about one registry's authentication, shared by its image repositories."""

    def __init__(
        self, registry: str, plain_http: bool, exchange: Exchange, credentials: Credentials
    ) -> None:
        self.registry = canonical_name(registry)
        self.exchange = exchange
        self.plain_http = plain_http
        self.insecure = credentials.insecure_allowed(registry)
        self._credentials = credentials
        self._lock = threading.Lock()
        self._seen: Challenge | None = None
        self._refused: set[Credential] = set()
        self._repositories: dict[tuple[str, str], RepositoryAuth] = {}

    def credential(self, repository: str) -> Credential | None:
        """The credential for an image repository, if any is known."""
        return self._credentials.find(self.registry, repository)

    def was_refused(self, credential: Credential) -> bool:
        """Whether this credential is wrong: it is not shown again for every other image."""
        with self._lock:
            return credential in self._refused

    def note_refused(self, credential: Credential) -> None:
        """Remember that a credential is wrong. Many failed logins can lock an account."""
        with self._lock:
            self._refused.add(credential)

    @property
    def seen(self) -> Challenge | None:
        """The challenge that this registry sent last."""
        with self._lock:
            return self._seen

    def repository(self, name: str, actions: str = "pull") -> RepositoryAuth:
        """What authorizes requests to one image repository; its token serves all its images.

        `actions` are those of the token specification: "pull", or "pull,push" to write as well.
        """
        key = (name, actions)
        with self._lock:
            auth = self._repositories.pop(key, None) or RepositoryAuth(self, name, actions)
            self._repositories[key] = auth
            if len(self._repositories) > REMEMBERED:
                del self._repositories[next(iter(self._repositories))]
            return auth

    def note(self, challenge: Challenge) -> None:
        """Remember a challenge, so that other image repositories need not be refused first."""
        with self._lock:
            self._seen = challenge


class RepositoryAuth:
    """The Authorization header for one image repository. Safe to use from several threads."""

    def __init__(self, registry: RegistryAuth, repository: str, actions: str = "pull") -> None:
        self._registry = registry
        self._repository = repository
        self._verb = "write to" if "push" in actions else "read"
        # Of the registry itself, without an image repository, nothing is asked but to know us.
        self._scopes = (f"repository:{repository}:{actions}",) if repository else ()
        self._lock = threading.Lock()
        self._token: _Token | None = None

    def header(self) -> str | None:
        """A token that still lives, or what answers the usual challenge of this registry."""
        with self._lock:
            if self._token is not None and time.monotonic() < self._token.good_until:
                return self._token.header
            seen = self._registry.seen
            if seen is None:
                return None
            if seen.scheme == "basic" and self._registry.credential(self._repository) is None:
                return None  # this one may be open to everyone
            self._token = self._obtain(seen, self._scopes)
            return self._token.header

    def renew(self, challenge: str, refused: str | None) -> str:
        """What answers a 401; `refused` is the header that got it."""
        with self._lock:
            if self._token is not None and self._token.header != refused:
                return self._token.header  # another thread was faster
            chosen = self._choose(challenge)
            if chosen.scheme == "basic" and refused is not None:
                credential = self._registry.credential(self._repository)
                if credential is not None:
                    self._registry.note_refused(credential)
                raise self._failed("it refuses the user name and password", credential)
            self._token = self._obtain(chosen, chosen.scopes or self._scopes)
            self._registry.note(chosen)
            return self._token.header

    def refused(self) -> AuthenticationFailed:
        """The error for a registry that refuses what `renew` gave as well."""
        seen, credential = self._registry.seen, self._registry.credential(self._repository)
        if seen is None or seen.scheme != "basic" or credential is None:
            return self._failed("it refuses even what it asked for (status 401)", credential)
        return self._failed("it refuses the user name and password", credential)

    def denied(self, why: str) -> AuthenticationFailed:
        """The error for a registry that will not let us in."""
        return self._failed(why, self._registry.credential(self._repository))

    def _failed(self, why: str, credential: Credential | None) -> AuthenticationFailed:
        login = f"publisher login {self._registry.registry}"
        if credential is None:
            hint = f"if the image exists, it needs a login: {login}"
        elif not credential.origin:  # it was given just now, and no other was asked for
            hint = f"check the password, or access token, of {credential.username}"
        else:
            hint = f"credentials of {credential.username} from {credential.origin}; {login}"
        what = f"{self._registry.registry} does not let us "
        what += f"{self._verb} {self._repository}" if self._repository else "in"
        return AuthenticationFailed(what, why=why, hint=hint)

    def _choose(self, header: str) -> Challenge:
        challenges = parse_challenges(header)
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.realm:
                return challenge
        for challenge in challenges:
            if challenge.scheme == "basic":
                return challenge
        schemes = [challenge.scheme[:20] for challenge in challenges[:5]]
        offered = ", ".join(schemes) or "nothing"
        raise self.denied(f"it wants another kind of authentication than we have: {offered}")

    def _obtain(self, challenge: Challenge, scopes: tuple[str, ...]) -> _Token:
        credential = self._registry.credential(self._repository)
        if credential is not None and self._registry.was_refused(credential):
            raise self._failed("it has refused the user name and password before", credential)
        if challenge.scheme == "basic":
            if credential is None or not credential.password:
                raise self._failed("it wants a user name and password", credential)
            return _Token(_basic(credential), float("inf"))
        return self._ask(challenge, scopes, credential)

    def _ask(
        self, challenge: Challenge, scopes: tuple[str, ...], credential: Credential | None
    ) -> _Token:
        """A token from the service that the registry named."""
        realm = challenge.realm.partition("#")[0]
        registry = self._registry
        if "://" not in realm:
            realm = f"{'http' if registry.plain_http else 'https'}://{realm}"
        protected = realm.startswith("https:") or registry.plain_http or registry.insecure
        if credential is not None and not protected:
            raise self._failed(f"its token service {place(realm)} is not reached by HTTPS", None)
        query = [("service", challenge.service)] if challenge.service else []
        query += [("scope", scope) for scope in scopes]
        headers: dict[str, str] = {"Accept": "application/json"}
        data: bytes | None = None
        if credential is not None and credential.identity_token:
            form = [
                ("grant_type", "refresh_token"),
                ("client_id", "publisher"),
                ("service", challenge.service),
                ("scope", " ".join(scopes)),
                ("refresh_token", credential.identity_token),
            ]
            data = urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            if credential is not None:
                headers["Authorization"] = _basic(credential)
                query.append(("account", credential.username))
            realm += ("&" if "?" in realm else "?") + urlencode(query)
        method = "POST" if data is not None else "GET"
        began = time.monotonic()
        with registry.exchange.request(method, realm, headers=headers, data=data) as response:
            if response.status_code in (400, 401, 403):
                known = "the user name and password" if data is None else "the identity token"
                refused = known if credential is not None else "us without credentials"
                if credential is not None and response.status_code == 401:
                    registry.note_refused(credential)
                raise self._failed(
                    f"its token service {place(realm)} refuses {refused}", credential
                )
            return self._read(response, place(realm), began)

    def _read(self, response: requests.Response, service: str, began: float) -> _Token:
        what = f"a token for {self._registry.registry} from {service}"
        if response.status_code != 200:
            raise SourceError(f"cannot get {what}", why=f"status {response.status_code}")
        try:
            answer = json.loads(read_document(response, f"cannot get {what}", MAX_TOKEN_ANSWER))
            token = answer.get("token") or answer.get("access_token")
            lifetime = answer.get("expires_in") or DEFAULT_LIFETIME
        except BrokenBody as error:
            raise SourceError(f"cannot get {what}", why=str(error)) from None
        except (ValueError, AttributeError, RecursionError):
            raise SourceError(f"cannot get {what}", why="its answer is not one") from None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise SourceError(f"cannot get {what}", why="its answer has none")
        if not isinstance(lifetime, int | float) or not 0 < lifetime < LONGEST_LIFETIME:
            lifetime = DEFAULT_LIFETIME
        usable = max(lifetime - MARGIN, lifetime / 2)
        return _Token(f"Bearer {token}", began + usable)


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
