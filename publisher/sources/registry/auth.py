"""Requests to one image repository with the Authorization header that its registry requires.

Sources: the token specification of the Docker registry, and its OAuth2 variant. A credential is
sent to its registry, and to the token service that this registry names; nowhere else.
"""

from __future__ import annotations

import contextlib
import enum
import os
import shlex
import threading
import time
from collections.abc import Iterator, Mapping

from publisher.oci.reference import canonical_name
from publisher.sources import AuthenticationFailed
from publisher.sources.credentials.lookup import Credential, Credentials
from publisher.sources.http.answer import Answer, same_origin
from publisher.sources.http.deadline import Deadline
from publisher.sources.http.exchange import Exchange
from publisher.sources.http.faults import place
from publisher.sources.registry.challenge import Challenge, parse_challenges
from publisher.sources.registry.tokens import Token, basic_header, parse_token, token_request

REMEMBERED = 256
"""The most image repositories of a registry whose tokens are kept. A long wish list usually has the
tags of one image together, and the tokens of thousands of images would take much memory."""


class _CredentialState(enum.Enum):
    """The result of the requests that used a credential."""

    ACCEPTED = enum.auto()
    DOUBTFUL = enum.auto()
    """A token service refused it for one image repository, which may be private, or it is wrong."""
    WRONG = enum.auto()


class RegistryAuth:
    """The state of one registry's authentication, shared by its image repositories."""

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
        self._standing: dict[Credential, _CredentialState] = {}
        self._repositories: dict[tuple[str, str], RepositoryAuth] = {}

    @property
    def login_command(self) -> str:
        """The command that stores a credential for this registry."""
        words = ["publisher login"]
        if (authfile := self._credentials.authfile) is not None:
            # The null device means no credentials: FILE is one that replaces it.
            words += [
                "--authfile",
                "FILE" if str(authfile) == os.devnull else shlex.quote(str(authfile)),
            ]
        return " ".join([*words, f"{'http://' if self.plain_http else ''}{self.registry}"])

    def credential(self, repository: str) -> Credential | None:
        """Return the credential for an image repository, if there is one."""
        return self._credentials.find(self.registry, repository)

    def standing(self, credential: Credential | None) -> _CredentialState | None:
        """Return the state of a credential; None before it was used."""
        with self._lock:
            return None if credential is None else self._standing.get(credential)

    def note_standing(self, credential: Credential | None, standing: _CredentialState) -> None:
        """Set the state of a credential. One that was accepted stays accepted."""
        with self._lock:
            if credential is None or self._standing.get(credential) is _CredentialState.ACCEPTED:
                return
            self._standing[credential] = standing

    @property
    def seen(self) -> Challenge | None:
        """The latest challenge of this registry."""
        with self._lock:
            return self._seen

    def note_challenge(self, challenge: Challenge) -> None:
        """Keep a challenge, so that requests to other image repositories are authorized at once."""
        with self._lock:
            self._seen = challenge

    def repository(self, name: str, actions: str = "pull") -> RepositoryAuth:
        """Return the authorization for one image repository, with one token for all its images.

        `actions` are those of the token specification: "pull", or "pull,push" to write as well.
        An empty `name` means the registry itself.
        """
        key = (name, actions)
        with self._lock:
            auth = self._repositories.pop(key, None) or RepositoryAuth(self, name, actions)
            self._repositories[key] = auth
            if len(self._repositories) > REMEMBERED:
                del self._repositories[next(iter(self._repositories))]
            return auth


class RepositoryAuth:
    """Authorized requests to one image repository. Safe to use from several threads."""

    def __init__(self, registry: RegistryAuth, repository: str, actions: str = "pull") -> None:
        self._registry = registry
        self._repository = repository
        self._verb = "push to" if "push" in actions else "pull from"
        self._scopes = (f"repository:{repository}:{actions}",) if repository else ()
        self._lock = threading.Lock()
        self._token: Token | None = None

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: str,
        *,
        deadline: Deadline,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Iterator[Answer]:
        """Yield the answer to a request, which is sent again with authorization after a 401.

        See `Exchange.request`. Raises AuthenticationFailed if the registry refuses.
        """
        headers = headers or {}
        sent, is_renewed = self._header(deadline), False
        while True:
            authorization = {} if sent is None else {"Authorization": sent}
            with self._registry.exchange.request(
                method, url, deadline=deadline, headers={**headers, **authorization}, data=data
            ) as answer:
                if answer.status != 401 or not same_origin(answer.url, url):
                    yield answer
                    return
                challenge = answer.header("WWW-Authenticate")
            # Outside of the `with`, since the token service may be the same host.
            if is_renewed and not self._has_expired(sent):
                raise self._refused()
            sent, is_renewed = self._renew(challenge, sent, deadline), True

    def denied(self, why: str) -> AuthenticationFailed:
        """Return the error for a registry that denies access."""
        return self._failed(why, self._registry.credential(self._repository))

    def _header(self, deadline: Deadline) -> str | None:
        """Return a valid token, or the answer to this registry's latest challenge."""
        with self._lock:
            if self._token is not None and self._token.is_good:
                return self._token.header
            seen = self._registry.seen
            if seen is None:
                return None
            if seen.scheme == "basic" and self._registry.credential(self._repository) is None:
                return None  # this image repository may be public
            self._token = self._obtain(seen, self._scopes, deadline)
            return self._token.header

    def _has_expired(self, header: str | None) -> bool:
        """Return whether this header's token has expired, for example during a long back-off."""
        with self._lock:
            token = self._token
            return token is not None and token.header == header and not token.is_good

    def _renew(self, header: str, refused: str | None, deadline: Deadline) -> str:
        """Return the answer to a challenge; `refused` is the header that led to it."""
        with self._lock:
            if self._token is not None and self._token.header != refused:
                return self._token.header  # another thread has renewed it
            chosen = self._choose(header)
            if chosen.scheme == "basic" and refused is not None:
                credential = self._registry.credential(self._repository)
                self._registry.note_standing(credential, _CredentialState.WRONG)
                raise self._failed("it refuses the user name and password", credential)
            self._token = self._obtain(chosen, chosen.scopes or self._scopes, deadline)
            self._registry.note_challenge(chosen)
            return self._token.header

    def _refused(self) -> AuthenticationFailed:
        """Return the error for a registry that refuses the new answer to its challenge."""
        seen, credential = self._registry.seen, self._registry.credential(self._repository)
        if seen is None or seen.scheme != "basic" or credential is None:
            return self._failed(
                "it refuses the token of its token service (status 401)", credential
            )
        return self._failed("it refuses the user name and password", credential)

    def _failed(self, why: str, credential: Credential | None) -> AuthenticationFailed:
        login = self._registry.login_command
        if credential is None:
            hint = f"if the image exists, it needs a login: {login}"
        elif not credential.origin:
            hint = f"check the password, or access token, of {credential.username}"
        else:
            hint = f"{login} (used: {credential.username}, from {credential.origin})"
        name = self._registry.registry
        what = f"cannot {self._verb} {name}/{self._repository}"
        if not self._repository:
            what = f"cannot log in to {name}"
        return AuthenticationFailed(what, why=why, hint=hint, registry=name)

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
        raise self.denied(f"it requires an unsupported kind of authentication: {offered}")

    def _obtain(self, challenge: Challenge, scopes: tuple[str, ...], deadline: Deadline) -> Token:
        credential = self._registry.credential(self._repository)
        if self._registry.standing(credential) is _CredentialState.WRONG:
            raise self._failed("it has refused the user name and password before", credential)
        if challenge.scheme == "basic":
            if credential is None or not credential.password:
                raise self._failed("it requires a user name and password", credential)
            return Token(basic_header(credential), float("inf"))
        if scopes and self._registry.standing(credential) is _CredentialState.DOUBTFUL:
            # Without scopes, a token service checks the credential only.
            self._fetch_token(challenge, (), credential, deadline)
        return self._fetch_token(challenge, scopes, credential, deadline)

    def _fetch_token(
        self,
        challenge: Challenge,
        scopes: tuple[str, ...],
        credential: Credential | None,
        deadline: Deadline,
    ) -> Token:
        """Fetch a token from the service that the registry names."""
        registry = self._registry
        asked = token_request(
            self._service_url(challenge, credential), challenge, scopes, credential
        )
        began = time.monotonic()
        with registry.exchange.request(
            asked.method,
            asked.url,
            deadline=deadline,
            headers=asked.headers,
            data=asked.data,
            led_by=registry.exchange.base_url(registry.registry, plain_http=registry.plain_http),
        ) as answer:
            if answer.status in (400, 401, 403):
                if answer.status == 401:
                    wrong = _CredentialState.DOUBTFUL if scopes else _CredentialState.WRONG
                    registry.note_standing(credential, wrong)
                known = "the user name and password" if asked.data is None else "the identity token"
                refused = known if credential is not None else "a request without credentials"
                raise self._failed(
                    f"its token service {place(asked.url)} refuses {refused}", credential
                )
            registry.note_standing(credential, _CredentialState.ACCEPTED)
            what = f"cannot get a token for {registry.registry} from {place(asked.url)}"
            return parse_token(answer, what, began)

    def _service_url(self, challenge: Challenge, credential: Credential | None) -> str:
        realm = challenge.realm.partition("#")[0]
        registry = self._registry
        if "://" not in realm:
            realm = f"{'http' if registry.plain_http else 'https'}://{realm}"
        is_protected = realm.startswith("https:") or registry.plain_http or registry.insecure
        if credential is not None and not is_protected:
            raise self._failed(f"its token service {place(realm)} does not use HTTPS", None)
        return realm
