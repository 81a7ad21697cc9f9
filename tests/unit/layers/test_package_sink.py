"""The package databases that are read while a layer is unpacked, when entries replace others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from publisher.entry import Content, Entry, EntryType
from publisher.layers import package_sink
from publisher.layers.package_sink import PackageSink
from publisher.packages.model import Database


class Reader:
    """A TreeSink that reads all contents."""

    def add(self, entry: Entry, content: Content = ()) -> None:
        for _ in content:
            pass

    def finish(self) -> None:
        """Do nothing."""


class NotSearched(dict[str, Database | None]):
    """The databases found so far: a search through all of them for each entry takes too long."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("all databases are searched")


def add(sink: PackageSink, path: str, kind: EntryType = EntryType.FILE, data: bytes = b"") -> None:
    sink.add(Entry(path, kind, size=len(data)), iter([data]) if data else ())


def test_an_entry_that_replaces_a_directory_removes_the_databases_below_it_alone() -> None:
    sink = PackageSink(Reader())
    sink._found = NotSearched()
    metadata = b"Name: a\nVersion: 1\n"
    paths = [
        f"{top}/{middle}site-packages/{name}.dist-info/METADATA"
        for top in "ab"
        for middle in ("", "c/")
        for name in "xy"
    ]
    for path in paths:
        add(sink, path, data=metadata)
    add(sink, "a", EntryType.DIRECTORY)
    assert list(sink._found.keys()) == paths
    for _ in range(2):
        add(sink, "a/c")
        add(sink, "b/site-packages/x.dist-info")
        left = [paths[0], paths[1], *paths[5:]]
        assert set(sink._found.keys()) == set(left)
        add(sink, paths[2], data=metadata)
        assert set(sink._found.keys()) == {paths[2], *left}
    add(sink, "a", EntryType.WHITEOUT)
    add(sink, "b")
    assert not sink._found.keys()


def test_databases_beyond_the_limits_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_sink, "MOST_CHARACTERS", 5)
    sink = PackageSink(Reader())
    for name in "abc":
        add(sink, f"{name}/site-packages/a.egg-info", data=b"Name: a\nVersion: 1\n")
    assert not sink._complete
    assert not sink._found
