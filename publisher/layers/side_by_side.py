"""Read the indexes of an image's layers together, path by path.

At most FAN_IN indexes are open at once. If there are more, groups of them are first merged into
sorted runs in one temporary file, as in external sorting. Each entry is then copied once for each
factor of FAN_IN, and neither memory nor open descriptors grow with the number of layers.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import field
from typing import BinaryIO, cast

import zstandard

from publisher.entry import Entry, EntryType, sort_key
from publisher.layers.errors import NoTemporarySpace
from publisher.layers.index import LayerIndex
from publisher.layers.index_lines import decode_entry, encode_entry, path_key
from publisher.lazy import dataclass

FAN_IN = 16
_WRITE_BYTES = 256 * 1024
_READ_BYTES = 32 * 1024
# A small window: a decompressor for each run is open at the same time.
_RUN_PARAMETERS = zstandard.ZstdCompressionParameters.from_level(1, window_log=17)

Item = tuple[bytes, int, str | Entry]
"""The key of a path, the number of a layer, and its entry there. Entries from indexes stay encoded
until all merges are done.
"""
Group = list[tuple[int, Entry]]
"""The entries of one path, with the numbers of their layers, from bottom to top."""


def by_path(
    indexes: Sequence[Iterable[Entry]],
    last: bytes | None = None,
    decode: Callable[[str], Entry] = decode_entry,
) -> Iterator[tuple[bytes, Group]]:
    """Yield the sort key of each path in any of the indexes, with the entries at that path.

    If `last` is given, stop after that key and read little more. `decode` decodes a line.
    """
    group: Group = []
    current: bytes | None = None
    with closing(_Runs()) as runs:
        for key, number, encoded in _sorted(indexes, last, runs):
            if key != current:
                if group:
                    assert current is not None
                    yield current, group
                if last is not None and key > last:
                    return
                current, group = key, []
            entry = decode(encoded) if isinstance(encoded, str) else encoded
            group.append((number, entry))
        if group:
            assert current is not None
            yield current, group


@dataclass(slots=True)
class Level:
    """One directory above a path, and the layers that cut through it.

    A layer cuts through a directory if it hides the entries of lower layers in it: its own
    directory is opaque, or it has another kind of entry at the path. `cuts` are these layers and
    those that cut through a directory above, sorted.
    """

    prefix: bytes
    cuts: Sequence[int] = ()

    def next_cut(self, number: int) -> int | None:
        """Return the lowest layer above `number` that cuts, or None."""
        at = bisect_right(self.cuts, number)
        return self.cuts[at] if at < len(self.cuts) else None

    def visible_below(self, group: Group, number: int) -> tuple[int, Entry] | None:
        """Return the visible entry of the layers below `number` at the path of `group`."""
        at = bisect_left(group, number, key=lambda pair: pair[0]) - 1
        if at < 0:
            return None
        cut = self.next_cut(group[at][0])
        return group[at] if cut is None or cut >= number else None

    def below(self, key: bytes, group: Group) -> Level:
        """Return the level of the directory at `key`, given all entries of that path."""
        own = [n for n, e in group if e.opaque or e.type is not EntryType.DIRECTORY]
        cuts = sorted({*self.cuts, *own}) if own else self.cuts
        return Level(key + b"\0" if key else b"", cuts)


@dataclass(slots=True)
class Descent:
    """The levels above the current path, from the root down. Paths must be sorted."""

    levels: list[Level] = field(default_factory=lambda: [Level(b"")])

    def to(self, key: bytes) -> Level:
        """Return the level of the directory that contains the path with this sort key."""
        while not key.startswith(self.levels[-1].prefix):
            self.levels.pop()
        return self.levels[-1]

    def enter(self, key: bytes, group: Group) -> None:
        """Add a level for the path if any layer has a directory there."""
        if has_directory(group):
            self.levels.append(self.levels[-1].below(key, group))


def has_directory(group: Group) -> bool:
    """Return whether any layer has a directory there."""
    return any(entry.type is EntryType.DIRECTORY for _, entry in group)


class _Runs:
    """Sorted runs of items in one temporary file, which is created with the first run."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None

    def write(self, items: Iterable[Item]) -> Callable[[], Iterator[Item]]:
        """Append a run; return a function that reads it.

        Raises:
            NoTemporarySpace: The temporary file cannot be made or written.
        """
        file = self._file = self._file or _new_file()
        start = file.seek(0, 2)
        compressor = zstandard.ZstdCompressor(compression_params=_RUN_PARAMETERS).compressobj()
        held: list[str] = []
        size = 0
        for _, number, entry in items:
            line = entry if isinstance(entry, str) else encode_entry(entry)
            held.append(f"{number} {line}\n")
            size += len(line)
            if size >= _WRITE_BYTES:
                _append(file, compressor.compress("".join(held).encode("utf-8")))
                held.clear()
                size = 0
        _append(file, compressor.compress("".join(held).encode("utf-8")) + compressor.flush())
        return lambda: _read_run(file, start)

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # of what could not be written, which is not needed any more
                self._file.close()


def _new_file() -> BinaryIO:
    import tempfile  # long to load; few images have so many layers

    try:
        return cast(BinaryIO, tempfile.TemporaryFile())
    except OSError as error:
        raise _no_space(error) from error


def _append(file: BinaryIO, data: bytes) -> None:
    try:
        file.seek(0, 2)  # reading items from other runs of the file moves its position
        file.write(data)
        file.flush()
    except OSError as error:
        raise _no_space(error) from error


def _no_space(error: OSError) -> NoTemporarySpace:
    return NoTemporarySpace(
        "cannot read the layers of an image together",
        why=f"a temporary file cannot be written: {error.strerror or error}",
        hint="free space for temporary files, or set TMPDIR to a directory with more",
    )


def _read_run(file: BinaryIO, at: int) -> Iterator[Item]:
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    rest = b""
    while not decompressor.eof:
        file.seek(at)  # other runs of the same file are read at the same time
        data = file.read(_READ_BYTES)
        at += len(data)
        *lines, rest = (rest + decompressor.decompress(data)).split(b"\n")
        for text in lines:
            number, _, line = text.decode("utf-8").partition(" ")
            yield path_key(line), int(number), line


def _sorted(indexes: Sequence[Iterable[Entry]], last: bytes | None, runs: _Runs) -> Iterator[Item]:
    """Yield the items of all `indexes`, sorted by key and layer."""
    streams: list[Callable[[], Iterator[Item]]] = [
        lambda number=number, index=index: _items(index, number, last)  # type: ignore[misc]
        for number, index in enumerate(indexes)
    ]
    while len(streams) > FAN_IN:
        groups = [streams[at : at + FAN_IN] for at in range(0, len(streams), FAN_IN)]
        streams = [runs.write(_merged(group)) for group in groups]
    return _merged(streams)


def _merged(streams: Sequence[Callable[[], Iterator[Item]]]) -> Iterator[Item]:
    opened = [stream() for stream in streams]
    # No two items have the same key and number, so that entries are never compared.
    return opened[0] if len(opened) == 1 else heapq.merge(*opened)


def _items(index: Iterable[Entry], number: int, last: bytes | None) -> Iterator[Item]:
    if isinstance(index, LayerIndex):
        for line in index.lines():
            key = path_key(line)
            yield key, number, line
            if last is not None and key > last:
                return
        return
    for entry in index:
        key = sort_key(entry.path)
        yield key, number, entry
        if last is not None and key > last:
            return
