"""Reading a small blob whole, from any source that can stream one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from publisher.oci.descriptor import Descriptor
from publisher.oci.digest import check_digest
from publisher.oci.document import MAX_DOCUMENT_BYTES
from publisher.sources import SourceError


class _Streams(Protocol):
    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]: ...


def read_small_blob(source: _Streams, descriptor: Descriptor, what: str) -> bytes:
    """The bytes of `descriptor`, with size and digest verified; `what` names the image."""
    if descriptor.size > MAX_DOCUMENT_BYTES:
        raise SourceError(
            f"cannot read {descriptor.digest} of {what}",
            why=f"{descriptor.size} bytes is more than {MAX_DOCUMENT_BYTES}",
        )
    with source.blob(descriptor) as chunks:
        data = b"".join(chunks)
    check_digest(data, descriptor.digest, f"a blob of {what} is not what its descriptor says")
    return data
