"""Keeping credentials where docker and podman keep them: in a file, or with its helper program."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from publisher.sources import AuthenticationFailed, SourceError
from publisher.sources.registry.answers import is_page
from publisher.sources.registry.auth import RegistryAuth
from publisher.sources.registry.credential_helper import erase_from_helper, store_in_helper
from publisher.sources.registry.credentials import (
    Credential,
    Credentials,
    key_of,
    read_config,
    server_key,
)
from publisher.sources.registry.exchange import Exchange
from publisher.sources.settings import Settings, canonical_name


def check_login(
    settings: Settings, registry: str, username: str, password: str, *, plain_http: bool = False
) -> None:
    """Show the credential to the registry; AuthenticationFailed if it does not accept it."""
    exchange = Exchange(settings)
    try:
        given = _Given(settings, Credential(username, password))
        auth = RegistryAuth(registry, plain_http, exchange, given)
        url = exchange.base_url(registry, plain_http=plain_http) + "/v2/"
        with exchange.request("GET", url, authorizer=auth.repository("")) as response:
            if response.status_code == 403:
                raise auth.repository("").denied("it answers with status 403")
            if response.status_code != 200 or is_page(response):
                answer = "a web page" if is_page(response) else f"status {response.status_code}"
                raise SourceError(
                    f"cannot log in to {registry}",
                    why=f"it answers with {answer}",
                    hint="is the host right, and is it a registry?",
                )
    finally:
        exchange.close()


class _Given(Credentials):
    """The one credential that is tried, whatever files and helpers know."""

    def __init__(self, settings: Settings, credential: Credential) -> None:
        super().__init__(settings)
        self._credential = credential

    def find(self, registry: str, repository: str) -> Credential:
        return self._credential


def store_login(path: Path, registry: str, username: str, password: str) -> str:
    """Keep a credential in the file, or with the helper that the file names for this registry.

    Returns where it is kept now. What else is in the file stays as it is.
    """
    config = dict(read_config(path, required=False))
    helper = _helper(config, registry)
    if helper:
        store_in_helper(helper, server_key(registry), username, password)
        return f"docker-credential-{helper}"
    with _locked(path):
        config = dict(read_config(path, required=False))
        auths = _auths(config, path)
        for key in _keys(auths, registry):
            del auths[key]
        auths[server_key(registry)] = _entry(username, password)
        _write(path, {**config, "auths": auths})
    return str(path)


def has_login(path: Path, registry: str) -> bool:
    """Whether the file has a credential for the registry, or names a helper for it alone."""
    config = dict(read_config(path, required=False))
    helpers = config.get("credHelpers")
    named = helpers if isinstance(helpers, dict) else {}
    return bool(_keys({**_auths(config, path), **named}, registry))


def remove_login(path: Path, registry: str) -> bool:
    """Forget a registry's credential; whether there was one in the file, or a helper to ask."""
    config = dict(read_config(path, required=False))
    helper = _helper(config, registry)
    if helper:
        erase_from_helper(helper, server_key(registry))
    if not _keys(_auths(config, path), registry):
        return bool(helper)
    with _locked(path):
        config = dict(read_config(path, required=False))
        auths = _auths(config, path)
        for key in _keys(auths, registry):
            del auths[key]
        _write(path, {**config, "auths": auths})
    return True


def _helper(config: dict[str, Any], registry: str) -> str:
    helpers = config.get("credHelpers")
    for key, helper in helpers.items() if isinstance(helpers, dict) else ():
        if key_of(key) == canonical_name(registry):
            return str(helper)
    return str(config.get("credsStore") or "")


def _auths(config: dict[str, Any], path: Path) -> dict[str, Any]:
    auths = config.get("auths") or {}
    if not isinstance(auths, dict):
        raise AuthenticationFailed(f"cannot use credentials {path}", why="auths is not an object")
    return dict(auths)


def _keys(auths: dict[str, Any], registry: str) -> list[str]:
    """All spellings under which the file has the registry; not those of paths within it."""
    return [key for key in auths if key_of(key) == canonical_name(registry)]


def _entry(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """No other of us changes the file meanwhile: it is to be read and written within the `with`.

    What is locked is its folder, since the file is replaced, and a lock file would stay there.
    """
    folder = path.resolve().parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        # Some network file systems lock no folders; there, as with docker, the last one wins.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> AuthenticationFailed:
    return AuthenticationFailed(
        f"cannot write credentials {path}", why=error.strerror or type(error).__name__
    )


def _write(path: Path, config: dict[str, Any]) -> None:
    """Replace the file at once, readable by its owner only; a link to it stays one."""
    target = path.resolve()
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(config, file, indent="\t")
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise _unwritable(path, error) from error
