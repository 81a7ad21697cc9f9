"""Sizes and numbers as text."""

from __future__ import annotations

from publisher.lazy import pattern

_UNITS = {"B": 1}
_UNITS |= {f"{p}B": 1000**n for n, p in enumerate(("k", "M", "G", "T"), 1)}
_UNITS |= {f"{p}iB": 1024**n for n, p in enumerate(("K", "M", "G", "T"), 1)}
_SIZE = pattern(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([kMGTK]?i?B)")


def parse_size(text: str) -> int:
    """Return a size as users write it ("20 GB", "500 MiB") in bytes; raise ValueError."""
    found = _SIZE.fullmatch(text)
    if found is None or found[2] not in _UNITS:
        raise ValueError("must be a size with its unit")
    return int(float(found[1]) * _UNITS[found[2]])


def human_size(count: float) -> str:
    """Return a size in bytes as text: "999 B", "48.2 MB" (powers of 1000, as disks are sold)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def plural(count: int, noun: str) -> str:
    """Return a number with its noun: "1 layer", "2,000 layers", "2 wishes"."""
    ending = "" if count == 1 else "es" if noun.endswith("sh") else "s"
    return f"{count:,} {noun}{ending}"
