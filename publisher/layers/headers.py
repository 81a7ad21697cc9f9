"""Parse the fields of tar headers: numbers, extended records, times. Errors are ValueErrors."""

from __future__ import annotations

from functools import lru_cache

from publisher.lazy import pattern

_DECIMAL_TIME = pattern(rb"(-?)0*([0-9]{1,32})(?:\.([0-9]{0,64}))?\Z")
_SPARSE_OFFSET = b"GNU.sparse.offset"
_SPARSE_LENGTH = b"GNU.sparse.numbytes"
_MOST_DIGITS = 20
_LONGEST_LENGTH = 64
"""The largest number of digits of a record's length, which may have leading zeros."""


@lru_cache(maxsize=4096)  # a layer has few different modes, owners and times
def octal_or_binary(field: bytes) -> int:
    """Parse a header's number: octal digits, or (first bit set) a big-endian two's complement."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        return value
    text = field.split(b"\0", 1)[0].strip(b" ")
    if not text:
        return 0
    if not text.isdigit():
        raise ValueError(f"not a number: {field!r}")
    return int(text, 8)


def pax_number(text: bytes | None, default: int) -> int:
    """Parse a record's decimal number; `default` for a missing or empty one."""
    if not text:
        return default
    digits = text[1:] if text[:1] == b"-" else text
    significant = digits.lstrip(b"0")
    if not digits.isdigit() or len(significant) > _MOST_DIGITS:
        raise ValueError(f"not a number: {text[:40]!r}")
    value = int(significant or b"0")
    return -value if text[:1] == b"-" else value


def pax_time(text: bytes | None, default_ns: int) -> int:
    """Parse a record's time as nanoseconds; smaller fractions are rounded down."""
    if not text:
        return default_ns
    match = _DECIMAL_TIME.match(text)
    if match is None:
        raise ValueError(f"not a time: {text[:40]!r}")
    sign, seconds, fraction = match.groups()
    digits = (fraction or b"").ljust(9, b"0")
    value = int(seconds) * 1_000_000_000 + int(digits[:9])
    if sign:
        return -value - (1 if digits[9:].strip(b"0") else 0)
    return value


def pax_records(content: bytes) -> tuple[dict[str, bytes], list[tuple[int, int]]]:
    """Parse an extended header: its records, and the regions that GNU's sparse format 0.0 lists.

    These are repeated records with the same two names, which the mapping cannot contain.
    """
    records: dict[str, bytes] = {}
    sparse: list[tuple[int, int]] = []
    offset: int | None = None
    at = 0
    while at < len(content):
        space = content.find(b" ", at, at + _LONGEST_LENGTH)
        digits = content[at:space]
        if space < 0 or not digits.isdigit():
            if not content[at:].strip(b"\0"):
                break  # some writers pad the header with zeros
            raise ValueError("a record has no length")
        end = at + int(digits)
        if end > len(content) or end <= space + 1 or content[end - 1] != 0x0A:
            raise ValueError("a record's length is wrong")
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise ValueError("a record has no name")
        if key == _SPARSE_OFFSET:
            offset = pax_number(value, 0)
        elif key == _SPARSE_LENGTH:
            if offset is None:
                raise ValueError("a sparse region has no offset")
            sparse.append((offset, pax_number(value, 0)))
            offset = None
        records[key.decode("utf-8", "surrogateescape")] = value
        at = end
    return records, sparse
