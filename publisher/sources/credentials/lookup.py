"""Find the credential for an image repository in the files and helpers of docker and podman.

A credential matches the exact host, and the longest path ("host/group/project" before "host/group"
before "host") of complete components.
"""

from __future__ import annotations

import binascii
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path

from publisher.lazy import dataclass
from publisher.oci.reference import HUB, canonical_name
from publisher.sources import AuthenticationFailed
from publisher.sources.credentials.helper import (
    IDENTITY_TOKEN_USER,
    get_from_helper,
    is_text,
)
from publisher.sources.settings import Settings

MAX_FILE = 4 * 1024 * 1024
HUB_KEY = "https://index.docker.io/v1/"
"""The key of Docker Hub in the files of docker and for helpers."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and password, or an identity token for a token service."""

    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    origin: str = ""
    """The file or helper that contains it, for messages; "" for one from the command line."""


@dataclass(slots=True)
class _Answer:
    """The answer of a helper for one registry, valid once `is_known`."""

    is_known: bool = False
    credential: Credential | None = None
    error: AuthenticationFailed | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Credentials:
    """The credentials that the settings name. Files are read when they are first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files: dict[Path, Mapping[str, object]] = {}
        self._answers: dict[tuple[str, str], _Answer] = {}
        self._lock = threading.Lock()

    def find(self, registry: str, repository: str) -> Credential | None:
        """Return the credential for an image repository, or None.

        Raises AuthenticationFailed if a file or helper cannot be used. Continuing without
        credentials would hide the mistake.
        """
        settings = self._settings.registry(registry)
        if settings.credential_helper:
            return self._ask(settings.credential_helper, canonical_name(registry))
        for origin, config in self._configs(settings.credentials):
            found = self._find(config, registry, repository, origin)
            if found is not None:
                return found
        return None

    def _find(
        self, config: Mapping[str, object], registry: str, repository: str, origin: str
    ) -> Credential | None:
        """Return the credential that one file, or a helper that it names, has."""
        auths = {
            key_of(key): (key, entry) for key, entry in _mapping(config, "auths", origin).items()
        }
        helpers = {
            key_of(key): helper for key, helper in _mapping(config, "credHelpers", origin).items()
        }
        for key in lookup_keys(registry, repository):
            if isinstance(helper := helpers.get(key), str):
                found = self._ask(helper, key)
                if found is not None:
                    return found
            if key in auths:
                found = _credential(*auths[key], origin)
                if found is not None:
                    return found
        store = config.get("credsStore")
        if isinstance(store, str) and store:
            return self._ask(store, canonical_name(registry))
        return None

    def _ask(self, helper: str, registry: str) -> Credential | None:
        """Return the credential of a helper, which runs only once for a registry.

        A helper that failed does not run again either, since that may take a minute.
        """
        with self._lock:
            answer = self._answers.setdefault((helper, registry), _Answer())
        with answer.lock:  # a blocked helper delays its own registry only
            if not answer.is_known:
                try:
                    answer.credential = ask_helper(helper, registry)
                except AuthenticationFailed as error:
                    answer.error = error
                answer.is_known = True
        if (failed := answer.error) is not None:
            raise AuthenticationFailed(failed.what, why=failed.why, hint=failed.hint)
        return answer.credential

    @property
    def authfile(self) -> Path | None:
        """The file that replaces the usual ones, as the option --authfile names it."""
        return self._settings.authfile

    def insecure_allowed(self, registry: str) -> bool:
        """Return whether the credential of this registry may be sent without encryption."""
        return self._settings.registry(registry).insecure

    def _configs(self, own: Path | None) -> Iterator[tuple[str, Mapping[str, object]]]:
        if self._settings.credentials:
            yield "the environment", parse_config(self._settings.credentials, "the environment")
        if own is not None:
            yield str(own), self._read(own, required=True)
        for path in self._settings.credential_files:
            yield str(path), self._read(path, required=False)

    def _read(self, path: Path, *, required: bool) -> Mapping[str, object]:
        if path not in self._files:
            self._files[path] = read_config(path, required=required)
        return self._files[path]


def read_config(path: Path, *, required: bool) -> Mapping[str, object]:
    """Return the content of a credentials file; empty if it is missing and not `required`."""
    what = f"cannot read credentials {path}"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        if not required:
            return {}
        raise AuthenticationFailed(
            f"cannot read credentials {path}", why="No such file or directory"
        ) from None
    except OSError as error:
        raise AuthenticationFailed(what, why=error.strerror or type(error).__name__) from error
    if len(data) > MAX_FILE:
        raise AuthenticationFailed(
            f"cannot read credentials {path}", why=f"it is larger than {MAX_FILE} bytes"
        )
    if not data.strip():
        return {}
    return parse_config(data, str(path))


def parse_config(text: str | bytes, origin: str) -> Mapping[str, object]:
    """Return the JSON object in a credentials file. Errors never quote it."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise AuthenticationFailed(
            f"cannot read credentials from {origin}",
            why="not a JSON object",
            hint='write {"auths": {"registry.example.org": {"auth": "…"}}}',
        )
    return value


def _mapping(config: Mapping[str, object], name: str, origin: str) -> Mapping[str, object]:
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise AuthenticationFailed(
            f"cannot read credentials from {origin}", why=f"{name} is not an object"
        )
    return value


def key_of(key: str) -> str:
    """Return a key of a credentials file as "host[:port][/path]".

    Old entries are addresses, such as https://registry.example.org/v1/, and mean the host.
    """
    text = key.lower()
    for scheme in ("https://", "http://"):
        if text.startswith(scheme):
            return canonical_name(text.removeprefix(scheme).partition("/")[0])
    host, slash, path = text.partition("/")
    return canonical_name(host) + slash + path.rstrip("/")


def lookup_keys(registry: str, repository: str) -> list[str]:
    """Return the keys that may hold the credential, the most specific first."""
    host = canonical_name(registry)
    parts = repository.lower().split("/")
    paths = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return [f"{host}/{path}" for path in paths if path] + [host]


def _credential(key: str, entry: object, origin: str) -> Credential | None:
    """Return the credential in one entry of `auths`, parsed by docker's own rules."""
    malformed = AuthenticationFailed(
        f"cannot read the credential for {key} in {origin}",
        why="it is malformed",
        hint=f"publisher login {key}",
    )
    # Long to load, and most registries are read without credentials.
    import docker.auth
    import docker.errors

    try:
        parsed = docker.auth.AuthConfig.parse_auth({key: entry}, raise_on_error=True)[key]
    except (docker.errors.DockerException, ValueError, TypeError, binascii.Error):
        raise malformed from None
    if token := parsed.get("IdentityToken"):
        found = Credential(IDENTITY_TOKEN_USER, identity_token=token, origin=origin)
    else:
        username, password = parsed.get("username", ""), parsed.get("password", "")
        if isinstance(entry, dict) and not username:
            username, password = entry.get("username") or "", entry.get("password") or ""
        found = Credential(username, password, origin=origin)
    if not (is_text(found.username) and is_text(found.password) and is_text(found.identity_token)):
        raise malformed
    if found.password.endswith("\0"):  # docker pads decoded passwords
        found = replace(found, password=found.password.rstrip("\0"))
    return found if found.username else None


def ask_helper(helper: str, registry: str) -> Credential | None:
    """Return the credential that docker-credential-`helper` has for a registry, or None."""
    found = get_from_helper(helper, server_key(registry))
    if found is None:
        return None
    username, secret = found
    origin = f"docker-credential-{helper}"
    if username == IDENTITY_TOKEN_USER:
        return Credential(username, identity_token=secret, origin=origin)
    return Credential(username, secret, origin=origin)


def server_key(registry: str) -> str:
    """Return the name of a registry in the files of docker and for helpers."""
    return HUB_KEY if canonical_name(registry) == HUB else registry.lower()
