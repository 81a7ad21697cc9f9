"""Interpret a registry's refusal: the image does not exist, or another error.

Source: OCI distribution specification 1.1, "Error Codes".
"""

from __future__ import annotations

import base64
import json

from publisher.lazy import dataclass
from publisher.sources import SourceError
from publisher.sources.http.answer import Answer, BrokenBody

ABSENT = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN", "TAG_INVALID"})
MAX_ERROR = 64 * 1024
MAX_ERRORS = 20
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class RegistryError:
    """One error in an answer: its code and message."""

    code: str
    message: str

    def __str__(self) -> str:
        return " ".join(part for part in (self.code, self.message) if part)


class Refusal(Exception):
    """An answer with an error status, which was read to its end to free its connection.

    `errors` are those of the answer; they are empty if it is not a registry's error document.
    `api_version` is the header by which registries identify themselves.
    """

    def __init__(self, what: str, answer: Answer) -> None:
        super().__init__(what)
        self.what = what
        self.status = answer.status
        self.place = answer.place
        self.is_web_page = answer.is_web_page
        self.api_version = answer.header("Docker-Distribution-Api-Version")
        self.errors = _read_errors(answer)
        self.text = "; ".join(filter(None, map(str, self.errors)))

    @property
    def means_absent(self) -> bool:
        """Whether the registry states that there is no such manifest, blob or repository."""
        if self.status == 404:
            return bool(self.errors)
        codes = {error.code for error in self.errors}
        return 400 <= self.status < 500 and not ABSENT.isdisjoint(codes)

    def as_error(self) -> SourceError:
        """Return the error for a refusal without a special meaning."""
        why = f"{self.place} answers with status {self.status}"
        if self.errors:
            return SourceError(self.what, why=f"{why}: {self.text}")
        if self.status == 404:
            why += ", without the error document of a registry"
        return SourceError(self.what, why=why, hint="check the host: it may not be a registry")


def _read_errors(answer: Answer) -> tuple[RegistryError, ...]:
    try:
        value = json.loads(answer.document("cannot read an error", MAX_ERROR))
    except (BrokenBody, SourceError, ValueError, RecursionError):
        return ()
    errors = value.get("errors") if isinstance(value, dict) else None
    if not isinstance(errors, list):
        return ()
    secrets = _secrets(answer)
    found = [error for error in errors[:MAX_ERRORS] if isinstance(error, dict)]
    return tuple(
        RegistryError(_text(each.get("code"), secrets), _text(each.get("message"), secrets))
        for each in found
    )


def _secrets(answer: Answer) -> list[str]:
    """Return the secrets of the request, which some servers quote in their errors."""
    sent = answer.sent_authorization
    scheme, _, value = sent.partition(" ")
    secrets = [sent, value]
    if scheme.lower() == "basic":
        secrets.append(base64.b64decode(value).decode(errors="replace").partition(":")[2])
    return [secret for secret in secrets if secret]


def _text(value: object, secrets: list[str]) -> str:
    """Return a string without secrets and control characters, shortened; "" for other values."""
    text = str(value or "")
    for secret in secrets:
        text = text.replace(secret, "…")
    return "".join(c for c in text[:_SHOWN] if c.isprintable())
