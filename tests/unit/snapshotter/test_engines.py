"""The configuration of engines is that of the pages, and valid; the systems' tests use it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from publisher.snapshotter.engines import CONFIGURATIONS, configuration
from tests.command import publisher
from tests.schemas import ROOT

SOCKET = Path("/run/publisher-snapshotter/snapshotter.sock")


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / "runtimes" / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def test_the_pages_have_what_the_command_prints() -> None:
    shown = [*blocks("containerd.md", "toml"), *blocks("docker.md", "json")]
    for name in CONFIGURATIONS:
        printed = publisher("snapshotter", "--config", name)
        assert printed.code == 0
        assert printed.out == configuration(name, SOCKET)
        assert printed.out in shown, name


def test_the_configurations_are_valid_and_name_one_socket() -> None:
    for name, version in (("containerd-2", 2), ("containerd-3", 3)):
        value = tomllib.loads(configuration(name, Path("/x/s")))
        assert value["version"] == version
        assert value["proxy_plugins"]["publisher"]["address"] == "/x/s"
    assert json.loads(configuration("docker", SOCKET))["storage-driver"] == "publisher"


def test_without_a_tree_the_command_explains_what_it_needs() -> None:
    result = publisher("snapshotter")
    assert result.code == 2
    assert "no tree was given" in result.err
    assert "publisher snapshotter --tree" in result.err
