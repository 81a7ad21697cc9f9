"""What a registry's refusal means: "there is no such thing", or an error, and in what words.

Source: OCI distribution specification 1.1, "Error Codes".
"""

from __future__ import annotations

import base64
import json
from typing import Any

import requests

from publisher.sources import SourceError
from publisher.sources.registry.body import BrokenBody, read_document
from publisher.sources.registry.faults import place

ABSENT = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN", "TAG_INVALID"})
MAX_ERROR = 64 * 1024
_SHOWN = 200


class Refusal(Exception):
    """An answer that is not success, read to its end and out of the way of other requests.

    `spoken` is whether a registry speaks in it, and `text` what it says; `api_version` is the
    header by which registries make themselves known.
    """

    def __init__(self, what: str, response: requests.Response) -> None:
        super().__init__(what)
        self.what = what
        self.status = response.status_code
        self.place = place(response.url)
        self.is_page = is_page(response)
        self.api_version = response.headers.get("Docker-Distribution-Api-Version", "")
        errors = _read_errors(response)
        secrets = _secrets(response)
        self.spoken = bool(errors)
        self.codes = tuple(str(error.get("code") or "") for error in errors)
        self.text = "; ".join(_text(error, secrets) for error in errors)

    @property
    def says_absent(self) -> bool:
        """Whether a registry itself says that there is no such manifest, blob or repository."""
        if self.status == 404:
            return self.spoken
        return 400 <= self.status < 500 and not ABSENT.isdisjoint(self.codes)

    def as_error(self) -> SourceError:
        """The error, where it means nothing in particular."""
        why = f"{self.place} answers with status {self.status}"
        if self.spoken:
            return SourceError(self.what, why=f"{why}: {self.text}")
        if self.status == 404:
            why += ", not in the words of a registry"
        return SourceError(self.what, why=why, hint="is the host right, and is it a registry?")


def is_page(response: requests.Response) -> bool:
    """Whether an answer is a web page: what proxies and login forms send."""
    return "text/html" in response.headers.get("Content-Type", "")


def _read_errors(response: requests.Response) -> list[dict[str, Any]]:
    try:
        value = json.loads(read_document(response, "cannot read an error", MAX_ERROR))
        errors = value["errors"]
    except (BrokenBody, SourceError, ValueError, TypeError, KeyError, RecursionError):
        return []  # not the words of a registry, which says something too
    return (
        [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    )


def _secrets(response: requests.Response) -> list[str]:
    """What we sent and must not show: some servers quote the request in their errors."""
    sent = response.request.headers.get("Authorization", "")
    scheme, _, value = sent.partition(" ")
    secrets = [sent, value]
    if scheme.lower() == "basic":
        secrets.append(base64.b64decode(value).decode(errors="replace").partition(":")[2])
    return [secret for secret in secrets if secret]


def _text(error: dict[str, Any], secrets: list[str]) -> str:
    """Code and message, short, without secrets and without what could confuse a terminal."""
    parts = []
    for name in ("code", "message"):
        text = str(error.get(name) or "")
        for secret in secrets:
            text = text.replace(secret, "…")
        parts.append("".join(c for c in text[:_SHOWN] if c.isprintable()))
    return " ".join(part for part in parts if part)
