"""The document `error/1`: the kind of an error and its data."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from datetime import date
from pathlib import Path

import pytest

import publisher as publisher_package
from publisher.error_values import error_kind, error_value
from publisher.errors import DigestMismatch, PublisherError
from publisher.ingest.space import NotEnoughSpace
from publisher.layers.errors import LimitExceeded
from publisher.repository import LayerChanged
from publisher.sources.image import PlatformNotFound
from publisher.tree.pins import ImagePinned
from publisher.wishlist.places import NameTaken
from tests.command import publisher
from tests.schemas import ROOT, output_schema


class _Private(DigestMismatch):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "data"),
    [
        (PublisherError("cannot x"), "publisher-error", {}),
        (
            ImagePinned("x", name="a/b:1", until=date(2026, 12, 1), reason="", why="", hint=""),
            "image-pinned",
            {"name": "a/b:1", "until": "2026-12-01", "reason": ""},
        ),
        (
            PlatformNotFound("x", wanted="linux/arm", available=["linux/\x1b"], why="", hint=""),
            "platform-not-found",
            {"wanted": "linux/arm", "available": ["linux/\\x1b"]},
        ),
        (
            LimitExceeded("x", limit="depth", allowed=7, why=""),
            "limit-exceeded",
            {"limit": "depth", "allowed": 7},
        ),
        (
            NotEnoughSpace("x", needed=2.6, free=1, why="", hint=""),
            "not-enough-space",
            {"needed": 3, "free": 1},
        ),
        (LayerChanged("sha256:0", why="it was collected"), "layer-changed", {"layer": "sha256:0"}),
        (NameTaken("x", name="a:1", why="", hint=""), "name-taken", {"name": "a:1"}),
        (
            _Private("x", expected="sha256:0", actual="sha256:1"),
            "digest-mismatch",
            {"expected": "sha256:0", "actual": "sha256:1"},
        ),
    ],
)
def test_the_document_has_the_kind_and_the_data_of_the_error(
    error: PublisherError, kind: str, data: dict[str, object]
) -> None:
    value = error_value(error)
    output_schema("error/1").validate({"schema": "publisher/error/1", "error": value})
    assert (value["kind"], value["data"]) == (kind, data)


def test_a_command_prints_the_kind_and_the_data(tmp_path: Path) -> None:
    (tmp_path / ".metadata").mkdir()
    result = publisher("show", "local/x:1", "--repository", tmp_path, "--output", "json")
    error = json.loads(result.out)["error"]
    assert (error["kind"], error["data"]) == ("not-published", {"name": "local/x:1"})


def test_an_unusable_wish_list_has_its_problems_with_their_places(tmp_path: Path) -> None:
    wish_list = tmp_path / "wishes.yaml"
    wish_list.write_text(
        "version: 2\nimages: [quay.io/a/b:1]\nimagse: []\ndefaults: {outputs: [flta]}\n"
    )
    result = publisher("ingest", wish_list, "--repository", tmp_path, "--output", "json")
    output_schema("error/1").validate(json.loads(result.out))
    error = json.loads(result.out)["error"]
    assert error["kind"] == "wish-list-error"
    problems = error["data"]["problems"]
    assert [(each["file"], each["line"], each["severity"]) for each in problems] == [
        (str(wish_list), 3, "error"),
        (str(wish_list), 4, "error"),
    ]
    assert "images" in problems[0]["suggestion"]


def test_every_documented_kind_is_the_kind_of_an_error() -> None:
    for module in pkgutil.walk_packages(publisher_package.__path__, "publisher."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    pending: list[type[PublisherError]] = [PublisherError]
    kinds = set()
    while pending:
        error_class = pending.pop()
        kinds.add(error_kind(error_class))
        pending += error_class.__subclasses__()
    guide = (ROOT / "docs" / "output.md").read_text()
    table = guide.partition("| kind | data |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if "`" in row]
    documented = {kind for cell in cells for kind in re.findall("`([a-z-]+)`", cell)}
    assert len(documented) > 10
    assert documented <= kinds
