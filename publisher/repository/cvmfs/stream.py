"""Convert entries to the tar stream for `cvmfs_server ingest`, and check them.

The server does not validate a stream. Entries that abort it, or that it would publish incorrectly,
are refused before they are written: a repeated path, a file at the path of a directory, names with
`..`, markers that other programs interpret, hard links to missing files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from publisher.closing import Closing
from publisher.entry import Content, Entry, EntryType
from publisher.errors import PublisherError
from publisher.layers.content import filled
from publisher.layers.temporary import temporary_database
from publisher.repository.cvmfs.configuration import Owner
from publisher.repository.cvmfs.sparse import SMALLEST_SPARSE, find_regions
from publisher.repository.cvmfs.tar_header import BLOCK, END, encode, encode_sparse, padding
from publisher.tree import layout

CATALOG_MARKER = ".cvmfscatalog"
"""The file that makes its directory the root of a nested catalog."""

_TOPS = (layout.LAYERS, layout.FLAT)
_IN_MEMORY = 50_000
_BYTES_IN_MEMORY = 8 * 2**20
"""How many sent paths are kept in memory, and their bytes: about 16 MB in all."""

_CHARACTER_BYTES = 4
"""The most bytes of a character in memory, in a path that is not ASCII."""

_SCHEMA = "CREATE TABLE sent (path BLOB PRIMARY KEY, state INTEGER) WITHOUT ROWID;"
_NO_DIRECTORY, _DIRECTORY, _NEW_DIRECTORY = range(3)
_PIECE = 256 * 1024

Write = Callable[[bytes], None]
Kind = Callable[[str], EntryType | None]


class UnfitForStream(PublisherError):
    """An entry cannot be sent: the server would abort, or publish an incorrect tree."""


def starts_catalog(path: str) -> bool:
    """Return whether the directory `path` of a repository is the root of a nested catalog.

    These are the top directories, the 256 shards of layers and flat images, each layer (above its
    tree, so that containers do not see the marker) and each flat image. `layout/README.md` gives
    the reasons.
    """
    top, *below = path.split("/")
    is_alone = path in (layout.METADATA, layout.SQUASHFS)
    return is_alone or (top in _TOPS and len(below) <= 2)


class TarStream(Closing):
    """Writes entries, whose paths are relative to the repository's root, as one tar archive.

    Missing directories above an entry are sent before it, and so are the markers of nested catalogs
    that `starts_catalog` requires. Memory does not grow with the stream. Use it as a context
    manager, or call `close`; only `end` completes the archive.

    Args:
        write: Called with the archive's bytes.
        kind: Returns the type of the published entry at a path.
        owner: The owner of the directories and markers that are added.
        base: The directory in which the server unpacks; all entries must be below it.
    """

    def __init__(self, write: Write, kind: Kind, owner: Owner, base: str = "") -> None:
        self._out = _UnalignedWriter(write)
        self._kind = kind
        self._owner = owner
        self._base = f"{base}/" if base else ""
        self._parent = ""
        self._parent_is_new = False
        # The state of each path that was sent. The latest ones are in memory, the others in a
        # database, which takes several times as long.
        self._latest: dict[str, int] = {}
        self._latest_bytes = 0
        self._has_earlier = False
        self._database = temporary_database(_SCHEMA)

    def close(self) -> None:
        """Close the database of the paths. May be called again."""
        self._database.close()

    def add(
        self,
        entry: Entry,
        content: Content = (),
        path: str | None = None,
        target: str | None = None,
    ) -> None:
        """Send `entry`; `content` yields a file's `entry.size` bytes.

        If they are given, `path` and `target` are used in place of those of `entry`.
        """
        path = entry.path if path is None else path
        if path.rpartition("/")[2].startswith(".cvmfs"):
            raise _unfit(path, "the server interprets files of that name")
        self._send(entry, content, path, entry.target if target is None else target)
        if entry.type is EntryType.DIRECTORY and starts_catalog(path):
            self.start_catalog(path)

    def add_record(self, entry: Entry, content: bytes) -> None:
        """Send a small file of the publisher, which may be a file bundle of a flat image."""
        if layout.is_bundle(entry.path):
            self._send(entry, (content,), entry.path, "")
        else:
            self.add(entry, (content,))

    def start_catalog(self, directory: str) -> None:
        """Make the directory, which was sent before, the root of a nested catalog."""
        if not self._sent(directory):
            raise _unfit(directory, "it is to be the root of a catalog, but was not sent")
        path = f"{directory}/{CATALOG_MARKER}"
        uid, gid = self._owner.uid, self._owner.gid
        self._send(Entry(path, EntryType.FILE, 0o644, uid, gid), (), path, "")

    def make_parents(self, path: str) -> None:
        """Send the directories above `path` that are neither sent nor published."""
        parent = path.rpartition("/")[0]
        if parent == self._parent:
            return
        # The server creates its base directory before it reads the stream.
        is_base = not parent or self._base == f"{parent}/"
        state = _DIRECTORY if is_base else self._sent(parent)
        if state is None:
            published = self._kind(parent)
            if published is None and not self._base.startswith(f"{parent}/"):
                owner = self._owner
                self.add(Entry(parent, EntryType.DIRECTORY, 0o755, owner.uid, owner.gid))
                state = self._sent(parent)
            elif published is EntryType.DIRECTORY:
                state = _DIRECTORY
        if not state:
            raise _unfit(path, f"{parent} is not a directory")
        self._parent, self._parent_is_new = parent, state == _NEW_DIRECTORY

    def end(self) -> None:
        """Complete the archive. A stream that ends before this is recognizably incomplete."""
        self._out.end(END)

    def _send(self, entry: Entry, content: Content, path: str, target: str) -> None:
        if not path.startswith(self._base):
            raise _unfit(path, f"it is not below {self._base}")
        parent, _, name = path.rpartition("/")
        if parent and parent == self._parent:  # which was checked with an entry before
            _check_name(path, (name,))
        else:
            _check_name(path, path.split("/"))
            self.make_parents(path)
        if entry.type is EntryType.HARDLINK:
            target = self._checked_target(path, target)
        elif entry.type is EntryType.SYMLINK and not target:
            raise _unfit(path, "a symlink without a target")
        # A directory that this stream added has no published content.
        published = None if self._parent_is_new else self._kind(path)
        is_directory = entry.type is EntryType.DIRECTORY
        if published is not None and is_directory != (published is EntryType.DIRECTORY):
            raise _unfit(
                path, f"the repository has an entry at that path already ({published.name.lower()})"
            )
        new = _DIRECTORY if published else _NEW_DIRECTORY
        self._note(path, new if is_directory else _NO_DIRECTORY)
        at = path[len(self._base) :]
        if entry.type is not EntryType.FILE:
            self._out.write(encode(entry, at, target))
        elif isinstance(content, tuple) and entry.size < SMALLEST_SPARSE:
            self._write_content(path, encode(entry, at, ""), content, entry.size)
        else:
            sparse, content = find_regions(content, entry.size)
            if sparse is None:
                self._write_content(path, encode(entry, at, ""), content, entry.size)
            else:
                header = encode_sparse(entry, sparse.regions, at)
                self._write_content(path, header, content, sparse.stored)

    def _write_content(self, path: str, header: bytes, content: Content, expected: int) -> None:
        """Write the header of a file, and its content, of which `expected` bytes are stored."""
        write = self._out.write
        write(header)
        size = 0
        for piece in filled(content):
            size += len(piece)
            if size > expected:
                break
            write(piece)
        if size != expected:
            raise _unfit(path, f"its content does not have the expected {expected} bytes")
        write(padding(size))

    def _checked_target(self, path: str, target: str) -> str:
        """Return the target of a hard link in the stream."""
        sent = self._sent(target)
        published = self._kind(target) if sent is None else None
        if sent is None and published is None:
            raise _unfit(path, f"it is a link to {target}, which does not exist")
        if sent or published is EntryType.DIRECTORY:
            raise _unfit(path, f"it is a hard link to the directory {target}")
        if not target.startswith(self._base):
            raise _unfit(path, f"it is a link to {target}, outside {self._base}")
        return target[len(self._base) :]

    def _sent(self, path: str) -> int | None:
        state = self._latest.get(path)
        if state is not None or not self._has_earlier:
            return state
        query = "SELECT state FROM sent WHERE path = ?"
        row = self._database.execute(query, (_key(path),)).fetchone()
        return None if row is None else int(row[0])

    def _note(self, path: str, state: int) -> None:
        if self._sent(path) is not None:
            raise _unfit(path, "it was already sent")
        self._latest[path] = state
        self._latest_bytes += len(path) if path.isascii() else _CHARACTER_BYTES * len(path)
        if len(self._latest) >= _IN_MEMORY or self._latest_bytes > _BYTES_IN_MEMORY:
            sent = ((_key(path), state) for path, state in self._latest.items())
            self._database.executemany("INSERT INTO sent VALUES (?, ?)", sent)
            self._latest.clear()
            self._latest_bytes = 0
            self._has_earlier = True


class _UnalignedWriter:
    """Buffers writes, and passes on pieces that each end one byte before a block boundary.

    A tar reader accepts a stream that ends between two members as complete, but the stream of a
    killed publisher must not be accepted. Since every piece ends within a block, so does every page
    of it, which is the unit in which a pipe accepts data. The last byte is a piece of its own.

    The first piece is a single block, so that the server begins its work while the next ones are
    made.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._held = bytearray()
        self._written = 0
        self._enough = BLOCK

    def write(self, data: bytes | memoryview) -> None:
        self._held += data
        if len(self._held) >= self._enough:
            self._pass_on()
            self._enough = _PIECE

    def end(self, data: bytes) -> None:
        """Write the last bytes, which a pipe accepts as a whole."""
        self._pass_on()
        self._write(bytes(self._held) + data)

    def _pass_on(self) -> None:
        end = len(self._held) - (self._written + len(self._held) + 1) % BLOCK
        if end <= 0:
            return
        with memoryview(self._held) as held:
            piece = bytes(held[:end])
        self._write(piece)
        self._written += end
        del self._held[:end]


def _check_name(path: str, names: Sequence[str]) -> None:
    """Check `names`, parts of `path`."""
    for name in names:
        if name in ("", ".", ".."):
            raise _unfit(path, "the path is not normalized")
        if name.startswith(".wh."):
            raise _unfit(path, "the server would store a marker as an ordinary file")
        if "\0" in name:
            raise _unfit(path, "the name contains a zero byte")


def _key(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _unfit(path: str, why: str) -> UnfitForStream:
    return UnfitForStream(f"cannot send {path!r} to the server", why=why)
