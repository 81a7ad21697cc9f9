"""Whose name and password go to which registry.

Read from the files and helper programs that docker and podman keep. A credential is matched by the
exact host, and within it by the longest path ("host/group/project" before "host/group" before
"host"): never by a part of a name.
"""

from __future__ import annotations

import binascii
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import docker.auth
import docker.errors

from publisher.oci.reference import HUB
from publisher.sources import AuthenticationFailed
from publisher.sources.registry.credential_helper import (
    IDENTITY_TOKEN_USER,
    get_from_helper,
    is_text,
)
from publisher.sources.settings import Settings, canonical_name

MAX_FILE = 4 * 1024 * 1024
HUB_KEY = "https://index.docker.io/v1/"
"""How docker spells Docker Hub in its files and to its helpers."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and password, or an identity token that a token service takes instead."""

    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    origin: str = ""
    """Where it was found, for messages; empty where it was given just now."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown."""
        return tuple(secret for secret in (self.password, self.identity_token) if secret)


@dataclass(slots=True)
class _Answer:
    """What a helper said of a registry, once it `is_there`."""

    is_there: bool = False
    credential: Credential | None = None
    error: AuthenticationFailed | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Credentials:
    """All credentials that the settings lead to. Files are read when they are first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files: dict[Path, Mapping[str, Any]] = {}
        self._answers: dict[tuple[str, str], _Answer] = {}
        self._lock = threading.Lock()

    def find(self, registry: str, repository: str) -> Credential | None:
        """The credential for an image repository, or None where nothing is known.

        Raises AuthenticationFailed where a file or helper that should know cannot be used: going on
        without credentials would hide the mistake.
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
        self, config: Mapping[str, Any], registry: str, repository: str, origin: str
    ) -> Credential | None:
        """What one file, or the helpers that it names, knows of an image repository."""
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
        """What a helper knows of a registry; it is asked once, not for each image.

        One that failed is not asked again either: it may have taken a minute to fail.
        """
        with self._lock:
            answer = self._answers.setdefault((helper, registry), _Answer())
        with answer.lock:  # of this answer: a helper that hangs holds up its own registry only
            if not answer.is_there:
                try:
                    answer.credential = ask_helper(helper, registry)
                except AuthenticationFailed as error:
                    answer.error = error
                answer.is_there = True
        if (failed := answer.error) is not None:
            raise AuthenticationFailed(failed.what, why=failed.why, hint=failed.hint)
        return answer.credential

    def insecure_allowed(self, registry: str) -> bool:
        """Whether this registry's credential may travel unprotected."""
        return self._settings.registry(registry).insecure

    def _configs(self, own: Path | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if self._settings.credentials:
            yield "the environment", parse_config(self._settings.credentials, "the environment")
        if own is not None:
            yield str(own), self._read(own, required=True)
        for path in self._settings.credential_files:
            yield str(path), self._read(path, required=False)

    def _read(self, path: Path, *, required: bool) -> Mapping[str, Any]:
        if path not in self._files:
            self._files[path] = read_config(path, required=required)
        return self._files[path]


def read_config(path: Path, *, required: bool) -> Mapping[str, Any]:
    """A credentials file, parsed; an empty one where it does not exist and need not."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        if not required:
            return {}
        raise AuthenticationFailed(f"cannot read credentials {path}", why="no such file") from None
    except OSError as error:
        raise AuthenticationFailed(
            f"cannot read credentials {path}", why=error.strerror or type(error).__name__
        ) from error
    if len(data) > MAX_FILE:
        raise AuthenticationFailed(f"cannot read credentials {path}", why="it is too large")
    if not data.strip():
        return {}
    return parse_config(data, str(path))


def parse_config(text: str | bytes, origin: str) -> Mapping[str, Any]:
    """The JSON of a credentials file. Errors never quote it."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise AuthenticationFailed(
            f"cannot read credentials from {origin}",
            why="not a JSON object",
            hint='expected {"auths": {"registry.example.org": {"auth": "…"}}}',
        )
    return value


def _mapping(config: Mapping[str, Any], name: str, origin: str) -> Mapping[str, Any]:
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise AuthenticationFailed(
            f"cannot read credentials from {origin}", why=f"{name} is not an object"
        )
    return value


def key_of(key: str) -> str:
    """A key of a credentials file as "host[:port][/path]".

    Old entries are addresses, such as https://registry.example.org/v1/: those stand for the host.
    """
    text = key.lower()
    for scheme in ("https://", "http://"):
        if text.startswith(scheme):
            return canonical_name(text.removeprefix(scheme).partition("/")[0])
    host, slash, path = text.partition("/")
    return canonical_name(host) + slash + path.rstrip("/")


def lookup_keys(registry: str, repository: str) -> list[str]:
    """The keys that may hold an image repository's credential, the most specific first."""
    host = canonical_name(registry)
    parts = repository.lower().split("/")
    paths = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return [f"{host}/{path}" for path in paths if path] + [host]


def _credential(key: str, entry: Any, origin: str) -> Credential | None:
    """One entry of `auths`, read by docker's own rules."""
    malformed = AuthenticationFailed(
        f"cannot read the entry {key} of the credentials in {origin}",
        why="it is malformed",
        hint=f"run `publisher login {key}` again",
    )
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
    if found.password.endswith("\0"):  # docker pads what it decodes
        found = replace(found, password=found.password.rstrip("\0"))
    return found if found.username else None


def ask_helper(helper: str, registry: str) -> Credential | None:
    """Ask the program docker-credential-`helper` for a registry's credential."""
    found = get_from_helper(helper, server_key(registry))
    if found is None:
        return None
    username, secret = found
    origin = f"docker-credential-{helper}"
    if username == IDENTITY_TOKEN_USER:
        return Credential(username, identity_token=secret, origin=origin)
    return Credential(username, secret, origin=origin)


def server_key(registry: str) -> str:
    """How helpers and docker's own files name a registry."""
    return HUB_KEY if canonical_name(registry) == HUB else registry.lower()
