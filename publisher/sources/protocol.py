"""The interface of all sources of images, and a function that they share.

`Sources` (sources/open.py) opens the source of a reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from publisher.oci.descriptor import Descriptor
from publisher.oci.digest import check_digest
from publisher.oci.document import MAX_DOCUMENT_BYTES, Document
from publisher.sources.errors import SourceError


class Source(Protocol):
    """One image, or image repository, over one transport. Safe to use from several threads."""

    def resolve(self) -> str:
        """Return the digest that the reference names now, with little traffic.

        Raises ImageNotFound if the image does not exist, and SourceError if that is unknown.
        """

    def manifest(self, digest: str | None = None) -> Document:
        """Return the manifest or index that the reference, or `digest`, names.

        The bytes are those of the source, and are verified. Raises DigestMismatch, and the errors
        of `resolve`.
        """

    def fetch(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, such as a config; its size and digest are verified."""

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Return the chunks of a blob: exactly `descriptor.size` bytes.

        The digest is *not* verified here, since the caller computes it in any case. A stream that
        ends early and cannot be resumed raises SourceError.
        """

    def tags(self) -> Iterator[str]:
        """Yield every tag of the image repository. Raises the errors of `resolve`."""


class _HasBlobs(Protocol):
    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]: ...


def read_small_blob(source: _HasBlobs, descriptor: Descriptor, name: str) -> bytes:
    """Return a blob of the image `name`, at most MAX_DOCUMENT_BYTES, verified.

    Raises SourceError if it is larger, and DigestMismatch.
    """
    if descriptor.size > MAX_DOCUMENT_BYTES:
        raise SourceError(
            f"cannot read {descriptor.digest} of {name}",
            why=f"{descriptor.size} bytes is more than {MAX_DOCUMENT_BYTES}",
        )
    with source.blob(descriptor) as chunks:
        data = b"".join(chunks)
    check_digest(data, descriptor.digest, f"a blob of {name} does not match its descriptor")
    return data
