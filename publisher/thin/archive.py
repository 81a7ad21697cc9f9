"""Archives that are equal for equal contents, whatever machine and release of zlib. Pure."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Mapping

_STORED_MAX = 0xFFFF
"""The length of a stored block of deflate is written in two bytes."""


def tar(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of `files`, in their order: mode 0644, owner 0:0, times 0."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def gzip(data: bytes) -> bytes:
    """`data` as a gzip member (RFC 1952) that stores it.

    Compressors differ between libraries and releases, and with them the digest. Every engine takes
    gzip, not every one takes a layer without compression, and ours have a few kilobytes.
    """
    header = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"  # no time; the system is "unknown"
    blocks = []
    for start in range(0, max(len(data), 1), _STORED_MAX):
        block = data[start : start + _STORED_MAX]
        is_last = start + _STORED_MAX >= len(data)
        blocks.append(struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block)
    return header + b"".join(blocks) + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
