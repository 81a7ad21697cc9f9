"""Unpack a layer of the publisher's own, so that what this initializes exists in this process."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from publisher.entry import Content, Entry, EntryType
from publisher.layers.policy import Policy
from publisher.oci.descriptor import Descriptor
from publisher.repository.cvmfs.tar_header import END, encode, padding
from publisher.repository.layer_files import LayerPlace
from publisher.workers.answers import encode_result
from publisher.workers.job import Job, decode_job, encode_job, unpack_layer

_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_GZIP = 16 + zlib.MAX_WBITS
_CONTENT = b"1"


class _Nowhere:
    """The files of a layer of which nothing is kept; they are their own sink."""

    def __init__(self) -> None:
        self.index: BinaryIO = io.BytesIO()
        self.refused: Mapping[str, int] = {}
        self.kept = None

    @property
    def sink(self) -> _Nowhere:
        """This object."""
        return self

    def add(self, entry: Entry, content: Content = ()) -> None:
        """Read the content."""
        for _ in content:
            pass

    def finish(self) -> None:
        """Do nothing."""

    def open_tar_split(self) -> BinaryIO:
        """Return a file in memory."""
        return io.BytesIO()

    def add_packages(self, record: bytes) -> None:
        """Do nothing."""


def warm_up() -> None:
    """Do what a worker does for each layer, without files and without confinement."""
    entries = (
        Entry("directory", EntryType.DIRECTORY, 0o755),
        Entry("directory/file", EntryType.FILE, size=len(_CONTENT)),
    )
    archive = b"".join(map(encode, entries)) + _CONTENT + padding(len(_CONTENT)) + END
    compress = zlib.compressobj(wbits=_GZIP)
    blob = compress.compress(archive) + compress.flush()
    descriptor = Descriptor(_TYPE, f"sha256:{sha256(blob).hexdigest()}", len(blob))
    sent = Job(descriptor, f"sha256:{sha256(archive).hexdigest()}", Policy())
    _, job = decode_job(encode_job(LayerPlace("tree", Path()), sent))
    encode_result(unpack_layer(_Nowhere(), [blob], job, is_checked=True), ())
