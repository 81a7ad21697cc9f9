"""What a registry's refusal means: "there is no such thing", or an error, and in what words.

Source: OCI distribution specification 1.1, "Error Codes".
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import requests

from publisher.sources import SourceError
from publisher.sources.body import BrokenBody, read_document
from publisher.sources.faults import place

ABSENT = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN", "TAG_INVALID"})
MAX_ERROR = 64 * 1024
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class RegistryErrors:
    """The body of a registry's refusal. `spoken` is whether it is one, and not some web page."""

    spoken: bool
    codes: tuple[str, ...]
    text: str

    def says_absent(self, status: int) -> bool:
        """Whether the registry itself says that there is no such manifest, blob or repository."""
        if not self.spoken:
            return False
        if status == 404:
            return True
        return 400 <= status < 500 and not ABSENT.isdisjoint(self.codes)


def read_errors(response: requests.Response) -> RegistryErrors:
    """Read a refusal's body, as far as there is one."""
    try:
        value = json.loads(read_document(response, "an error", MAX_ERROR))
        errors = value["errors"]
    except (BrokenBody, SourceError, ValueError, TypeError, KeyError, RecursionError):
        return RegistryErrors(False, (), "")  # not the words of a registry, which is an answer too
    if not isinstance(errors, list):
        return RegistryErrors(False, (), "")
    found = [error for error in errors if isinstance(error, dict)]
    codes = tuple(str(error.get("code") or "") for error in found)
    secrets = _secrets(response)
    text = "; ".join(_text(error, secrets) for error in found)
    return RegistryErrors(bool(codes), codes, text)


def status_error(what: str, response: requests.Response, errors: RegistryErrors) -> SourceError:
    """The error for a status that is neither success nor "absent"."""
    why = f"{place(response.url)} answers with status {response.status_code}"
    if errors.text:
        why += f": {errors.text}"
    elif not errors.spoken and response.status_code == 404:
        why += ", not in the words of a registry"
    hint = "" if errors.spoken else "is the host right, and is it a registry?"
    return SourceError(what, why=why, hint=hint)


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
