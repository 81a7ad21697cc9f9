"""After every random publication or removal, the tree holds exactly what live images need.

A few sequences of steps here; `python -m tests.removal_run` tries thousands.
"""

from __future__ import annotations

from pathlib import Path

from tests.removal_run import run


def test_the_tree_holds_exactly_what_live_images_need(tmp_path: Path) -> None:
    counts = run(tmp_path, sequences=25)
    assert counts["sequences"] >= 25
    assert counts["steps"] > counts["sequences"]
