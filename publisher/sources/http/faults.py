"""Describe failed requests without secrets, and decide which of them are tried again.

Exceptions of the HTTP libraries quote complete addresses, and the query of a signed address is a
credential. Only the texts of errors of the system and of TLS are therefore used.
"""

from __future__ import annotations

import http.client
import ssl
from urllib.parse import urlsplit

from publisher.errors import causes
from publisher.lazy import pattern
from publisher.sources.http.networks import ForbiddenAddress

_CUT = (http.client.IncompleteRead, http.client.NotConnected)
_BY_NAME = {
    "ReadTimeoutError": "no answer in time",
    "ConnectTimeoutError": "no connection in time",
    "ProtocolError": "the connection failed",
    "IncompleteRead": "the connection failed",
    "ProxyError": "the proxy cannot be used",
    "LocationParseError": "its address is malformed",
    "ProxySchemeUnknown": "the proxy is neither http nor https",
}

_REFUSED_BY_PROXY = pattern(r"Tunnel connection failed: ([0-9]{3})\b")
"""The text of http.client. Only its number is used: a proxy states the rest."""


def describe(error: BaseException) -> str:
    """Return the innermost cause of a failed connection, without any address."""
    for cause in causes(error):
        if described := _describe_cause(cause):
            return described
    name = type(error).__name__
    return _BY_NAME.get(name, f"the connection failed ({name})")


def _describe_cause(cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or 'handshake'}"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, ConnectionResetError | BrokenPipeError):
        return "the connection was reset"
    if isinstance(cause, http.client.HTTPException) and not isinstance(cause, _CUT):
        return "its answer is not HTTP"
    if isinstance(cause, OSError):
        refused = _REFUSED_BY_PROXY.match(str(cause))
        text = f"the proxy refuses the connection with status {refused[1]}" if refused else ""
        return cause.strerror or text
    return ""


def is_certificate_error(error: BaseException) -> bool:
    """Return whether the server's certificate was refused, which is permanent."""
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes(error))


def is_proxy_login(error: BaseException) -> bool:
    """Return whether a proxy requires another user or password, which is permanent."""
    found = (_REFUSED_BY_PROXY.match(str(cause)) for cause in causes(error))
    return any(refused[1] == "407" for refused in found if refused)


def is_forbidden_address(error: BaseException) -> bool:
    """Return whether a server led to an address that it may not lead to, which is permanent."""
    return any(isinstance(cause, ForbiddenAddress) for cause in causes(error))


def is_not_tls(error: BaseException) -> bool:
    """Return whether the server answered a TLS handshake with other data."""
    return any(
        isinstance(cause, ssl.SSLError)
        and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
        for cause in causes(error)
    )


def place(url: str) -> str:
    """Return host and path of an address, the parts that messages and logs may contain."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed address"
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
