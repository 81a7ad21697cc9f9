"""Where images come from: one module per transport, all with the same few methods.

`Sources` (sources/open.py) opens the right one for a reference and keeps what they share: settings,
connections, the back-off of each host.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from publisher.oci.descriptor import Descriptor
from publisher.oci.document import Document


class Source(Protocol):
    """One image repository, reached over one transport. Safe to use from several threads."""

    def resolve(self) -> str:
        """The digest that the reference names now ("algorithm:hex"): one cheap request, no pull."""

    def manifest(self, digest: str | None = None) -> Document:
        """The manifest or index that the reference, or `digest`, names: exact bytes, verified."""

    def fetch(self, descriptor: Descriptor) -> bytes:
        """A small blob (a config), whole, with size and digest verified."""

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """A blob as it arrives, in chunks: never more bytes than `descriptor.size`.

        The chunks are *not* verified here, since who consumes them (the layer engine) hashes them
        anyway; a stream that ends early or cannot be resumed raises SourceError.
        """

    def tags(self) -> Iterator[str]:
        """Every tag of the image repository, paged through to the end."""
