"""The packages that the databases of one layer list: `packages.json` beside the layer's index.

A layer without the record may have databases all the same: releases before the record wrote none.
"""

from __future__ import annotations

from publisher.codec import Codec, omit_default
from publisher.lazy import dataclass
from publisher.packages.model import Database, LayerPackages
from publisher.tree import layout
from publisher.tree.record import Digest, InvalidRecord, read_record

VERSION = 1

LARGEST = 32 * 2**20
"""The most bytes of a record. A layer with more packages has none: its tree is read."""


@dataclass(frozen=True, slots=True)
class PackageRecord:
    """The databases of the layer `digest`, sorted by path.

    `skipped` is why databases were left out, or "".
    """

    digest: Digest
    databases: tuple[Database, ...]
    skipped: str = omit_default("")

    @classmethod
    def of(cls, digest: str, packages: LayerPackages) -> PackageRecord:
        """Return the record of `packages`."""
        return cls(digest, packages.databases, packages.skipped)

    @classmethod
    def parse(cls, data: bytes, digest: str) -> PackageRecord:
        """Read the file's bytes, which are the record of the layer `digest`."""
        path = layout.layer_packages(digest)
        if len(data) > LARGEST:
            raise InvalidRecord(path, why=f"it has more than {LARGEST} bytes")
        record = read_record(_CODEC.parse, data, path)
        if record.digest != digest:
            raise InvalidRecord(path, why=f"it describes layer {record.digest}", field="digest")
        return record

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return _CODEC.dump(self)

    @property
    def packages(self) -> LayerPackages:
        """The databases, as they are read from a tree."""
        return LayerPackages(self.databases, self.skipped)


_CODEC = Codec(PackageRecord, version=VERSION)
