"""The packages that the databases of one layer list: `packages.json` beside the layer's index.

A layer without the record may have databases all the same: releases before the record wrote none.
"""

from __future__ import annotations

from dataclasses import dataclass

from publisher.codec import Codec, omit_default
from publisher.packages.model import Database, LayerPackages
from publisher.tree.record import Digest, read_record

VERSION = 1


@dataclass(frozen=True, slots=True)
class PackageRecord:
    """The databases of the layer `digest`, sorted by path.

    `skipped` is why databases were left out, or "".
    """

    digest: Digest
    databases: tuple[Database, ...]
    skipped: str = omit_default("")

    @classmethod
    def parse(cls, data: bytes, path: str) -> PackageRecord:
        """Read the file's bytes; `path` names it in InvalidRecord."""
        return read_record(_CODEC.parse, data, path)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return _CODEC.dump(self)

    @property
    def packages(self) -> LayerPackages:
        """The databases, as they are read from a tree."""
        return LayerPackages(self.databases, self.skipped)


_CODEC = Codec(PackageRecord, version=VERSION)
