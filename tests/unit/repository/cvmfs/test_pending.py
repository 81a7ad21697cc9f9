"""The file that describes a transaction during its server calls, and what is done with it."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from publisher.cli.main import main
from publisher.entry import EntryType
from publisher.repository import RepositoryError
from publisher.repository.cvmfs import pending
from publisher.repository.cvmfs.changes import Changes, Edit, NewLayer, NewTree, compile_calls
from publisher.tree import layout
from publisher.tree.history import Change, Record
from publisher.verify.run import verify
from tests.command import succeed
from tests.cvmfs import Machine, die_around_calls
from tests.layer_builder import directory, file, image, layer, write_layout

DIGEST = "sha256:" + "aa" * 32
LAYER = ".layers/aa/" + "aa" * 32
TREE = NewTree(".flat/cc/cccc", Path("plan"))
RECORDS = {".metadata/remove-schedule.json": b"{}"}
NAME = "images.test.org"


@dataclass
class Published:
    """What a repository holds: directories (None), files and links (text)."""

    there: dict[str, bytes | str | None] = field(default_factory=dict)

    def kind(self, path: str) -> EntryType | None:
        if path not in self.there:
            return None
        found = self.there[path]
        if isinstance(found, bytes):
            return EntryType.FILE
        return EntryType.DIRECTORY if found is None else EntryType.SYMLINK

    def read(self, path: str) -> bytes | None:
        found = self.there.get(path)
        return found if isinstance(found, bytes) else None

    def link_text(self, path: str) -> str | None:
        found = self.there.get(path)
        return found if isinstance(found, str) else None


RECORD = Record("1f", "2026-01-01T00:00:00Z", "me", "here", 1, "test", (Change("a", "b"),), {})


def planned(changes: Changes, before: Published, gateway: bool = False) -> pending.Pending:
    calls = compile_calls(changes, before.kind, gateway)
    if gateway:
        return pending.marked(calls, Path("/state"), RECORD)[1]
    return pending.plan(calls, 7, RECORD)


@pytest.mark.parametrize(
    "changes",
    [
        Changes((NewLayer(DIGEST, (), ()),), files=RECORDS, removals=("host/name:1",)),
        Changes(trees=(TREE,), files=RECORDS, removals=("host/name:1",)),
        Changes(links={"host/name:2": "../.flat/cc/cccc"}, removals=("host/name:1",)),
        Changes(files=RECORDS, removals=("host/name:1", LAYER)),
        Changes(files=RECORDS, removals=(".flat/dd",)),
    ],
    ids=["a layer", "a tree", "a link", "names and content", "content"],
)
@pytest.mark.parametrize("gateway", [False, True])
def test_a_transaction_is_not_decided_before_its_first_call(
    changes: Changes, gateway: bool
) -> None:
    before = Published({"host/name:1": "../x", LAYER: None, ".flat/dd": None})
    if changes.layers:
        del before.there[LAYER]
    assert not planned(changes, before, gateway).is_decided(before, 7)


def test_new_content_decides_and_removed_names_are_the_rest() -> None:
    changes = Changes((NewLayer(DIGEST, (), ()),), files=RECORDS, removals=("host/name:1",))
    left = planned(changes, Published({"host/name:1": "../x"}))
    index = layout.layer_index(DIGEST)
    half = Published({"host/name:1": "../x", index: b"index"})
    assert not left.is_decided(half, 8), "its records are not there"
    done = Published({**half.there, **RECORDS})
    assert not left.is_decided(done, 7), "its server published no revision"
    assert left.is_decided(done, 8) and len(left.rest) == 1 and left.layers == (DIGEST,)
    other = Published({**half.there, next(iter(RECORDS)): b"{ }"})
    assert not left.is_decided(other, 8), "these are other records"


def test_a_transaction_through_a_gateway_has_no_rest() -> None:
    """Other publishers may have changed the records before a rest would be executed."""
    changes = Changes((NewLayer(DIGEST, (), ()),), (TREE,), RECORDS, removals=(LAYER + "b",))
    left = planned(changes, Published({LAYER + "b": None, ".layers/aa": None}), gateway=True)
    [(path, _)] = left.files.items()
    assert not left.rest and path.startswith(f"{layout.PUBLISHERS}/")
    assert left.is_decided(Published({path: b"1f\n"}), 0), "whatever the records are now"
    assert not left.is_decided(Published({path: b"2f\n", **RECORDS}), 0), "of another transaction"


def test_a_transaction_of_content_alone_is_marked_by_one_more_call_of_a_gateway() -> None:
    content = compile_calls(Changes(trees=(TREE,)), Published().kind, gateway=True)
    calls, left = pending.marked(content, Path("/state"), RECORD)
    assert calls == (*content, Edit(files=dict.fromkeys(left.files, b"1f\n")))


def test_a_pending_file_is_read_back_and_a_malformed_one_is_explained(tmp_path: Path) -> None:
    changes = Changes(files=RECORDS, removals=("host/näme:1", LAYER))
    left = planned(changes, Published({"host/näme:1": "../x", LAYER: None}))
    assert left.rest
    pending.write(tmp_path / "pending.json", left)
    assert pending.read(tmp_path / "pending.json") == left
    assert pending.read(tmp_path / "none.json") is None
    earlier = json.loads((tmp_path / "pending.json").read_bytes())
    del earlier["revision"], earlier["record"]
    (tmp_path / "pending.json").write_text(json.dumps(earlier))
    assert pending.read(tmp_path / "pending.json") == replace(left, revision=0, record=None)
    for text in ("", "{", "[]", '{"version": 99}', '{"version": 2}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(RepositoryError, match="cannot finish"):
            pending.read(tmp_path / "bad.json")


BASE = layer(directory("etc"), file("etc/os", b"base"))
SECOND = image(BASE, layer(file("new", b"new")))


@pytest.mark.parametrize("calls", [0, 1, 2, 3])
def test_an_update_that_adds_layers_and_removes_a_link_is_valid_wherever_its_publisher_dies(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Its wish list no longer requests the flat image, and its tag has moved: two calls."""
    machine.make(NAME)
    url = ("--repository", f"cvmfs:{NAME}")
    wishes = tmp_path / "wishes.yaml"
    text = "version: 2\nimages: [{{image: 'oci:{}/layout:1', name: tool, outputs: {}}}]\n"

    def wish(outputs: str) -> None:
        wishes.write_text(text.format(tmp_path, outputs))

    write_layout(image(BASE), tmp_path / "layout", "1")
    wish("[flat, layers]")
    succeed("ingest", wishes, *url, env=machine.environment)
    write_layout(SECOND, tmp_path / "layout", "1")
    wish("[layers]")

    monkeypatch.setattr("sys.argv", ["publisher", "ingest", str(wishes), *url])
    pid = os.fork()
    if pid == 0:
        try:
            die_around_calls(calls)
            main()
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == -signal.SIGKILL

    mount = machine.published(NAME)
    link = mount / "local/tool:1"
    assert (link / "etc/os").exists() == (calls < 3), "it leads to content as long as it exists"
    machine.open(NAME).close()
    assert os.path.lexists(link) == (calls < 1), "the rest is executed once it was decided"
    succeed("ingest", wishes, *url, env=machine.environment)
    assert not os.path.lexists(link)
    assert not verify(machine.open(NAME, writable=False), deep=True).findings
