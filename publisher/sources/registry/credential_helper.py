"""The helper programs that keep credentials for docker and podman: docker-credential-NAME.

The protocol is docker's: an action as the argument, a server or a JSON document on standard input,
the answer on standard output. Called here with a time limit and with its error output caught, since
what such a program prints may hold the secret itself.
"""

from __future__ import annotations

import json
import re
import subprocess

from publisher.sources import AuthenticationFailed

IDENTITY_TOKEN_USER = "<token>"
"""The user name by which a helper says that its secret is an identity token."""

TIMEOUT = 60
"""Seconds; a helper that asks its user something in a window is not going to be answered."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_UNKNOWN = "credentials not found in native keychain"


def get_from_helper(helper: str, server: str) -> tuple[str, str] | None:
    """The user name and secret for `server`, or None where the helper has none."""
    output = _run(helper, "get", server.encode())
    if output is None:
        return None
    try:
        answer = json.loads(output)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _failed(helper, "get", "its answer is not what the protocol demands") from None
    if not (is_text(username) and is_text(secret)):
        raise _failed(helper, "get", "its answer is not what the protocol demands")
    return (username, secret) if username or secret else None


def is_text(value: object) -> bool:
    """Whether a value from JSON is text that can be sent: JSON can also hold half a character."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def store_in_helper(helper: str, server: str, username: str, secret: str) -> None:
    """Give a credential to the helper."""
    document = {"ServerURL": server, "Username": username, "Secret": secret}
    _run(helper, "store", json.dumps(document).encode())


def erase_from_helper(helper: str, server: str) -> None:
    """Have the helper forget a credential."""
    _run(helper, "erase", server.encode())


def _run(helper: str, action: str, data: bytes) -> bytes | None:
    """Standard output, or None where the helper says that it knows no such credential."""
    if not _NAME.match(helper):
        raise _failed(helper, action, "that is not the name of a helper")
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
    raise _failed(helper, action, f"it ended with status {result.returncode}")


def _failed(helper: str, action: str, why: str) -> AuthenticationFailed:
    return AuthenticationFailed(
        f"the credential helper docker-credential-{helper} failed to {action}",
        why=why,
        hint="install it, or take it out of the credentials file or the configuration",
    )
