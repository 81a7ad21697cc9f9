"""publication.json: the record of a published image, beside its manifest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Annotated

from publisher.codec import Check, Codec, omit_default
from publisher.lazy import dataclass
from publisher.tree.record import Digest, read_record

VERSION = 1
_HINT = "publish the image again: `publisher ingest WISHLIST` or `publisher ingest-image IMAGE`"

_MAX_SECONDS = 10**10
"""About 300 years: a limit that can still be added to a date."""

Seconds = Annotated[
    int, Check(lambda count: 0 <= count <= _MAX_SECONDS, f"is not from 0 to {_MAX_SECONDS}")
]


@dataclass(frozen=True, slots=True)
class Terms:
    """Which wish lists request an image, and the options of the wish.

    `wish_list` is the list that requested the image first ("" for an image that was published by
    hand); `other_lists` are those that request it as well. `grace_seconds` is how long the image
    stays usable once it is scheduled for removal.
    """

    wish_list: str = ""
    owner: str = ""
    note: str = ""
    grace_seconds: int = 0
    other_lists: tuple[str, ...] = ()

    @property
    def wish_lists(self) -> frozenset[str]:
        """Every list that requests the image; empty for an image that was published by hand."""
        return frozenset((self.wish_list, *self.other_lists)) - {""}

    def same_as(self, other: Terms) -> bool:
        """Return whether both are equal except for the order of the lists."""
        keys = ("wish_lists", "grace_seconds", "owner", "note")
        return all(getattr(self, key) == getattr(other, key) for key in keys)


@dataclass(frozen=True, slots=True)
class Publication:
    """The record of a published image: the facts that its manifest does not contain.

    `source_digest` is the digest that the reference was resolved to: that of an image index, or of
    the manifest itself. The image is current while the reference resolves to the same digest.
    `wish_list` is the list that requested the image first; `other_lists` are those that request it
    as well.
    `grace_seconds` is how long the image stays usable once it is scheduled for removal.
    """

    name: str
    reference: str
    source_digest: Digest
    manifest_digest: Digest
    image_id: Digest
    platform: str
    outputs: tuple[str, ...]
    published_at: datetime
    wish_list: str = ""
    owner: str = ""
    note: str = ""
    grace_seconds: Seconds = 0
    other_lists: tuple[str, ...] = omit_default(())

    @property
    def wish_lists(self) -> frozenset[str]:
        """Every list that requests the image; empty for an image that was published by hand."""
        return self.terms.wish_lists

    @property
    def terms(self) -> Terms:
        """Which wish lists request the image, and the options of the wish."""
        return Terms(self.wish_list, self.owner, self.note, self.grace_seconds, self.other_lists)

    def with_wish_lists(self, lists: Iterable[str]) -> Publication:
        """Return the record with `lists` as its wish lists; the first list remains first."""
        wanted = set(lists)
        first = self.wish_list if self.wish_list in wanted else min(wanted, default="")
        return replace(self, wish_list=first, other_lists=tuple(sorted(wanted - {first})))

    @classmethod
    def parse(cls, data: bytes, path: str) -> Publication:
        """Read the file's bytes; `path` names it in InvalidRecord."""
        return read_record(_CODEC.parse, data, path, hint=_HINT)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return _CODEC.dump(self)


_CODEC = Codec(Publication, version=VERSION)
