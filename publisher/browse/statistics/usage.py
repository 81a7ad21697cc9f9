"""What some images use: the use case behind `publisher du`."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from publisher.browse.contents import merged_layers
from publisher.browse.images import name_matcher
from publisher.browse.statistics.holdings import (
    Holder,
    Holdings,
    Unreadable,
    layer_sizes,
    read_holders,
    single_files,
)
from publisher.browse.statistics.shares import Share, images_of, selection_of, shares
from publisher.entry import Entry, EntryType
from publisher.errors import PublisherError, explain
from publisher.lazy import dataclass, pattern
from publisher.repository import Repository
from publisher.repository.published import (
    NotPublished,
    find_name,
    load_image,
    published_places,
)

_GLOB = pattern(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of an image: the bytes of all files in it and below, and their number."""

    path: str
    size: int
    files: int


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """One image.

    `directories` are its largest ones, the largest first, if they were asked for.
    """

    name: str
    share: Share
    directories: tuple[Directory, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """The chosen images by name, and all of them together."""

    images: tuple[ImageUsage, ...]
    together: Share


def disk_usage(
    repository: Repository,
    texts: Sequence[str],
    unreadable: Unreadable,
    *,
    depth: int | None = None,
    most: int = 20,
) -> Usage:
    """Return what the images use that `texts` name.

    Args:
        repository: Opened for reading.
        texts: Published names, image references, or globs of published names. An image includes
            its platforms.
        unreadable: Called with each image, layer or record that is not counted.
        depth: Also return the directories down to this depth; 0 is the root alone. The layer
            indexes of the images are then read.
        most: How many directories of each image to return.

    Raises:
        NotPublished: A text names no published image.
        InvalidReference: A text is neither a name nor a reference.
    """
    names = _names(repository, texts)
    holders = read_holders(repository, unreadable)
    chosen = [holder for holder in holders if holder.published and holder.name in names]
    digests = dict.fromkeys(digest for holder in chosen for digest in holder.layers)
    holdings = Holdings(
        holders,
        layer_sizes(repository, digests, unreadable, count=True),
        single_files(repository, unreadable),
    )
    together = shares(holdings, selection_of(names)).get(True, _NOTHING)
    by_name = shares(holdings, images_of)
    found = {holder.plain_name: holder for holder in reversed(chosen)}
    return Usage(
        tuple(
            ImageUsage(
                name,
                by_name[name],
                _directories(repository, found[name], unreadable, depth, most),
            )
            for name in sorted(found)
        ),
        together,
    )


_NOTHING = Share(0, 0, 0, 0, 0, 0, 0, 0, 0)
"""The share of images that are all unreadable."""


def _names(repository: Repository, texts: Iterable[str]) -> set[str]:
    names: set[str] = set()
    for text in texts:
        if _GLOB.search(text):
            matches = name_matcher(text)
            matching = {name for name in repository.names() if matches(name)}
        else:
            name = find_name(repository, text)
            matching = set(published_places(repository, name))
            # It may be unreadable, and is a problem then.
            matching = matching or {load_image(repository, name).name}
        if not matching:
            raise NotPublished(
                f"no image is published as {text}",
                name=text,
                hint="`publisher list` shows what is; names are registry/path/name:tag",
            )
        names |= matching
    return names


def _directories(
    repository: Repository,
    holder: Holder,
    unreadable: Unreadable,
    depth: int | None,
    most: int,
) -> tuple[Directory, ...]:
    if depth is None:
        return ()
    try:
        merged = merged_layers(repository, holder.layers)
        return largest_directories((each.entry for each in merged), depth, most)
    except (PublisherError, OSError) as error:
        unreadable(holder.name, explain(error))
        return ()


def largest_directories(entries: Iterable[Entry], depth: int, most: int) -> tuple[Directory, ...]:
    """Return the largest directories down to `depth`, the largest first. Pure.

    A file with several names is counted once, at the first of them, as `du` does. The memory that
    this takes does not grow with the number of entries.

    Args:
        entries: Those of a tree, sorted as in an index.
        depth: 0 for the root alone, 1 for it and the directories in it, and so on.
        most: How many directories to return.
    """
    largest: list[tuple[int, int, str]] = []
    above: list[_Open] = []

    def close() -> None:
        directory = above.pop()
        if above:
            above[-1].size += directory.size
            above[-1].files += directory.files
        if len(above) <= depth:
            item = (directory.size, directory.files, directory.path)
            (heapq.heappush if len(largest) < most else heapq.heappushpop)(largest, item)

    for entry in entries:
        while above and above[-1].path and not entry.path.startswith(f"{above[-1].path}/"):
            close()
        if entry.type is EntryType.DIRECTORY:
            above.append(_Open(entry.path))
        elif entry.type in (EntryType.FILE, EntryType.HARDLINK):
            above[-1].files += 1
            above[-1].size += entry.size if entry.type is EntryType.FILE else 0
    while above:
        close()
    ordered = sorted(largest, key=lambda item: (-item[0], item[2]))
    return tuple(Directory(path, size, files) for size, files, path in ordered)


@dataclass(slots=True)
class _Open:
    path: str
    size: int = 0
    files: int = 0
