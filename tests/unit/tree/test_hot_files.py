"""The list of hot files, and its bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from publisher.tree import layout
from publisher.tree.hot_files import HotFile, HotFiles
from publisher.tree.record import InvalidRecord

IMAGE_ID = f"sha256:{'ab' * 32}"
RECORD = HotFiles(
    IMAGE_ID,
    ("tool", "--version"),
    datetime(2026, 1, 1, tzinfo=UTC),
    (HotFile("bin/tool", 10), HotFile("lib/ä.so", 5), HotFile("lib/\udcff.so", 1)),
    trigger="bin/tool",
)


def test_a_list_is_read_as_it_was_written() -> None:
    plain = replace(RECORD, trigger="")
    for record in (RECORD, plain):
        assert HotFiles.parse(record.to_bytes(), "x") == record
    assert "trigger" not in json.loads(plain.to_bytes())
    assert (RECORD.size, plain.bundle_path) == (16, "")


def test_a_bundle_has_the_paths_that_clients_can_read() -> None:
    flat = layout.flat_image(IMAGE_ID)
    assert RECORD.bundle_path == f"{flat}/bin/.cvmfsbundle-tool"
    assert layout.bundle_file(IMAGE_ID, "tool") == f"{flat}/.cvmfsbundle-tool"
    assert layout.is_bundle(RECORD.bundle_path) and not layout.is_bundle(f"{flat}/bin/tool")
    assert json.loads(RECORD.bundle().decode())["dependencies"] == [f"/{flat}/lib/ä.so"]
    long = replace(RECORD, files=(HotFile("/".join(["x" * 255] * 15), 1),))
    assert len(json.loads(long.bundle())["dependencies"]) == 1
    long = replace(RECORD, files=(HotFile("/".join(["x" * 255] * 16), 1),))
    assert json.loads(long.bundle())["dependencies"] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("trigger", "../x"), ("trigger", "/x"), ("trigger", "a//b"), ("trigger", "a/./b"),
     ("trigger", 3), ("imageId", "x"), ("version", 2), ("files", [{"path": "", "size": 1}]),
     ("files", [{"path": "a/..", "size": 1}]), ("files", [{"path": "a\0", "size": 1}]),
     ("command", "x")],
)  # fmt: skip
def test_paths_that_lead_out_of_the_image_are_refused(key: str, value: object) -> None:
    document = json.loads(RECORD.to_bytes()) | {key: value}
    with pytest.raises(InvalidRecord):
        HotFiles.parse(json.dumps(document).encode(), "x")
