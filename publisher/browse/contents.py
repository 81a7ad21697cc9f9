"""What is inside published images, answered from layer indexes: `ls`, `diff` and `find`.

No image is opened or walked; a question costs reading the indexes of the layers that it concerns.
"""

from __future__ import annotations

import enum
import fnmatch
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from publisher.browse.images import list_images
from publisher.entry import Entry, EntryType, sort_key
from publisher.errors import PublisherError
from publisher.layers import LayerError
from publisher.layers.index import LayerIndex, read_index
from publisher.layers.merge import merge
from publisher.oci.manifest import Manifest
from publisher.repository import Repository
from publisher.repository.published import PublishedImage, find_name, load_image
from publisher.tree import layout


class NoContents(PublisherError):
    """The image's contents are not known: a layer of it has no index, or its manifest is broken."""


class NoSuchPath(PublisherError):
    """The image has nothing at that path."""


class Change(enum.StrEnum):
    """How a path differs between two images."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that differs. `fields` names what changed: "type", "mode", "content", …"""

    path: str
    change: Change
    old: Entry | None
    new: Entry | None
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A path that matches, in the image published as `name`."""

    name: str
    entry: Entry


def list_path(repository: Repository, image: str, path: str = "") -> list[Entry]:
    """The entry at `path` in the image, or, for a directory, what is directly in it.

    Symlinks are shown, not followed.
    """
    wanted = "/".join(part for part in path.split("/") if part not in ("", "."))
    entry: Entry | None = None
    above: Entry | None = None
    children = []
    for found in _entries(repository, _manifest(repository, image)):
        if found.path == wanted:
            entry = found
        elif found.type is EntryType.SYMLINK and wanted.startswith(f"{found.path}/"):
            above = found
        elif found.path and found.path.rpartition("/")[0] == wanted:
            children.append(found)
    if entry is not None and entry.type is not EntryType.DIRECTORY:
        return [entry]
    if entry is None and wanted and not children:
        hint = "`publisher ls IMAGE` lists its root"
        if above is not None:
            hint = f"{above.path} is a symlink to {above.target}: ask for what is there"
        raise NoSuchPath(f"{image} has no {wanted}", hint=hint)
    return children


def diff_images(repository: Repository, old: str, new: str) -> Iterator[Difference]:
    """What differs between the two images' flat forms, by path. Times are not compared."""
    before, after = _manifest(repository, old), _manifest(repository, new)
    yield from _compare(_entries(repository, before), _entries(repository, after))


def find(
    repository: Repository, pattern: str, unknown: Callable[[str, PublisherError], None]
) -> Iterator[Found]:
    """Every path in every published image that matches the glob `pattern`.

    A pattern without a slash matches names anywhere ("libssl.so*"), one with a slash whole paths.
    `unknown` is told of each image (by its name) that cannot be looked into, and why.
    """
    matches = _path_matcher(pattern)
    candidates: dict[str, bool] = {}
    for image in list_images(repository):
        try:
            yield from _find_in(repository, image, matches, candidates)
        except (NoContents, LayerError) as error:
            unknown(image.name, error)


def _find_in(
    repository: Repository,
    image: PublishedImage,
    matches: Callable[[str], bool],
    candidates: dict[str, bool],
) -> Iterator[Found]:
    """What matches in one image; `candidates` remembers which layers have a match at all."""
    manifest = _manifest_of(image)
    # Most images have no match in any layer; only those that do are merged.
    digests = {layer.digest for layer in manifest.layers}
    for digest in digests - candidates.keys():
        candidates[digest] = _layer_has(repository, digest, matches)
    if any(candidates[digest] for digest in digests):
        entries = _entries(repository, manifest)
        yield from (Found(image.name, entry) for entry in entries if matches(entry.path))


def _manifest(repository: Repository, image: str) -> Manifest:
    return _manifest_of(load_image(repository, find_name(repository, image)))


def _manifest_of(image: PublishedImage) -> Manifest:
    if image.manifest is None:
        raise NoContents(f"cannot look into {image.name}", why=image.problem)
    return image.manifest


def _entries(repository: Repository, manifest: Manifest) -> Iterator[Entry]:
    """The entries of the image's flat form, sorted; a hard link is shown as the file it is."""
    for layer in manifest.layers:
        _require_index(repository, layer.digest)
    indexes = [
        LayerIndex(partial(repository.open_index, layer.digest)) for layer in manifest.layers
    ]
    return (_as_file(item.entry) for item in merge(indexes))


def _require_index(repository: Repository, digest: str) -> None:
    if not repository.exists(layout.layer_index(digest)):
        raise NoContents(
            f"cannot look into layer {digest}",
            why="it has no index: another tool published it",
        )


def _as_file(entry: Entry) -> Entry:
    """A further name of a file is a file to whoever looks at the image."""
    if entry.type is EntryType.HARDLINK:
        return replace(entry, type=EntryType.FILE, target="")
    return entry


def _layer_has(repository: Repository, digest: str, matches: Callable[[str], bool]) -> bool:
    _require_index(repository, digest)
    with repository.open_index(digest) as file:
        return any(matches(entry.path) for entry in read_index(file))


def _path_matcher(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(fnmatch.translate(pattern.strip("/")))
    if "/" in pattern.rstrip("/"):
        return lambda path: compiled.match(path) is not None
    return lambda path: compiled.match(path.rpartition("/")[2]) is not None


def _compare(left: Iterator[Entry], right: Iterator[Entry]) -> Iterator[Difference]:
    old, new = next(left, None), next(right, None)
    while old is not None or new is not None:
        if new is None or (old is not None and sort_key(old.path) < sort_key(new.path)):
            assert old is not None
            yield Difference(old.path, Change.REMOVED, old, None)
            old = next(left, None)
        elif old is None or sort_key(new.path) < sort_key(old.path):
            yield Difference(new.path, Change.ADDED, None, new)
            new = next(right, None)
        else:
            fields = _changed_fields(old, new)
            if fields:
                yield Difference(old.path, Change.CHANGED, old, new, fields)
            old, new = next(left, None), next(right, None)


def _changed_fields(old: Entry, new: Entry) -> tuple[str, ...]:
    names = {
        "type": (old.type, new.type),
        "mode": (old.mode, new.mode),
        "owner": ((old.uid, old.gid), (new.uid, new.gid)),
        "content": ((old.size, old.sha256), (new.size, new.sha256)),
        "target": (old.target, new.target),
        "device": (old.device, new.device),
        "xattrs": (old.xattrs, new.xattrs),
    }
    return tuple(name for name, (one, other) in names.items() if one != other)
