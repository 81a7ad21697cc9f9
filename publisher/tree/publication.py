"""publication.json: the record of a published image, beside its manifest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated

from publisher.codec import Check, Codec, omit_default
from publisher.tree.record import Digest, read_record

VERSION = 1
_HINT = "publish the image again: `publisher ingest WISHLIST` or `publisher ingest-image IMAGE`"

_MAX_SECONDS = 10**10
"""Some 300 years, and few enough to be added to a date."""

Seconds = Annotated[
    int, Check(lambda count: 0 <= count <= _MAX_SECONDS, f"is not from 0 to {_MAX_SECONDS}")
]


@dataclass(frozen=True, slots=True)
class Terms:
    """Which wish lists request an image, and on which terms.

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
        """Return whether both are the same, whichever list was first."""
        keys = ("wish_lists", "grace_seconds", "owner", "note")
        return all(getattr(self, key) == getattr(other, key) for key in keys)


@dataclass(frozen=True, slots=True)
class Publication:
    """The record of a published image: everything that its manifest does not contain.

    `source_digest` is what the reference named when it was published: the digest of an image index,
    or of the manifest itself. While the source names the same digest, the image is current.
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
        """Which wish lists request the image, and on which terms."""
        return Terms(self.wish_list, self.owner, self.note, self.grace_seconds, self.other_lists)

    def with_wish_lists(self, lists: Iterable[str]) -> Publication:
        """Return the record of an image that `lists` request; the first list stays the first."""
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
