"""Bash completes command lines of `publisher`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import publisher, succeed
from tests.layer_builder import file, image, layer, write_layout
from tests.processes import wait_until
from tests.terminal import Terminal

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Terminal]:
    """An interactive bash that completes `publisher`, in a folder with a wish list and a tree."""
    layout = write_layout(image(layer(file("motd"))), tmp_path / "layout", "1")
    for name in ("analysis", "tools"):
        arguments = ("--name", name, "--repository", tmp_path / "images")
        succeed("ingest-image", f"oci:{layout}:1", *arguments)
    program = tmp_path / "bin/publisher"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m publisher "$@"\n')
    program.chmod(0o755)
    (tmp_path / "script").write_text(succeed("completion", "bash").out)
    (tmp_path / "wishlist.yaml").write_text("version: 2\n")
    (tmp_path / "rc").write_text(
        f"cd {tmp_path}\nPATH={program.parent}:$PATH\nPYTHONPATH={ROOT}\nexport PATH PYTHONPATH\n"
        "source ./script\nPS1='ready> '\n"
    )
    terminal = Terminal(
        ["bash", "--noprofile", "--rcfile", tmp_path / "rc", "-i"],
        PUBLISHER_REPOSITORY=f"dir:{tmp_path}/images",
    )
    wait_until(lambda: terminal.shows("ready>"))
    yield terminal
    terminal.type(b"\x15exit\r")
    terminal.wait()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("publisher comp", "publisher completion "),
        ("publisher show local/an", "publisher show local/analysis:1 "),
        ("publisher show local/analysis:", "publisher show local/analysis:1 "),
        ("publisher gc --image local/to", "publisher gc --image local/tools:1 "),
        ("publisher site --compare local/to", "publisher site --compare local/tools:1 "),
        ("publisher check wish", "publisher check wishlist.yaml "),
        ("publisher ingest --config wish", "publisher ingest --config wishlist.yaml "),
        ("publisher ingest-image oci:lay", "publisher ingest-image oci:layout/"),
    ],
)
def test_bash_completes_commands_published_images_and_files(
    shell: Terminal, typed: str, completed: str
) -> None:
    shell.type(typed.encode() + b"\t")
    wait_until(lambda: shell.shows(f"ready> {completed}".rstrip()))
    shell.type(b"|")
    wait_until(lambda: shell.shows(f"ready> {completed}|"))


def test_an_unreadable_repository_completes_no_image_and_prints_nothing(tmp_path: Path) -> None:
    variables = {
        "COMP_WORDS": "publisher show loc",
        "_PUBLISHER_COMPLETE": "bash_complete",
        "PUBLISHER_REPOSITORY": f"dir:{tmp_path}/missing",
    }
    result = publisher(env=variables)
    assert (result.code, result.out.strip(), result.err) == (0, "", "")
