"""Whether a request to a hook was sent by its registry. All comparisons take constant time. Pure.

distribution, Harbor    the header Authorization: the secret, after "Bearer " or alone
GitLab                  the header X-Gitlab-Token: the secret
GitHub                  the header X-Hub-Signature-256: "sha256=", HMAC-SHA256 of the body in hex
Quay, Docker Hub        the last part of the URL, since they send nothing of that kind
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence

from publisher.service.access import Unauthorized
from publisher.service.hooks.model import Hook, HookKind

_HEADERS = {
    HookKind.DISTRIBUTION: "authorization",
    HookKind.HARBOR: "authorization",
    HookKind.GITLAB: "x-gitlab-token",
    HookKind.GITHUB: "x-hub-signature-256",
}
_SCHEME = "bearer "
_SIGNATURE = "sha256="


def recorded_path(path: str) -> str:
    """Return the path of a request as logs may have it: without the secret of a hook."""
    return re.sub(r"^(/+hooks/+[^/]*)/.*", r"\1", path, flags=re.DOTALL)


def check_secret(hook: Hook, headers: Callable[[str], Sequence[str]], in_path: str) -> str:
    """Check a request before its body is read.

    Args:
        hook: The hook.
        headers: Returns the values of a header.
        in_path: The part of the URL after the name of the hook, or "".

    Returns:
        The signature of the body, which `check_signature` compares, or "".

    Raises:
        Unauthorized: The secret is missing or wrong.
    """
    if hook.kind.has_secret_in_path:
        if not _equal(in_path, hook.secret):
            raise _refused(hook, "the last part of the URL is not the secret of the hook")
        return ""
    name = _HEADERS[hook.kind]
    values = headers(name)
    if len(values) != 1 or in_path:
        raise _refused(hook, f"the request does not have one header {name}")
    if hook.kind.is_signed:
        return values[0]
    text = values[0].strip()
    if name == "authorization" and text[: len(_SCHEME)].lower() == _SCHEME:
        text = text[len(_SCHEME) :].strip()
    if not _equal(text, hook.secret):
        raise _refused(hook, f"the header {name} does not have the secret of the hook")
    return ""


def check_signature(hook: Hook, signature: str, body: bytes) -> None:
    """Raise Unauthorized unless `signature` is that of the body by the secret."""
    expected = hmac.new(hook.secret.encode(), body, hashlib.sha256).hexdigest()
    if not _equal(signature.lower(), _SIGNATURE + expected):
        raise _refused(hook, "the signature is not that of the body by the secret of the hook")


def _equal(given: str, expected: str) -> bool:
    # Hashes have one length, so that the time does not depend on that of the secret either.
    one, other = (hashlib.sha256(text.encode("utf-8", "replace")) for text in (given, expected))
    return hmac.compare_digest(one.digest(), other.digest())


def _refused(hook: Hook, why: str) -> Unauthorized:
    hint = f"give the registry the content of secret-file of the hook {hook.name}"
    return Unauthorized("cannot accept the webhook", why=why, hint=hint, is_invalid=True)
