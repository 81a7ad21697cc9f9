"""Compare contents: layer trees with their indexes, and flat images with their layers."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from typing import TypeVar

from publisher.entry import Entry, EntryType, Generated, Merged, sort_key
from publisher.errors import PublisherError, is_resource_limit
from publisher.layers.errors import LayerError
from publisher.layers.index import read_index
from publisher.lazy import dataclass
from publisher.repository import Found, Repository, RepositoryError
from publisher.runtimes import flat_files
from publisher.runtimes.flat_image import flat_plan, generated_paths
from publisher.tree import layout
from publisher.verify.findings import Finding, Kind, Remedy, Severity
from publisher.verify.inventory import LiveImage
from publisher.verify.published_images import current_users

_T = TypeVar("_T")
_TIMES = range(-(2**31) * 10**9, 2**33 * 10**9)
_TIME_PRECISION = 2 * 10**9
_LATEST_IN_32_BITS = (2**31 - 1) * 10**9

MAX_NAMED = 3
"""How many paths of a damaged tree are named; the others are counted."""


def check_layer(repository: Repository, digest: str, name: str) -> Iterator[Finding]:
    """Read a whole published layer, and yield a finding if it differs from its index."""
    tree = layout.layer_tree(digest)
    differences = _Differences()
    whiteouts = _Whiteouts()
    stored = _Stored.by(repository)
    unresolved = 0
    try:
        with repository.open_index(digest) as file:
            index = read_index(file)
            indexed = ((sort_key(entry.path), entry) for entry in index)
            for entry, found in _paired(indexed, repository.walk(tree)):
                if entry is not None:
                    whiteouts.count(entry, found)
                    unresolved += entry.is_unresolved
                if found is not None or entry is None or entry.type is not EntryType.WHITEOUT:
                    differences.add(_compare(entry, found, stored))
        if unresolved != index.header.unresolved:
            counted = f"its header counts {index.header.unresolved} hard links to lower layers"
            raise LayerError("cannot use the index", why=f"{counted}, of which it has {unresolved}")
        differences.add(whiteouts.difference)
    except LayerError as error:
        path = layout.layer_index(digest)
        yield Finding(Severity.ERROR, Kind.INDEX_DAMAGED, path, error.why, Remedy.DERIVE, "", name)
        return
    except OSError as error:
        differences.add(_unreadable(error))
    if differences.count:
        yield Finding(
            Severity.ERROR,
            Kind.LAYER_DAMAGED,
            tree,
            str(differences),
            Remedy.REFETCH,
            "",
            name,
        )


def check_flat(repository: Repository, image: LiveImage) -> Iterator[Finding]:
    """Yield a finding if a flat image differs from its merged layers.

    A file that shares its inode with the layer's file is not read.
    """
    path = layout.flat_image(image.manifest.image_id)
    differences = _Differences()
    outdated = _Differences()
    stored = _Stored.by(repository)
    try:
        for what, is_for_runtimes in _flat_differences(repository, image, path, stored):
            (outdated if is_for_runtimes else differences).add(what)
    except PublisherError as error:
        yield Finding(
            Severity.ERROR,
            Kind.FLAT_DAMAGED,
            path,
            f"it cannot be compared: {error}",
            how="publisher verify --deep --refetch",
            image=image.name,
        )
        return
    except OSError as error:
        differences.add(_unreadable(error))
    recorded = current_users(repository, image.manifest.image_id)
    is_current = recorded.runtime_files == flat_files.VERSION
    damage = differences if differences.count or not is_current else outdated
    if damage.count:
        what = str(damage)
        yield Finding(Severity.ERROR, Kind.FLAT_DAMAGED, path, what, Remedy.DERIVE, "", image.name)
    elif outdated.count:
        what = f"the files for runtimes differ from those of this release: {outdated}"
        yield Finding(
            Severity.WARNING, Kind.FLAT_OUTDATED, path, what, Remedy.DERIVE, "", image.name
        )


def _flat_differences(
    repository: Repository, image: LiveImage, path: str, stored: _Stored
) -> Iterator[tuple[str, bool]]:
    """Yield how each entry at `path` differs ("" if it does not), and if it is for runtimes."""
    layers = [layer.digest for layer in image.manifest.layers]
    generated: Set[str] = frozenset()
    if image.config is None:  # then the contents of the files for runtimes are unknown
        generated = generated_paths(repository, layers)
    with flat_plan(repository, layers, image.config, image.name) as plan:
        planned = ((sort_key(merged.entry.path), merged) for merged in plan)
        for planned_entry, found in _paired(planned, repository.walk(path)):
            if _is_shared(repository, path, layers, planned_entry):
                continue
            if planned_entry is None and found is not None and found.entry.path in generated:
                continue
            is_for_runtimes = isinstance(planned_entry, Generated) or _is_for_runtimes(found)
            yield _compare(_entry(planned_entry), found, stored), is_for_runtimes


class _Whiteouts:
    """Counts the expected and the existing whiteouts of a layer's tree.

    Whiteouts in place of dropped devices, and those below directories that the same layer makes
    opaque, are not unpacked: they would hide nothing further.
    """

    def __init__(self) -> None:
        self._found: Counter[bool] = Counter()
        self._opaque: bytes | None = None

    def count(self, entry: Entry, found: Found | None) -> None:
        """Count the next of a layer's sorted entries."""
        key = sort_key(entry.path)
        below_opaque = self._opaque is not None and key.startswith(self._opaque)
        if entry.opaque and not below_opaque:
            self._opaque = key + b"\0" if key else b""
        elif entry.type is EntryType.WHITEOUT and not (below_opaque or entry.dropped):
            self._found[found is not None and found.entry.type is EntryType.WHITEOUT] += 1

    @property
    def difference(self) -> str:
        """What is missing; "" if the file system cannot store whiteouts."""
        if self._found[True] and self._found[False]:
            return f"{self._found[False]} whiteouts are missing"
        return ""


class _Differences:
    """Counts differences, and describes the first few."""

    def __init__(self) -> None:
        self.count = 0
        self._named: list[str] = []

    def add(self, what: str) -> None:
        if what:
            self.count += 1
            if len(self._named) < MAX_NAMED:
                self._named.append(what)

    def __str__(self) -> str:
        more = self.count - len(self._named)
        return "; ".join(self._named) + (f"; and {more} more" if more else "")


def _unreadable(error: OSError) -> str:
    if isinstance(error, FileNotFoundError) or is_resource_limit(error):
        raise error  # concurrently removed: the caller checks; or not damaged
    if isinstance(error, PermissionError):
        raise RepositoryError(
            "cannot read all published files",
            why=f"{error.filename or 'a file'}: {error.strerror}",
            hint="run it as the user who publishes",
        ) from error
    return f"{error.filename or 'a file in it'} cannot be read: {error.strerror}"


@dataclass(frozen=True, slots=True)
class _Stored:
    """The properties of an entry that a tree stores.

    `owners` is False without privileges: all files belong to the publishing user. `opaque` is False
    if the attribute of opaque directories is not visible, which only root sees.
    """

    owners: bool
    opaque: bool

    @classmethod
    def by(cls, repository: Repository) -> _Stored:
        root = next(iter(repository.walk("")))
        owners = root.entry.uid == 0
        return cls(owners, owners and repository.keeps_xattrs and os.geteuid() == 0)


def _paired(
    expected: Iterator[tuple[bytes, _T]], found: Iterator[Found]
) -> Iterator[tuple[_T | None, Found | None]]:
    """Pair the expected and the found entry of each path. Both inputs are sorted."""
    left, right = next(expected, None), next(found, None)
    while left is not None or right is not None:
        key = sort_key(right.entry.path) if right is not None else b""
        if right is None or (left is not None and left[0] < key):
            assert left is not None
            yield left[1], None
            left = next(expected, None)
        elif left is None or key < left[0]:
            yield None, right
            right = next(found, None)
        else:
            yield left[1], right
            left, right = next(expected, None), next(found, None)


def _entry(planned: Merged | Generated | None) -> Entry | None:
    if isinstance(planned, Generated) and planned.entry.type is EntryType.FILE:
        return replace(planned.entry, sha256=hashlib.sha256(planned.content).hexdigest())
    return planned.entry if planned else None


def _is_for_runtimes(found: Found | None) -> bool:
    path = f"{found.entry.path}/" if found else ""
    return path.startswith(".singularity.d/")


def _is_shared(
    repository: Repository,
    path: str,
    layers: Sequence[str],
    merged: Merged | Generated | None,
) -> bool:
    """Return whether the flat image's file is a hard link to the layer's."""
    if not isinstance(merged, Merged) or merged.entry.type is EntryType.DIRECTORY:
        return False
    tree = layout.layer_tree(layers[merged.layer])
    identity = repository.identity(f"{path}/{merged.entry.path}")
    return identity is not None and identity == repository.identity(f"{tree}/{merged.source}")


def _compare(entry: Entry | None, found: Found | None, stored: _Stored) -> str:
    """Return how `found` differs from `entry`; "" if it does not."""
    if entry is None:
        assert found is not None
        # A whiteout may be a fixup, which the index does not contain.
        if found.entry.type is EntryType.WHITEOUT:
            return ""
        return f"{_shown(found.entry.path)} is not expected"
    name = _shown(entry.path)
    if found is None:
        return f"{name} is missing"
    actual = found.entry
    if entry.is_unresolved:
        is_directory = actual.type is EntryType.DIRECTORY
        return f"{name} is a directory, expected a file" if is_directory else ""
    kind = EntryType.FILE if entry.type is EntryType.HARDLINK else entry.type
    if actual.type is not kind:
        return f"{name} is of type {actual.type}, expected {kind}"
    if kind is EntryType.FILE:
        if actual.size != entry.size:
            return f"{name} has {actual.size} bytes, expected {entry.size}"
        if found.sha256() != entry.sha256:
            return f"{name} has the wrong content"
    if kind is EntryType.SYMLINK and actual.target != entry.target:
        return f"{name} points to {_shown(actual.target)}, expected {_shown(entry.target)}"
    if kind is not EntryType.WHITEOUT and actual.device != entry.device:
        return f"{name} is device {actual.device}, expected {entry.device}"
    if kind is EntryType.WHITEOUT or entry.implicit:
        return ""
    return _compare_metadata(name, entry, actual, stored)


def _compare_metadata(name: str, entry: Entry, actual: Entry, stored: _Stored) -> str:
    if entry.type is not EntryType.SYMLINK and actual.mode != entry.mode:
        return f"{name} has mode {actual.mode:04o}, expected {entry.mode:04o}"
    if stored.owners and (actual.uid, actual.gid) != (entry.uid, entry.gid):
        owner = f"{actual.uid}:{actual.gid}"
        return f"{name} belongs to {owner}, expected {entry.uid}:{entry.gid}"
    if not _is_stored_time(entry.mtime_ns, actual.mtime_ns):
        return f"{name} has a different modification time"
    # Not every file system has extended attributes, and only root sees all of them.
    for key, value in entry.xattrs.items():
        if actual.xattrs.get(key, value) != value:
            return f"{name} has a different attribute {key}"
    if entry.opaque and entry.path and not actual.opaque and stored.opaque:
        return f"{name} is not opaque"
    return ""


def _is_stored_time(expected: int, actual: int) -> bool:
    """Return whether a file system may have stored `actual` (ns) for the time `expected`.

    File systems differ in the range and precision of the times that they can store. With inodes of
    128 bytes (ext2, ext3, ext4) and without bigtime (xfs) the latest time is 2**31 - 1 seconds,
    which is stored for all later ones.
    """
    if expected not in _TIMES or abs(actual - expected) <= _TIME_PRECISION:
        return True
    return expected > _LATEST_IN_32_BITS and actual // 10**9 * 10**9 == _LATEST_IN_32_BITS


def _shown(path: str) -> str:
    return repr(path) if path else "its root"
