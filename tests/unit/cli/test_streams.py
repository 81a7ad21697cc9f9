"""Commands whose standard streams are closed, full, or abandoned by their readers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.command import command, environment, succeed
from tests.layer_builder import file, image, layer, write_layout


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(image(layer(file("motd", b"hi"))), tmp_path / "layout", "1")


def shell(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script in which "$@" is the `publisher` command."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", script, "bash", *command(*arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def abandoned_pipe() -> int:
    """The writing end of a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_a_closed_pipe_does_not_hide_that_an_image_failed(tmp_path: Path, layout: Path) -> None:
    writer = abandoned_pipe()
    arguments = ("ingest-image", f"oci:{layout}:absent", "--repository", tmp_path / "images")
    try:
        ended = subprocess.run(command(*arguments), env=environment(), stdout=writer, timeout=60)
    finally:
        os.close(writer)
    assert ended.returncode == 1


def test_a_closed_pipe_is_not_a_failure(tmp_path: Path, layout: Path) -> None:
    succeed("ingest-image", f"oci:{layout}:1", "--repository", tmp_path / "images")
    ended = shell('"$@" | true', "list", "--repository", tmp_path / "images")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_closed_progress_stream_fails_no_image(tmp_path: Path, layout: Path) -> None:
    writer = abandoned_pipe()
    arguments = ("ingest-image", f"oci:{layout}:1", "--repository", tmp_path / "images")
    try:
        ended = subprocess.run(command(*arguments), env=environment(), stderr=writer, timeout=60)
    finally:
        os.close(writer)
    assert ended.returncode == 0
    assert (tmp_path / "images/local/layout:1/motd").exists()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(tmp_path: Path, layout: Path, closed: str) -> None:
    images = tmp_path / "images"
    arguments = ("ingest-image", f"oci:{layout}:1", "--repository", images)
    assert shell(f'"$@" {closed}', *arguments).returncode == 0
    assert (images / "local/layout:1/motd").read_text() == "hi"
    raw = shell(f'"$@" {closed}', "inspect", "--raw", f"oci:{layout}:1")
    assert raw.returncode == 0 and "Traceback" not in raw.stderr
    closed_list = shell(f'"$@" {closed}', "check", "--offline", "-")
    assert "Traceback" not in closed_list.stderr


def test_results_that_cannot_be_stored_are_an_error_without_a_traceback(
    tmp_path: Path, layout: Path
) -> None:
    succeed("ingest-image", f"oci:{layout}:1", "--repository", tmp_path / "images")
    for output in ("text", "json"):
        ended = shell(
            '"$@" > /dev/full', "list", "--repository", tmp_path / "images", "--output", output
        )
        assert ended.returncode == 3
        assert "cannot use standard output\n  why: No space left on device" in ended.stderr
        assert "try: free space on the file system of the output" in ended.stderr
        assert "Traceback" not in ended.stderr and "Exception" not in ended.stderr


def test_names_that_are_not_utf_8_are_printed_as_before(tmp_path: Path) -> None:
    built = image(layer(file(b"caf\xe9", b"x")))
    layout = write_layout(built, tmp_path / "layout", "1")
    succeed("ingest-image", f"oci:{layout}:1", "--repository", tmp_path / "images")
    arguments = ("ls", "local/layout:1", "--repository", tmp_path / "images", "--output", "json")
    listed = json.loads(succeed(*arguments).out)
    assert "caf\udce9" in json.dumps(listed, ensure_ascii=False)
