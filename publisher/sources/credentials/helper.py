"""Credential helpers of docker and podman: the programs docker-credential-NAME.

Protocol (docker-credential-helpers): an action as the argument, a server or a JSON document on
standard input, the result on standard output. A helper has a time limit. Its output is not shown,
since it may contain the secret.
"""

from __future__ import annotations

import json
import subprocess

from publisher.lazy import pattern
from publisher.sources import AuthenticationFailed

IDENTITY_TOKEN_USER = "<token>"
"""The user name that marks the secret as an identity token."""

TIMEOUT = 60
"""The time limit in seconds; a helper with a dialog might otherwise wait forever."""

_NAME = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_UNKNOWN = "credentials not found in native keychain"


def get_from_helper(helper: str, server: str) -> tuple[str, str] | None:
    """Return the user name and secret for `server`, or None if the helper has none.

    Raises AuthenticationFailed if the helper cannot be run, fails, or violates the protocol.
    """
    output = _run(helper, "get", server.encode())
    if output is None:
        return None
    try:
        answer = json.loads(output)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _failed(helper, "get", "its answer does not follow the protocol") from None
    if not (is_text(username) and is_text(secret)):
        raise _failed(helper, "get", "its answer does not follow the protocol")
    return (username, secret) if username or secret else None


def is_text(value: object) -> bool:
    """Return whether a value from JSON is a string without lone surrogates."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def store_in_helper(helper: str, server: str, username: str, secret: str) -> None:
    """Store a credential with the helper."""
    document = {"ServerURL": server, "Username": username, "Secret": secret}
    _run(helper, "store", json.dumps(document).encode())


def erase_from_helper(helper: str, server: str) -> None:
    """Remove a credential from the helper."""
    _run(helper, "erase", server.encode())


def _run(helper: str, action: str, data: bytes) -> bytes | None:
    """Return the standard output, or None if the helper has no such credential."""
    if not _NAME.match(helper):
        raise _failed(helper, action, "its name is not valid")
    try:
        result = subprocess.run(
            [f"docker-credential-{helper}", action],
            input=data,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise _failed(helper, action, "no such program in PATH") from None
    except subprocess.TimeoutExpired:
        raise _failed(helper, action, f"no answer in {TIMEOUT} seconds") from None
    except OSError as error:
        raise _failed(helper, action, error.strerror or type(error).__name__) from error
    if result.returncode == 0:
        return result.stdout
    if _UNKNOWN in result.stdout.decode(errors="replace"):
        return None
    raise _failed(helper, action, f"it exited with status {result.returncode}")


def _failed(helper: str, action: str, why: str) -> AuthenticationFailed:
    return AuthenticationFailed(
        f"cannot {action} a credential with docker-credential-{helper}",
        why=why,
        hint="install it, or remove it from the credentials file or the configuration",
    )
