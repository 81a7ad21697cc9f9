"""podman-store.json: the format of Podman's additional image store, and its mount."""

from __future__ import annotations

from publisher.codec import Codec
from publisher.lazy import dataclass
from publisher.tree.layout import PODMAN_STORE
from publisher.tree.record import read_record

PATH = f"{PODMAN_STORE}/podman-store.json"

VERSION = 2
"""Version 1 has no record: relative links, and the chain IDs of the OCI as layers' IDs."""


@dataclass(frozen=True, slots=True)
class PodmanStore:
    """The record of a store: `mount` is the absolute path that its links begin with."""

    mount: str

    @classmethod
    def parse(cls, data: bytes) -> PodmanStore:
        """Read the file's bytes. Raises InvalidRecord."""
        return read_record(_CODEC.parse, data, PATH)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return _CODEC.dump(self)


_CODEC = Codec(PodmanStore, version=VERSION)
