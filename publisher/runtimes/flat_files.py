"""The files that are added to each flat image, for runtimes that start a directory. Pure.

Runtimes mount things there, or read them, and cannot create them in a read-only tree. A path that
the image has itself stays unchanged.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import replace

from publisher.entry import Entry, EntryType, Generated, Merged, sort_key
from publisher.layers.errors import LayerError
from publisher.layers.names import reserved, safe_path
from publisher.layers.policy import Limits
from publisher.oci.config import ContainerConfig
from publisher.runtimes.apptainer import DIRECTORY as APPTAINER
from publisher.runtimes.apptainer import apptainer_files, empty_file

VERSION = 2
"""The version of the added files, which is recorded of each flat image.

It has to be increased when anything about the files changes: `publisher verify --repair` then
brings the existing flat images up to date. Images without a record have version 1.
"""

_DIRECTORIES = {
    "": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "var": 0o755,
    "var/tmp": 0o1777,
}
_EMPTY_FILES = ("etc/hostname", "etc/hosts", "etc/resolv.conf", "run/.containerenv")
_LINKS = {"etc/mtab": "/proc/mounts"}


def runtime_files(config: ContainerConfig) -> list[Generated]:
    """Return the files, links and mount points for an image, sorted by path.

    Owner and times are fixed (0:0, 1970), so that equal configs give equal files.
    """
    found = [
        *(Generated(Entry(p, EntryType.DIRECTORY, mode)) for p, mode in _DIRECTORIES.items()),
        *(Generated(Entry(p, EntryType.SYMLINK, 0o777, target=t)) for p, t in _LINKS.items()),
        *map(empty_file, _EMPTY_FILES),
        *apptainer_files(config),
    ]
    return sorted(found, key=lambda generated: sort_key(generated.entry.path))


def insert(plan: Iterable[Merged], generated: Iterable[Generated]) -> Iterator[Merged | Generated]:
    """Yield a flat image's plan together with those of `generated` that the image does not have.

    An entry of the image is never replaced, and nothing is added below an entry that is not a
    directory. Where the image has a symlink in the place of a mount point or above it, the mount
    point is added where the link leads to, if that path is later in the order. Both inputs and the
    result are sorted by path.
    """
    waiting = _Waiting(generated)
    for merged in plan:
        key = sort_key(merged.entry.path)
        if waiting.is_after(key):  # as it is for most entries
            yield merged
            continue
        yield from waiting.take_before(key)
        here = waiting.take_at(key)
        if merged.entry.type is not EntryType.DIRECTORY:
            hidden = [*here, *waiting.take_below(key)]
            if merged.entry.type is EntryType.SYMLINK:
                waiting.add(_behind(merged.entry, hidden))
        yield merged
    yield from waiting.take_before(None)


class _Waiting:
    """Generated entries by path, of which the first ones are taken."""

    def __init__(self, generated: Iterable[Generated]) -> None:
        self._entries: dict[bytes, Generated] = {}
        self._keys: list[bytes] = []
        self.add(generated)

    def add(self, generated: Iterable[Generated]) -> None:
        """Add entries; those of a path that has one already are ignored."""
        for each in generated:
            key = sort_key(each.entry.path)
            if key not in self._entries:
                self._entries[key] = each
                heapq.heappush(self._keys, key)

    def is_after(self, key: bytes) -> bool:
        """Return whether all entries sort after the path with this key, and none is below it."""
        if not self._keys:
            return True
        first = self._keys[0]
        return first > key and not first.startswith(key + b"\0")

    def take_before(self, key: bytes | None) -> Iterator[Generated]:
        """Take the entries that sort before `key`; all of them for None."""
        while self._keys and (key is None or self._keys[0] < key):
            first = self._keys[0]
            generated = self._take()
            if generated.entry.type is not EntryType.DIRECTORY:
                self.take_below(first)
            yield generated

    def take_at(self, key: bytes) -> list[Generated]:
        """Take the entry with this key, if it is the first one."""
        return [self._take()] if self._keys and self._keys[0] == key else []

    def take_below(self, key: bytes) -> list[Generated]:
        """Take the entries below the path with this key, which are the first ones."""
        found = []
        while self._keys and self._keys[0].startswith(key + b"\0"):
            found.append(self._take())
        return found

    def _take(self) -> Generated:
        return self._entries.pop(heapq.heappop(self._keys))


def _behind(link: Entry, hidden: Iterable[Generated]) -> Iterator[Generated]:
    """Yield the mount points among `hidden`, at or below a link, with paths below its target.

    The target is determined by the link's text alone. The directories above it are yielded as well.
    Targets that sort before the link are omitted: that part of the plan is complete.
    """
    key = sort_key(link.path)
    above, _, _ = link.path.rpartition("/")
    text = link.target if link.target.startswith("/") else f"{above}/{link.target}"
    for each in hidden:
        is_link = each.entry.type is EntryType.SYMLINK and each.entry.path == link.path
        if is_link or each.entry.path.startswith(APPTAINER):
            continue
        path = _inside(text + each.entry.path.removeprefix(link.path))
        if sort_key(path) < key or f"{path}/".startswith(f"{link.path}/"):
            continue
        yield replace(each, entry=replace(each.entry, path=path))
        for parent in _parents(path):
            if sort_key(parent) > key:
                yield Generated(Entry(parent, EntryType.DIRECTORY, 0o755))


def _inside(text: str) -> str:
    """Return the path in the image that a process there opens by `text`; "" if it is unsuitable."""
    limits = Limits()
    try:
        raw = text.encode("utf-8", "surrogateescape")
        path = safe_path(raw, text, limits.path_bytes, limits.depth, stop_at_root=True)
        return "" if reserved(path, text) else path
    except LayerError:
        return ""


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
