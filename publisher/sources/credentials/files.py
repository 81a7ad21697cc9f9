"""Store credentials as docker and podman do: in a file, or with the helper that it names."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from publisher.oci.reference import canonical_name
from publisher.replacing import replace_file
from publisher.sources import AuthenticationFailed
from publisher.sources.credentials.helper import erase_from_helper, store_in_helper
from publisher.sources.credentials.lookup import key_of, read_config, server_key


def store_login(path: Path, registry: str, username: str, password: str) -> str:
    """Store a credential in the file, or with the helper that the file names for this registry.

    Returns where it is stored. The other content of the file is kept. Raises AuthenticationFailed
    if the file or helper cannot be used.
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
    """Return whether the file has a credential for the registry, or names a helper for this one."""
    config = dict(read_config(path, required=False))
    helpers = config.get("credHelpers")
    named = helpers if isinstance(helpers, dict) else {}
    return bool(_keys({**_auths(config, path), **named}, registry))


def remove_login(path: Path, registry: str) -> bool:
    """Remove the credential of a registry; return whether there was one, or a helper for it.

    Raises AuthenticationFailed if the file or helper cannot be used.
    """
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


def _helper(config: dict[str, object], registry: str) -> str:
    helpers = config.get("credHelpers")
    for key, helper in helpers.items() if isinstance(helpers, dict) else ():
        if key_of(key) == canonical_name(registry):
            return str(helper)
    return str(config.get("credsStore") or "")


def _auths(config: dict[str, object], path: Path) -> dict[str, object]:
    auths = config.get("auths") or {}
    if not isinstance(auths, dict):
        raise AuthenticationFailed(f"cannot use credentials {path}", why="auths is not an object")
    return dict(auths)


def _keys(auths: dict[str, object], registry: str) -> list[str]:
    """Return all keys of the file that mean the registry itself."""
    return [key for key in auths if key_of(key) == canonical_name(registry)]


def _entry(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other publishers from changing the file within the `with`.

    The directory is locked, since the file is replaced, and a lock file would remain.
    """
    directory = path.resolve().parent
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        # On network file systems that cannot lock directories, the last write wins, as with docker.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> AuthenticationFailed:
    return AuthenticationFailed(
        f"cannot write credentials {path}", why=error.strerror or type(error).__name__
    )


def _write(path: Path, config: dict[str, object]) -> None:
    """Replace the file atomically, readable by its owner only; a symlink to it is kept."""
    try:
        replace_file(path.resolve(), json.dumps(config, indent="\t").encode(), 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error
