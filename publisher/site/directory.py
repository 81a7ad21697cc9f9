"""The directory of a static site: which pages it has, and changes that readers see whole.

`.publisher-site.json` records the pages that were written, and from what. A page is written beside
the site and moved to its place. The record is written after the pages: after a run that was killed,
it lacks some of them, and the next run writes those again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import Annotated

from publisher.browse.statistics.holdings import LayerSize
from publisher.codec import AsArray, Check, Codec, Malformed, UnknownVersion, load_object
from publisher.errors import PublisherError
from publisher.lazy import dataclass, pattern
from publisher.site import addresses

RECORD = ".publisher-site.json"
_LOCK = ".publisher-site.lock"
_DRAFTS = ".publisher-site.drafts"
_OWN = (RECORD, _LOCK, _DRAFTS)
_SAVED_EVERY = 1000
"""After how many written pages the record is saved, which a killed run then need not repeat."""


_PATH = pattern(r"(?:[a-z0-9][a-z0-9.-]*/)*[a-z0-9][a-z0-9.-]*")
_PagePath = Annotated[
    str, Check(lambda path: _PATH.fullmatch(path) is not None, "is not the path of a page")
]
_Count = Annotated[int, Check(lambda number: number >= 0, "is negative")]


class NotASite(PublisherError):
    """A directory cannot become, or is not, a site that `publisher site` wrote."""


class SiteBusy(PublisherError):
    """Another process is writing the same site."""


@dataclass(frozen=True, slots=True)
class _File(AsArray):
    """A written page: its path, its size in bytes and a digest of its content."""

    path: _PagePath
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class _Unit(AsArray):
    """Pages that are written together, and the digest of what they were made from."""

    name: str
    key: str
    files: tuple[_File, ...]


@dataclass(frozen=True, slots=True)
class _Layer(AsArray):
    digest: str
    stored: _Count
    entries: _Count


@dataclass(frozen=True, slots=True)
class _Record:
    units: tuple[_Unit, ...] = ()
    layers: tuple[_Layer, ...] = ()


_CODEC = Codec(_Record, version=1)


@dataclass(slots=True)
class Changes:
    """How many pages were written, were up to date, and were removed."""

    written: int = 0
    unchanged: int = 0
    removed: int = 0


@dataclass(slots=True)
class SiteDirectory:
    """A site that this process alone changes.

    Attributes:
        layers: The sizes of layers that an earlier run read.
        changes: What was done so far.
    """

    path: Path
    layers: Mapping[str, LayerSize]
    changes: Changes = field(default_factory=Changes)
    _earlier: Mapping[str, _Unit] = field(default_factory=dict)
    _found: Mapping[str, int] = field(default_factory=dict)
    _units: dict[str, _Unit] = field(default_factory=dict)
    _unsaved: int = 0

    def put(
        self, name: str, inputs: object, make: Callable[[], Iterable[tuple[str, bytes]]]
    ) -> None:
        """Write the pages `name`, unless they were made from the same inputs before.

        Args:
            name: Identifies the pages in this site.
            inputs: What they are made from, with a deterministic `repr`.
            make: Returns path and content of each page; called only if it is needed.
        """
        key = hashlib.sha256(repr(inputs).encode("utf-8", "surrogatepass")).hexdigest()
        earlier = self._earlier.get(name)
        if earlier and earlier.key == key and all(map(self._is_present, earlier.files)):
            self._units[name] = earlier
            self.changes.unchanged += len(earlier.files)
            return
        known = {file.path: file for file in earlier.files} if earlier else {}
        files = [self._write(path, data, known.get(path)) for path, data in make()]
        self._units[name] = _Unit(name, key, tuple(files))
        if self._unsaved >= _SAVED_EVERY:
            self._save({**self._earlier, **self._units})

    def finish(self, layers: Mapping[str, LayerSize]) -> None:
        """Remove the pages that were not put, and record those that were."""
        kept = {file.path for unit in self._units.values() for file in unit.files}
        listed = {file.path for unit in self._earlier.values() for file in unit.files}
        self.layers = layers
        unwanted = sorted((self._found.keys() | {p for p in listed if "/" not in p}) - kept)
        for path in unwanted:
            with suppress(FileNotFoundError, IsADirectoryError):  # a link, replaced by a directory
                self._place(path).unlink()
                self.changes.removed += 1
        for directory in {Path(path).parent for path in unwanted} - {Path()}:
            with suppress(OSError):  # it is not empty
                (self.path / directory).rmdir()
        if self._unsaved or unwanted or self._units != self._earlier:
            self._save(self._units)

    def _is_present(self, file: _File) -> bool:
        """Return whether the page is as it was written, as far as its size shows."""
        return self._found.get(file.path) == file.size

    def _write(self, path: str, data: bytes, earlier: _File | None) -> _File:
        file = _File(path, len(data), hashlib.sha256(data).hexdigest()[:32])
        if file == earlier and self._is_present(file):
            self.changes.unchanged += 1
            return file
        place = self._place(path)
        self._remove_links_above(path)
        draft = self.path / _DRAFTS / "page"
        # Not synced, which would take longer than all else: after a crash of the machine, a page
        # with another size is written again.
        draft.write_bytes(data)
        try:
            draft.replace(place)
        except FileNotFoundError:
            place.parent.mkdir(parents=True)
            draft.replace(place)
        except IsADirectoryError as error:
            raise NotASite(
                f"cannot write {path} of the site {self.path}",
                why="a directory is in its place",
                hint=f"rm -r {shlex.quote(str(place))}",
            ) from error
        self.changes.written += 1
        self._unsaved += 1
        return file

    def _remove_links_above(self, path: str) -> None:
        """Remove symbolic links in the place of directories, so that no page leaves the site."""
        for directory in reversed(Path(path).parents[:-1]):
            if (self.path / directory).is_symlink():
                (self.path / directory).unlink()

    def _save(self, units: Mapping[str, _Unit]) -> None:
        layers = (_Layer(d, size.stored, size.entries) for d, size in self.layers.items())
        record = _Record(tuple(units[name] for name in sorted(units)), tuple(layers))
        draft = self.path / _DRAFTS / "record"
        draft.write_text(json.dumps(_CODEC.to_object(record), separators=(",", ":")))
        draft.replace(self.path / RECORD)
        self._unsaved = 0

    def _place(self, path: str) -> Path:
        return self.path / path


@contextmanager
def open_site(path: Path) -> Iterator[SiteDirectory]:
    """Open the directory of a site, which is created if it is missing, to change it.

    Args:
        path: The directory; it must be missing, empty, or the site of an earlier run.

    Raises:
        NotASite: The directory has something else.
        SiteBusy: Another process is changing the site.
    """
    path.mkdir(parents=True, exist_ok=True)
    _refuse_others(path)
    with _only_writer(path):
        drafts = path / _DRAFTS
        shutil.rmtree(drafts, ignore_errors=True)
        drafts.mkdir()
        record = _read_record(path / RECORD)
        if record is None:
            record = _Record()
            draft = drafts / "record"
            draft.write_text(json.dumps(_CODEC.to_object(record)))
            draft.replace(path / RECORD)
        site = SiteDirectory(
            path,
            {each.digest: LayerSize(each.stored, each.entries) for each in record.layers},
            _earlier={unit.name: unit for unit in record.units},
            _found=dict(_pages(path, record)),
        )
        yield site
        shutil.rmtree(drafts, ignore_errors=True)


def _refuse_others(path: Path) -> None:
    try:
        names = os.listdir(path)
    except NotADirectoryError as error:
        raise NotASite(
            f"cannot write a site to {path}",
            why="it is not a directory",
            hint="name a new or empty directory",
        ) from error
    if RECORD not in names and not set(names) <= set(_OWN):
        raise NotASite(
            f"cannot write a site to {path}",
            why="it has files, and is not a site of an earlier run",
            hint="name a new or empty directory",
        )
    for name in addresses.DIRECTORIES:
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR((path / name).lstat().st_mode):
                raise NotASite(
                    f"cannot write a site to {path}",
                    why=f"{name} in it is not a directory",
                    hint=f"rm {path / name}",
                )


@contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path / _LOCK, flags, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise SiteBusy(
            f"cannot write a site to {path}",
            why="another `publisher site` is writing it",
            hint="wait until it has ended",
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)


def _read_record(file: Path) -> _Record | None:
    """Return the record; None if it is missing or damaged, so that every page is written."""
    try:
        return _CODEC.from_object(load_object(file.read_text()))
    except (FileNotFoundError, Malformed, UnknownVersion, UnicodeDecodeError):
        return None


def _pages(path: Path, record: _Record) -> Iterator[tuple[str, int]]:
    """Yield path and size of each file in the site's directories, and of its pages at the top."""
    for directory in addresses.DIRECTORIES:
        yield from _files_below(path, directory)
    for unit in record.units:
        for file in unit.files:
            if "/" not in file.path:
                with suppress(FileNotFoundError):
                    yield file.path, (path / file.path).lstat().st_size


def _files_below(top: Path, directory: str) -> Iterator[tuple[str, int]]:
    try:
        entries = os.scandir(top / directory)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            path = f"{directory}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(top, path)
            else:
                yield path, entry.stat(follow_symlinks=False).st_size
