"""Archives whose bytes depend on their contents only, not on machine or zlib release. Pure."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence

from publisher.entry import EntryType, Generated

_STORED_MAX = 0xFFFF
"""The largest stored block of deflate: its length has two bytes."""


_TYPES = {EntryType.DIRECTORY: tarfile.DIRTYPE, EntryType.SYMLINK: tarfile.SYMTYPE}


def tar(files: Mapping[str, bytes], others: Sequence[Generated] = ()) -> bytes:
    """Return a tar archive of `files`, in their order: mode 0644, owner 0:0, times 0.

    `others` follow, with their own modes and owners, and times 0.
    """
    buffer = io.BytesIO()
    # Extended headers are written only for names and numbers that the old format cannot hold.
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for other in others:
            entry = other.entry
            member = tarfile.TarInfo(entry.path)
            member.type = _TYPES.get(entry.type, tarfile.REGTYPE)
            member.mode, member.uid, member.gid = entry.mode, entry.uid, entry.gid
            member.linkname = entry.target if entry.type is EntryType.SYMLINK else ""
            member.size = len(other.content)
            archive.addfile(member, io.BytesIO(other.content))
    return buffer.getvalue()


def gzip(data: bytes) -> bytes:
    """Return `data` as a gzip member (RFC 1952) with stored blocks.

    The output of compressors, and with it the digest, differs between libraries and releases. Some
    engines refuse layers without compression; all accept gzip. A recipe has a few kilobytes.
    """
    header = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"  # no time; the system is "unknown"
    blocks = []
    for start in range(0, max(len(data), 1), _STORED_MAX):
        block = data[start : start + _STORED_MAX]
        is_last = start + _STORED_MAX >= len(data)
        blocks.append(struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block)
    return header + b"".join(blocks) + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
