"""The record of a pushed thin image, beside the publication that it belongs to. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from publisher.tree.records import InvalidRecord, format_time, parse_time

VERSION = 1


@dataclass(frozen=True, slots=True)
class ThinRecord:
    """What was pushed last. Whatever differs from what is wished has to be pushed (again).

    `reference` is the thin image's name, `digest` its manifest's or index'. `source_digest` is the
    original's, `platforms` are those it was made for, and `base_url` is what its recipes' URLs
    begin with.
    """

    reference: str
    digest: str
    source_digest: str
    platforms: tuple[str, ...]
    base_url: str
    pushed_at: datetime

    def says(self, other: ThinRecord) -> bool:
        """Whether both are about the same push, but for its time and what came of it."""
        keys = ("reference", "source_digest", "platforms", "base_url")
        return all(getattr(self, key) == getattr(other, key) for key in keys)

    @classmethod
    def parse(cls, data: bytes, path: str) -> ThinRecord:
        """Read a thin-image.json; InvalidRecord says what is wrong with another text."""
        try:
            value = json.loads(data)
            if value["version"] != VERSION:
                raise ValueError(f"its version is {value['version']!r}")
            texts = [value[key] for key in ("reference", "digest", "sourceDigest", "baseUrl")]
            if not all(isinstance(text, str) for text in (*texts, *value["platforms"])):
                raise TypeError("a text is none")
            reference, digest, source_digest, base_url = texts
            return cls(
                reference,
                digest,
                source_digest,
                tuple(value["platforms"]),
                base_url,
                parse_time(value["pushedAt"]),
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InvalidRecord(
                f"cannot read {path}",
                why=f"{type(error).__name__}: {error}",
                hint="remove it: the thin image is then compared with the registry's",
            ) from error

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        value = {
            "version": VERSION,
            "reference": self.reference,
            "digest": self.digest,
            "sourceDigest": self.source_digest,
            "platforms": list(self.platforms),
            "baseUrl": self.base_url,
            "pushedAt": format_time(self.pushed_at),
        }
        return json.dumps(value, indent=1).encode() + b"\n"
