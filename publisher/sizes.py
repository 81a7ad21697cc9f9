"""Sizes in bytes as text."""

from __future__ import annotations


def human_size(count: float) -> str:
    """Return a size in bytes as text: "999 B", "48.2 MB" (powers of 1000, as disks are sold)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def noun(count: int, singular: str) -> str:
    """Return a noun as it follows a number: "layer" or "layers", "wish" or "wishes"."""
    return singular + ("" if count == 1 else "es" if singular.endswith("sh") else "s")
