"""Text from outside cannot control a terminal or forge lines of a log."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.command import command, environment, succeed
from tests.layer_builder import file, hardlink, image, layer, write_layout

EVIL = "1\x1b[2J\nfailed: forged"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    folder = write_layout(image(layer(file("motd"))), tmp_path / "layout", "good")
    index = json.loads((folder / "index.json").read_bytes())
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = EVIL
    (folder / "index.json").write_text(json.dumps(index))
    return write_layout(image(layer(hardlink("a", EVIL))), folder, "odd-link")


def on_a_terminal(*arguments: str | Path) -> bytes:
    """Return what the command writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*arguments), env=environment(), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 4096):
            written += piece
    except OSError:  # EIO: no process has the terminal open
        pass
    process.wait(60)
    os.close(ours)
    return written


@pytest.mark.parametrize("tag", ["absent", "odd-link"])
@pytest.mark.parametrize("verb", ["ingest", "ingest-image", "check", "plan", "inspect"])
def test_text_from_a_source_is_shown_without_control_characters(
    tmp_path: Path, layout: Path, verb: str, tag: str
) -> None:
    reference = f"oci:{layout}:{tag}"
    wishes = tmp_path / "wishes.yaml"
    wishes.write_text(f"version: 2\nimages: ['{reference}']\n")
    images = tmp_path / "images"
    (images / ".metadata").mkdir(parents=True)
    repository = () if verb in ("check", "inspect") else ("--repository", images)
    subject = wishes if verb in ("ingest", "check", "plan") else reference
    written = on_a_terminal(verb, subject, *repository)
    assert b"\x1b[2J" not in written
    if verb != "inspect":  # its error has lines of its own
        assert b"\nfailed: forged" not in written
    if tag == "absent":
        assert b"forged" in written


def test_names_of_dropped_and_refused_attributes_are_escaped(
    tmp_path: Path,
) -> None:
    attributes = {f"trusted.{EVIL}": b"", f"user.{EVIL}": bytes(70_000)}
    folder = write_layout(image(layer(file("f", xattrs=attributes))), tmp_path / "layout", "1")
    written = on_a_terminal("ingest-image", f"oci:{folder}:1", "--repository", tmp_path / "images")
    assert b"\x1b[2J" not in written
    assert b"\nfailed: forged" not in written
    assert b"dropped by policy: xattr:trusted.1\\x1b[2J" in written
    # The path of the repository determines where the line is wrapped.
    assert b"refused a xattr:user.1\\x1b[2J" in b" ".join(written.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("show", "local/layout:1"),
        ("ls", "local/layout:1"),
        ("find", "*motd"),
        ("log",),
        ("verify",),
        ("schedule",),
        ("prune", "WISHES", "--dry-run", "--yes-really"),
    ],
)
def test_what_images_and_records_contain_is_shown_without_control_characters(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    evil = "\x1b]0;title\x07\x1b[2J"
    built = image(layer(file(f"{evil}motd")), config={"Labels": {evil: evil}, "Cmd": [evil]})
    folder = write_layout(built, tmp_path / "layout", "1")
    wishes = tmp_path / "wishes.yaml"
    wishes.write_text(f"version: 2\nimages: [{{image: 'oci:{folder}:1', owner: astro}}]\n")
    succeed("ingest", wishes, "--repository", tmp_path / "images")
    record = tmp_path / "images/.metadata/local/layout:1/publication.json"
    value = json.loads(record.read_bytes())
    record.write_text(json.dumps(value | {"owner": evil, "note": evil}))
    wishes.write_text(wishes.read_text().replace("layout:1", "layout:other"))
    words = [str(wishes) if word == "WISHES" else word for word in arguments]
    written = on_a_terminal(*words, "--repository", tmp_path / "images")
    assert written
    assert b"\x1b" not in written and b"\x07" not in written
