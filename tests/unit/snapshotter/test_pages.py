"""The configuration of engines on the pages is that which the command prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.command import succeed

PAGES = Path(__file__).parents[3] / "docs/runtimes"


@pytest.mark.parametrize(
    ("name", "page", "number"),
    [("containerd-3", "containerd", 0), ("containerd-2", "containerd", 1), ("docker", "docker", 0)],
)
def test_a_page_has_the_configuration_that_the_command_prints(
    name: str, page: str, number: int
) -> None:
    text = (PAGES / f"{page}.md").read_text()
    block = re.findall(r"^```(?:toml|json)\n(.*?)^```", text, re.M | re.S)[number]
    assert block == succeed("snapshotter", "--config", name).out
