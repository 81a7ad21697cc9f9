"""The stream for the server, unpacked by GNU tar, equals the tree of the directory backend."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from publisher.ingest.report import Status
from publisher.ingest.run import ingest
from publisher.repository import Repository
from publisher.repository.directory.repository import DirectoryRepository
from publisher.sources.open import Sources
from publisher.tree.layout import RepositoryURL
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.components import require_root
from tests.cvmfs import Machine
from tests.layer_builder import (
    Image,
    Layer,
    directory,
    file,
    hardlink,
    image,
    layer,
    opaque,
    symlink,
    whiteout,
    write_layout,
)
from tests.stacks import Draft, stacks
from tests.trees import Node, assert_same_tree, describe_tree

NAME = "images.test.org"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


class WithoutXattrs(DirectoryRepository):
    """A directory whose layer trees express opaque directories as CVMFS does: by whiteouts."""

    keeps_xattrs = False


def publish(repository: Repository, layout: Path, *tags: str) -> list[Status]:
    requests = [Request(wish_for(f"oci:{layout}:{tag}", name="tool")) for tag in tags]
    with Sources() as sources:
        report = ingest(requests, repository, sources, jobs=1, now=lambda: NOW)
    assert not report.failed, [outcome.error for outcome in report.outcomes]
    return [outcome.status for outcome in report.outcomes]


def comparable(root: Path) -> dict[str, Node]:
    """What both backends must agree on: the server keeps seconds, no attributes, no link counts."""
    own = (".metadata/.publisher", "new_repository")
    return {
        path: replace(node, mtime_ns=node.mtime_ns // 10**9 * 10**9, xattrs=(), links=())
        for path, node in describe_tree(root).items()
        if not path.startswith(own) and not path.endswith(".cvmfscatalog") and path
    }


def assert_same(actual: Path, expected: Path, devices: Collection[str] = ()) -> None:
    """`devices` are device nodes of the archives, which policy drops.

    One that replaces something in its own archive leaves a whiteout in a directory, for want of a
    better way to take it back; nothing was sent that had to be taken back.
    """
    left, right = comparable(actual), comparable(expected)
    for path in right.keys() - left.keys():
        if right[path].type == "c" and path.partition("/layerfs/")[2] in devices:
            del right[path]
    # The publisher's own records and directories: their times are not part of what is published.
    own = [p for p in right if p.startswith((".metadata", "local")) or "/.metadata" in p]
    own += [".flat", ".layers", *(p for p in right if p.count("/") < 3)]
    for path in own:
        for tree in (left, right):
            if path in tree:
                tree[path] = replace(tree[path], mtime_ns=0)
    # Directories' times within trees are compared as well.
    assert_same_tree(left, right, directory_times=True)


@contextmanager
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        monkeypatch.setenv("CVMFS_STANDIN_RECORD", folder)
        yield Path(folder)
        monkeypatch.delenv("CVMFS_STANDIN_RECORD")


def untar(streams: Path, into: Path) -> None:
    into.mkdir()
    for stream in sorted(streams.iterdir()):
        # All directories of a layer come before what is in them: their times have to wait.
        options = ["--same-owner", "--numeric-owner", "--delay-directory-restore"]
        subprocess.run(["tar", "-xpf", stream, "-C", into, *options], check=True)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(stack=stacks())
def test_any_stack_of_layers_unpacks_to_the_directory_backends_tree(
    stack: list[Draft], machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_root()
    built = image(*(draft.build() for draft in stack))
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        place = Path(folder)
        layout = write_layout(built, place / "layout", "1")
        expected = WithoutXattrs(
            RepositoryURL("dir", str(place / "expected")), writable=True, may_be_new=True
        )
        requests = [Request(wish_for(f"oci:{layout}:1", name="tool"))]
        with Sources() as sources:
            report = ingest(requests, expected, sources, now=lambda: NOW)
        expected.close()
        name = machine.make(f"r{time_name(place)}.test.org")
        repository = machine.open(name)
        try:
            with recording(place, monkeypatch) as streams, Sources() as sources:
                again = ingest(requests, repository, sources, now=lambda: NOW)
                assert [o.status for o in again.outcomes] == [o.status for o in report.outcomes]
                if report.failed:
                    assert again.outcomes[0].error == report.outcomes[0].error
                    assert machine.revision(name) == 1
                    return
                assert machine.revision(name) == 2
                untar(streams, place / "untarred")
        finally:
            repository.close()
        members = [member for draft in stack for member in draft.members]
        devices = {str(m.name).removeprefix("./").strip("/") for m in members if m.typeflag == b"3"}
        assert_same(place / "untarred", place / "expected", devices)
        assert_same(machine.published(name), place / "expected", devices)


def time_name(place: Path) -> str:
    return place.name.replace("_", "-").lower()


LATE = [
    file("d/f", b"early", mtime_ns=10**18),
    directory("d", mode=0o710, mtime_ns=2 * 10**18),
    file("twice", b"first, and longer"),
    file("twice", b"second"),
    file("a/b", b"lost"),
    file("a", b"now a file"),
    symlink("s", "twice"),
    file("s", b"was a link"),
    hardlink("z", "d/f"),
    hardlink("0", "d/f"),
    file("d/f", b"replaced, but z and 0 keep the early one"),
    file("x" * 120 + "/" + "y" * 200, b"long"),
    symlink("long", "t" * 300),
    file("g\xe9\n", b"odd"),
]
"""What a single pass over the archive would get wrong."""


def awkward() -> Image:
    base = layer(directory("o"), file("o/1", b"1"), file("o/2", b"2"), file("w", b"w"))
    upper: Layer = layer(
        *LATE, whiteout("w"), opaque("o"), file("o/2", b"new"), hardlink("from-below", "w2")
    )
    middle = layer(file("w2", b"below", uid=3, gid=4, mtime_ns=10**18))
    return image(base, middle, upper)


def test_an_archive_in_an_unsuitable_order_is_sent_in_a_suitable_one(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_root()
    layout = write_layout(awkward(), tmp_path / "layout", "1")
    expected = WithoutXattrs(
        RepositoryURL("dir", str(tmp_path / "expected")), writable=True, may_be_new=True
    )
    publish(expected, layout, "1")
    expected.close()
    repository = machine.open(machine.make(NAME))
    with recording(tmp_path, monkeypatch) as streams:
        publish(repository, layout, "1")
        untar(streams, tmp_path / "untarred")
    repository.close()
    assert_same(tmp_path / "untarred", tmp_path / "expected")
    assert_same(machine.published(NAME), tmp_path / "expected")


def test_two_runs_send_the_same_bytes(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = write_layout(awkward(), tmp_path / "layout", "1")
    sent = []
    for name in ("one.test.org", "two.test.org"):
        repository = machine.open(machine.make(name))
        with recording(tmp_path, monkeypatch) as streams:
            publish(repository, layout, "1")
            [stream] = streams.iterdir()
            sent.append(stream.read_bytes())
        repository.close()
    assert sent[0] == sent[1]
