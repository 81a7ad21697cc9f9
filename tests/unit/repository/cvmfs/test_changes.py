"""From a transaction's changes to the calls of the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.entry import Entry, EntryType, Fixup
from publisher.repository import PathTaken
from publisher.repository.cvmfs import pending
from publisher.repository.cvmfs.changes import (
    Changes,
    Edit,
    Ingest,
    NewLayer,
    NewTree,
    compile_calls,
)
from publisher.repository.cvmfs.pending import has_content

A, B = "sha256:" + "aa" * 32, "sha256:" + "bb" * 32
LAYER_A = ".layers/aa/" + "aa" * 32
TREE = NewTree(".flat/cc/cccc", Path("plan"))
FILES = {".metadata/remove-schedule.json": b"{}"}


def everything(path: str) -> EntryType | None:
    return EntryType.DIRECTORY if "." not in path.rpartition("/")[2][1:] else EntryType.FILE


def everything_above(path: str) -> EntryType | None:
    """The top directories and their shards."""
    return EntryType.DIRECTORY if path in (".layers", ".layers/aa", ".layers/bb") else None


def nothing(path: str) -> EntryType | None:
    return None


def test_an_image_is_one_call() -> None:
    changes = Changes((NewLayer(A, (), ()),), (TREE,), FILES, {"host/name:1": "../.flat/cc/cccc"})
    assert compile_calls(changes, nothing) == (Ingest(changes),)


def test_no_changes_and_removals_of_missing_paths_need_no_call() -> None:
    assert compile_calls(Changes(removals=("gone", "also:gone")), nothing) == ()


def test_plain_removals_and_additions_share_one_call() -> None:
    changes = Changes(files=FILES, removals=(LAYER_A, ".flat/cc"))
    [call] = compile_calls(changes, everything)
    assert isinstance(call, Ingest)
    assert set(call.deletions) == {LAYER_A, ".flat/cc"}
    assert call.additions.files == FILES


def test_names_with_a_colon_are_removed_before_the_content_they_refer_to() -> None:
    changes = Changes(files=FILES, removals=(LAYER_A, "host/name:1", ".metadata/host/name:1"))
    edit, ingest = compile_calls(changes, everything)
    assert edit == Edit((".metadata/host/name:1", "host/name:1"))
    assert isinstance(ingest, Ingest)
    assert ingest.deletions == (LAYER_A,) and ingest.additions.files == FILES


def test_names_without_content_are_removed_with_their_records_in_one_call() -> None:
    changes = Changes(files=FILES, removals=("host/name:1",))
    assert compile_calls(changes, everything) == (Edit(("host/name:1",), FILES),)


def test_new_content_is_sent_before_names_are_removed() -> None:
    changes = Changes(trees=(TREE,), files=FILES, removals=("host/name:1", LAYER_A))
    there = {"host/name:1": EntryType.SYMLINK, LAYER_A: EntryType.DIRECTORY}
    ingest, edit = compile_calls(changes, there.get)
    assert isinstance(ingest, Ingest) and ingest.deletions == (LAYER_A,)
    assert edit == Edit(("host/name:1",))


@pytest.mark.parametrize("odd", ["it's", "a b", 'a"b', "a$b", "a;b", "a\nb", "a\\b", "é", "a:b"])
def test_odd_characters_are_not_passed_on_the_servers_command_line(odd: str) -> None:
    calls = compile_calls(Changes(removals=(odd,)), everything)
    assert calls == (Edit((odd,)),)


def test_paths_below_a_removed_tree_are_not_removed_again() -> None:
    changes = Changes(removals=(".flat/a", ".flat/a/b", ".flat/a", ".flat/a-b", ".flat/ab"))
    [call] = compile_calls(changes, everything)
    assert call == Ingest(deletions=(".flat/a-b", ".flat/a", ".flat/ab"))


def test_a_large_file_is_content_and_its_link_follows_it() -> None:
    large = {".squashfs/cc/cccc": Path("file")}
    links = {"squashfs/host/name:1": "../../.squashfs/cc/cccc"}
    changes = Changes(files=FILES, links=links, large=large)
    [call] = calls = compile_calls(changes, nothing)
    assert call == Ingest(changes) and has_content(call)
    assert pending.plan(calls).present == (".squashfs/cc/cccc",)
    sent, edit = compile_calls(changes, everything_above, gateway=True)
    assert sent == Ingest(Changes(large=large))
    assert edit == Edit(files=FILES, links=links)
    with pytest.raises(PathTaken, match="did not create is at that path"):
        compile_calls(changes, lambda path: EntryType.DIRECTORY)
    with pytest.raises(PathTaken, match="removed in the same transaction"):
        above = {".squashfs": EntryType.DIRECTORY, ".squashfs/cc": EntryType.DIRECTORY}
        compile_calls(Changes(large=large, removals=(".squashfs",)), above.get)


def test_a_path_is_not_removed_and_added_in_one_transaction() -> None:
    with pytest.raises(PathTaken):
        compile_calls(
            Changes(files={"a/b": b""}, removals=("a",)),
            lambda p: {"a": EntryType.DIRECTORY}.get(p),
        )


def test_a_directory_at_a_path_or_a_file_above_it_is_refused() -> None:
    with pytest.raises(PathTaken, match="did not create is at that path"):
        compile_calls(Changes(files={"a/b": b""}), lambda p: EntryType.DIRECTORY)
    with pytest.raises(PathTaken, match="a is not a directory") as caught:
        compile_calls(Changes(links={"a/b/c": "x"}), {"a": EntryType.FILE}.get)
    assert caught.value.path == "a/b/c"


def test_replaced_trees_are_removed_in_an_earlier_call() -> None:
    changes = Changes((NewLayer(A, (), ()),), cleared=(LAYER_A,))
    first, second = compile_calls(changes, everything)
    assert first == Ingest(deletions=(LAYER_A,))
    assert isinstance(second, Ingest) and second.additions.layers


def test_many_removals_are_split_and_the_records_are_in_the_last_call() -> None:
    paths = tuple(f".flat/{n:02x}/{n:064x}" for n in range(3000))
    calls = compile_calls(Changes(files=FILES, removals=paths), everything)
    assert len(calls) > 2
    deleted: list[str] = []
    for call in calls:
        assert isinstance(call, Ingest)
        assert sum(len(path) + 3 for path in call.deletions) <= 64 * 1024
        deleted += call.deletions
        assert bool(call.additions.files) == (call is calls[-1])
    assert sorted(deleted) == sorted(paths)


def test_a_gateway_gets_layers_then_trees_then_records_each_under_its_lease() -> None:
    borrowed = Fixup(Entry("f", EntryType.FILE), 0, "f")
    changes = Changes(
        (NewLayer(A, (), ()), NewLayer(B, (borrowed,), (A,))),
        (TREE,),
        {f"{LAYER_A}/.metadata/origin.json": b"1", **FILES},
        {"host/name:1": "../.flat/cc/cccc"},
        removals=("host/name:2", ".flat/dd/dddd", ".flat/ee/eeee"),
    )
    there = {
        ".layers": EntryType.DIRECTORY,
        ".layers/aa": EntryType.DIRECTORY,
        ".layers/bb": EntryType.DIRECTORY,
        "host/name:2": EntryType.SYMLINK,
        ".flat/dd/dddd": EntryType.DIRECTORY,
        ".flat/ee/eeee": EntryType.DIRECTORY,
    }
    layer, content, records = compile_calls(changes, there.get, gateway=True)
    assert isinstance(layer, Ingest) and layer.base == ".layers/aa"
    assert layer.additions.layers == (changes.layers[0],)
    assert not layer.additions.files, "another publisher may be sending the same layer"
    assert isinstance(content, Ingest) and content.base == ""
    assert content.additions.layers == (changes.layers[1],)
    assert content.additions.trees == (TREE,) and not content.additions.files
    gone = ("host/name:2", ".flat/dd/dddd", ".flat/ee/eeee")
    assert records == Edit(gone, changes.files, changes.links), (
        "no publisher can change them in between"
    )
    assert not layer.deletions and not content.deletions


def test_several_layers_are_sent_through_a_gateway_under_one_lease() -> None:
    layers = (NewLayer(A, (), ()), NewLayer(B, (), ()))
    changes = Changes(layers, (TREE,), FILES, {"host/name:1": "../.flat/cc/cccc"})
    sent, trees, records = compile_calls(changes, everything_above, gateway=True)
    assert isinstance(sent, Ingest) and sent.base == ".layers" and sent.additions.layers == layers
    assert isinstance(trees, Ingest) and trees.base == "" and not trees.additions.layers
    assert isinstance(records, Edit) and records.files and records.links


def test_layers_of_a_new_repository_are_sent_with_the_flat_image_through_a_gateway() -> None:
    changes = Changes((NewLayer(A, (), ()),), (TREE,))
    [call] = compile_calls(changes, nothing, gateway=True)
    assert isinstance(call, Ingest) and call.base == "" and call.additions.layers


def test_replaced_trees_are_removed_in_one_call_through_a_gateway() -> None:
    changes = Changes((NewLayer(A, (), ()),), (TREE,), cleared=(LAYER_A, TREE.path))
    removal, *_ = compile_calls(changes, everything, gateway=True)
    assert removal == Edit((LAYER_A, TREE.path))
    single, *_ = compile_calls(Changes((), (TREE,), cleared=(TREE.path,)), everything, gateway=True)
    assert single == Ingest(deletions=(TREE.path,))
