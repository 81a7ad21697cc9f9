"""Decompress blobs as streams, in pieces of bounded size.

Sources: RFC 1952 (a gzip file is a series of members), RFC 8878 (a zstd file is a series of frames,
some of which are skippable).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, cast

import zstandard
from isal import igzip_lib

from publisher.layers.errors import LayerError

PIECE = 256 * 1024
"""The most bytes that are decompressed at once, which bounds memory for any blob."""

_ZSTD_WINDOW = 2**27
"""The largest zstd window (bytes) that is accepted: that of `zstd --long`."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_REFUSED = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip"}
_LONGEST_MAGIC = 6
_ISAL_ERROR = cast(type[Exception], igzip_lib.error)


def decompress(chunks: Iterable[bytes], what: str) -> Iterator[bytes]:
    """Yield the archive inside `chunks`: gzip, zstd or uncompressed, according to the first bytes.

    The media type is not used, since it is wrong in some images. The digest of the result is
    compared with the diff ID in any case. Pieces have at most PIECE bytes, or are as large as
    the chunk they come from. Raises LayerError, naming the blob as `what`, for corrupt streams.
    """
    source = _Source(chunks)
    start = source.peek(_LONGEST_MAGIC)
    for magic, name in _REFUSED.items():
        if start.startswith(magic):
            raise LayerError(
                f"cannot unpack {what}",
                why=f"it is compressed with {name}, which is not a format of image layers",
                hint="push the image again with gzip or zstd layers",
            )
    if start.startswith(_GZIP_MAGIC):
        return _gunzip(source, what)
    if start.startswith(_ZSTD_MAGIC) or _is_skippable_frame(start):
        return _unzstd(source, what)
    return source.rest()


class _Source:
    """A file object that reads from chunks and can look ahead."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._held = b""

    def peek(self, count: int) -> bytes:
        while len(self._held) < count:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._held += chunk
        return self._held[:count]

    def next_chunk(self) -> bytes:
        """Return the next chunk; b"" at the end."""
        held, self._held = self._held, b""
        return held or next(self._chunks, b"")

    def put_back(self, data: bytes) -> None:
        self._held = data + self._held

    def read(self, count: int) -> bytes:
        """Return at most `count` bytes, as zstandard reads its source."""
        chunk = self.next_chunk()
        if len(chunk) > count:
            self.put_back(chunk[count:])
            return chunk[:count]
        return chunk

    def rest(self) -> Iterator[bytes]:
        while chunk := self.next_chunk():
            yield chunk


def _is_skippable_frame(start: bytes) -> bool:
    return len(start) >= 4 and start[1:4] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50


def _gunzip(source: _Source, what: str) -> Iterator[bytes]:
    while True:
        yield from _gunzip_member(source, what)
        start = source.peek(2)
        if start == _GZIP_MAGIC:
            continue
        if any(
            any(chunk) for chunk in source.rest()
        ):  # zero padding after the last member is permitted
            raise LayerError(f"cannot unpack {what}", why="other data follow the gzip stream")
        return


def _gunzip_member(source: _Source, what: str) -> Iterator[bytes]:
    inflate: Callable[[bytes, int], bytes]
    decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    inflate = decompressor.decompress
    while not decompressor.eof:
        data = b""
        if decompressor.needs_input:
            data = source.next_chunk()
            if not data:
                raise LayerError(f"cannot unpack {what}", why="the gzip stream ends too early")
        try:
            piece = inflate(data, PIECE)
        except _ISAL_ERROR as error:
            raise LayerError(
                f"cannot unpack {what}", why=f"the gzip stream is corrupt: {error}"
            ) from error
        if piece:
            yield piece
    source.put_back(decompressor.unused_data)


def _unzstd(source: _Source, what: str) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    reader = decompressor.stream_reader(cast(BinaryIO, source), read_across_frames=True)
    while True:
        try:
            piece = reader.read(PIECE)
        except zstandard.ZstdError as error:
            raise LayerError(
                f"cannot unpack {what}", why=f"the zstd stream is corrupt: {error}"
            ) from error
        if not piece:
            return
        yield piece
