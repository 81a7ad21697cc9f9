"""Headers of rpm packages, as rpm's databases store them.

A header without its leading magic number has two numbers of 4 bytes, of the entries of its index
and of the bytes of its data; then the index, of which each entry has a tag, a type, an offset in
the data and a count; then the data. All numbers are big-endian.
Source: the manual of rpm, "RPM V4 Package format", section "Header".
"""

from __future__ import annotations

import struct

from publisher.packages.model import Package, UnreadableDatabase

_NAME, _VERSION, _RELEASE, _EPOCH = 1000, 1001, 1002, 1003
_ARCHITECTURE, _SOURCE = 1022, 1044
_INT32, _STRING, _I18N_STRING = 4, 6, 9
_STRINGS = frozenset({_NAME, _VERSION, _RELEASE, _ARCHITECTURE, _SOURCE})
_LARGEST = 2**26
_LONGEST = 2**13

KEY = "gpg-pubkey"
"""The name of the entry of an imported key, which is not a package."""


def read_header(blob: bytes) -> Package:
    """Return the package that a header describes.

    Raises:
        UnreadableDatabase: The header is malformed.
    """
    if len(blob) < 8:
        raise UnreadableDatabase("a header is too short")
    count, size = struct.unpack_from(">II", blob)
    start = 8 + 16 * count
    if count > _LARGEST // 16 or size > _LARGEST or start + size > len(blob):
        raise UnreadableDatabase("a header is larger than its place")
    data = memoryview(blob)[start : start + size]
    texts: dict[int, str] = {}
    epoch = None
    for tag, kind, offset, number in struct.iter_unpack(">IIII", memoryview(blob)[8:start]):
        if tag in _STRINGS and kind in (_STRING, _I18N_STRING) and number:
            texts[tag] = _text(data, offset)
        elif tag == _EPOCH and kind == _INT32 and number:
            if offset + 4 > size:
                raise UnreadableDatabase("a value is outside of its header")
            [epoch] = struct.unpack_from(">I", data, offset)
    version = f"{texts.get(_VERSION, '')}-{texts.get(_RELEASE, '')}"
    return Package(
        texts.get(_NAME, ""),
        version if epoch is None else f"{epoch}:{version}",
        texts.get(_ARCHITECTURE, ""),
        texts.get(_SOURCE, ""),
    )


def _text(data: memoryview, offset: int) -> str:
    value = bytes(data[offset : offset + _LONGEST])
    end = value.find(b"\0")
    if end < 0:
        raise UnreadableDatabase("a text does not end")
    return value[:end].decode("utf-8", "replace")
