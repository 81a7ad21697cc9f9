"""thin-image.json: the record of the thin image that was pushed for a publication."""

from __future__ import annotations

from datetime import datetime

from publisher.codec import Codec
from publisher.lazy import dataclass
from publisher.tree.record import InvalidRecord, read_record

VERSION = 1


@dataclass(frozen=True, slots=True)
class ThinTerms:
    """The input of a thin image; if it differs from the last push, the image is pushed again.

    `reference` is the name of the thin image, `source_digest` the digest of the original,
    `platforms` are the platforms of the thin image, `base_url` is the prefix of the URLs in its
    recipes, and `recipe_version` the version of their form.
    """

    reference: str
    source_digest: str
    platforms: tuple[str, ...]
    base_url: str
    recipe_version: str


@dataclass(frozen=True, slots=True)
class ThinRecord:
    """The last push: its input, and the `digest` of the pushed manifest or index."""

    reference: str
    digest: str
    source_digest: str
    platforms: tuple[str, ...]
    base_url: str
    pushed_at: datetime
    recipe_version: str = "1.0"

    @classmethod
    def of(cls, terms: ThinTerms, digest: str, pushed_at: datetime) -> ThinRecord:
        """Return the record of a push."""
        return cls(
            terms.reference,
            digest,
            terms.source_digest,
            terms.platforms,
            terms.base_url,
            pushed_at,
            terms.recipe_version,
        )

    @property
    def terms(self) -> ThinTerms:
        """The input of the thin image."""
        return ThinTerms(
            self.reference, self.source_digest, self.platforms, self.base_url, self.recipe_version
        )

    @classmethod
    def parse(cls, data: bytes, path: str) -> ThinRecord:
        """Read the file's bytes; `path` names it in InvalidRecord."""
        try:
            return read_record(_CODEC.parse, data, path)
        except InvalidRecord as error:
            raise InvalidRecord(
                path,
                why=error.why,
                hint="remove it: the next ingest then asks the registry for the thin image",
                field=error.field,
            ) from error

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return _CODEC.dump(self)


_CODEC = Codec(ThinRecord, version=VERSION)
