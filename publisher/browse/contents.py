"""List and compare the contents of published images: `publisher ls` and `diff`.

Only layer indexes are read, not the images themselves.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from publisher.entry import Entry, EntryType, Merged, sort_key
from publisher.errors import PublisherError, explain
from publisher.layers.index import LayerIndex
from publisher.layers.merge import merge
from publisher.lazy import dataclass
from publisher.oci.manifest import Manifest
from publisher.repository import Repository
from publisher.repository.published import PublishedImage, find_name, load_image
from publisher.tree import layout


class NoContents(PublisherError):
    """An image's contents are unknown: its manifest, or a layer or its index, is missing.

    `name` is the image's public name, or `layer` the layer's digest; the other one is "".
    """

    def __init__(
        self, what: str, *, why: str, hint: str = "", name: str = "", layer: str = ""
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.name = name
        self.layer = layer


class NoSuchPath(PublisherError):
    """`image` has no entry at `path`, which is relative to its root."""

    def __init__(self, what: str, *, image: str, path: str, hint: str) -> None:
        super().__init__(what, hint=hint)
        self.image = image
        self.path = path


class Change(enum.StrEnum):
    """How a path, or a package, differs between two images."""

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


def list_path(repository: Repository, image: str, path: str = "") -> list[Entry]:
    """Return the entry at `path` in the image, or the entries of that directory.

    Args:
        repository: Opened for reading.
        image: A published name, or an image reference.
        path: Relative to the image's root. Symbolic links are not followed.

    Raises:
        NotPublished: The image is not published.
        NoContents: The image's contents are unknown.
        NoSuchPath: The image has no such path.
    """
    wanted = "/".join(part for part in path.split("/") if part not in ("", "."))
    entry: Entry | None = None
    above: Entry | None = None
    children = []
    for found in flat_entries(repository, _manifest(repository, image)):
        if found.path == wanted:
            entry = found
        elif found.type is EntryType.SYMLINK and wanted.startswith(f"{found.path}/"):
            above = found
        elif found.path and found.path.rpartition("/")[0] == wanted:
            children.append(found)
    if entry is not None and entry.type is not EntryType.DIRECTORY:
        return [entry]
    if entry is None and wanted and not children:
        hint = f"publisher ls {image}"
        if above is not None:
            hint = f"{above.path} is a symbolic link to {above.target}: list that path"
        raise NoSuchPath(f"{image} has no {wanted}", image=image, path=wanted, hint=hint)
    return children


def diff_images(repository: Repository, old: str, new: str) -> Iterator[Difference]:
    """Yield what differs between the flat forms of two images, by path. Times are not compared.

    Raises:
        NotPublished: One of the images is not published.
        NoContents: The contents of one are unknown.
    """
    yield from diff_manifests(repository, _manifest(repository, old), _manifest(repository, new))


def diff_manifests(
    repository: Repository, before: Manifest, after: Manifest
) -> Iterator[Difference]:
    """Yield what `diff_images` yields, for images by their manifests, also for retired ones.

    Raises:
        NoContents: A layer or its index is missing.
    """
    return _compare(flat_entries(repository, before), flat_entries(repository, after))


def manifest_of(image: PublishedImage) -> Manifest:
    """Return the manifest of a published image; raise NoContents if it is unreadable."""
    if image.manifest is None:
        raise NoContents(f"cannot look into {image.name}", why=image.problem, name=image.name)
    return image.manifest


def layer_index(repository: Repository, digest: str) -> LayerIndex:
    """Return the index of a published layer, which is read when it is iterated.

    Raises:
        NoContents: The layer or its index is missing, or this user may not look for it.
    """
    what = f"cannot look into layer {digest}"
    for path, why, hint in (
        (layout.layer_tree(digest), "it is missing", "publisher verify --refetch"),
        (layout.layer_index(digest), "it has no index", "publisher verify --repair"),
    ):
        try:
            is_missing = repository.kind(path) is None
        except PermissionError as error:
            explained = explain(error)
            raise NoContents(what, why=explained.why, hint=explained.hint, layer=digest) from error
        if is_missing:
            raise NoContents(what, why=why, hint=hint, layer=digest)
    return LayerIndex(partial(repository.open_index, digest), digest)


def merged_layers(repository: Repository, digests: Iterable[str]) -> Iterator[Merged]:
    """Return the entries of the image of these layers, from bottom to top, sorted.

    Raises:
        NoContents: A layer or its index is missing.
        LayerError: An index is damaged. It may be raised while the result is iterated.
    """
    return merge([layer_index(repository, digest) for digest in digests])


def flat_entries(repository: Repository, manifest: Manifest) -> Iterator[Entry]:
    """Return the entries of the image's flat form, sorted; see `merged_layers`."""
    merged = merged_layers(repository, [layer.digest for layer in manifest.layers])
    return (as_file(item.entry) for item in merged)


def as_file(entry: Entry) -> Entry:
    """Return a hard link as a file entry, since it is a file in the flat image."""
    if entry.type is EntryType.HARDLINK:
        return replace(entry, type=EntryType.FILE, target="")
    return entry


def _manifest(repository: Repository, image: str) -> Manifest:
    return manifest_of(load_image(repository, find_name(repository, image)))


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
