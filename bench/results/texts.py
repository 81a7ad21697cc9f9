"""Measured numbers as text."""

from __future__ import annotations


def size_text(number: float) -> str:
    """Return a number of bytes in decimal units: a GB has 10^9 bytes."""
    if not number:
        return "0"
    if number >= 10**9:
        return f"{number / 1e9:.2f} GB"
    return f"{number / 1e6:,.1f} MB" if number >= 10**6 else f"{number / 1e3:,.1f} kB"
