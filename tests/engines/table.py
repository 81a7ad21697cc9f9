"""The results of each engine with each output, collected while the tests run."""

from __future__ import annotations

TABLE: dict[tuple[str, str], str] = {}
"""What became of each output of each engine, by their names; printed as a table at the end."""
