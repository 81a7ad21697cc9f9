"""Signed webhooks: a message as JSON, with a signature by a secret that both sides know.

Headers and signature are those of https://www.standardwebhooks.com, for which libraries exist in
many languages: HMAC-SHA256 over "ID.TIMESTAMP.BODY", in base64.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import hmac
import json
import os
import socket
import ssl

import requests

from publisher.errors import causes
from publisher.notify.model import Message, Webhook

_SECRET_PREFIX = "whsec_"


def secret_bytes(text: str) -> bytes:
    """Return the key that a secret denotes: "whsec_" and base64, or any other text.

    Raises:
        ValueError: What follows "whsec_" is not base64.
    """
    if not text.startswith(_SECRET_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{_SECRET_PREFIX} is not followed by base64") from error


def signed_headers(message_id: str, body: bytes, key: bytes, timestamp: int) -> dict[str, str]:
    """Return the headers by which a receiver verifies `body`, sent at `timestamp` (since 1970)."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


def post(webhook: Webhook, message: Message, timestamp: int, seconds: float) -> str:
    """Send a message; return "" if the receiver confirmed it, else why not.

    Redirects are not followed, and nothing of the answer is read but its status. The reason never
    has a part of the address.

    Args:
        webhook: The receiver.
        message: What to send.
        timestamp: The time of the signature, in seconds since 1970.
        seconds: The time-out of each step: connecting, and waiting for more of the answer.
    """
    body = json.dumps(message.value).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "publisher"}
    headers |= signed_headers(message.id, body, secret_bytes(webhook.key.value), timestamp)
    session = requests.Session()
    session.auth = _no_credentials
    try:
        with session.post(
            webhook.url.value,
            data=body,
            headers=headers,
            timeout=seconds,
            allow_redirects=False,
            stream=True,
        ) as answer:
            return _objection(answer.status_code)
    except (requests.RequestException, OSError, ValueError) as error:
        return _cause(error)
    finally:
        session.close()


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Prevent that requests adds a password from ~/.netrc."""
    return request


def _objection(status: int) -> str:
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"it answers with status {status}; redirects are not followed"
    return f"it answers with status {status}"


def _cause(error: BaseException) -> str:
    """Return why a request failed: never the text of the error, which may have the address."""
    for each in causes(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {each.verify_message}"
        if isinstance(each, ssl.SSLError):
            return "no encrypted connection can be made (TLS)"
        if isinstance(each, socket.gaierror):
            return "its host name is unknown"
        if isinstance(each, OSError) and each.errno in errno.errorcode:
            return f"it cannot be reached: {os.strerror(each.errno or 0)}"
    if isinstance(error, requests.Timeout):
        return "it does not answer in time"
    return f"the connection failed ({type(error).__name__})"
