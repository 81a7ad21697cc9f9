"""Find what no published or scheduled manifest names: orphans, and files of other tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

from publisher.entry import EntryType
from publisher.oci.digest import digest_hex
from publisher.repository import Repository
from publisher.tree import layout
from publisher.verify.expected import Expected
from publisher.verify.findings import Kind, Remedy
from publisher.verify.inventory import Inventory
from publisher.verify.schedule import read_retired

COLLECT = "publisher gc --orphans"


def check_leftovers(repository: Repository, inventory: Inventory, expected: Expected) -> None:
    """Add findings about content that no manifest names and this publisher does not use."""
    names = [
        name
        for name in repository.children("")
        if not layout.is_hidden(name) and name not in (layout.PODMAN_STORE, layout.SQUASHFS_NAMES)
    ]
    what = "a link to a flat image that has no metadata; an ingest of the image adds it"
    check_names(repository, inventory, names, inventory.names, layout.FLAT, what)
    for top, known, kind, what in (
        (layout.LAYERS, expected.layers, Kind.ORPHAN_LAYER, "a layer"),
        (layout.FLAT, expected.images, Kind.ORPHAN_FLAT, "a flat image"),
        (layout.IMAGES, expected.images, Kind.ORPHAN_METADATA, "a record of an image's users"),
        (layout.HOT_FILES, expected.images, Kind.ORPHAN_METADATA, "a list of an image's hot files"),
    ):
        what += " that no published or scheduled manifest names"
        check_shards(repository, inventory, top, known, kind, what)
    _check_retired(repository, inventory)


def check_names(
    repository: Repository,
    inventory: Inventory,
    tops: Sequence[str],
    known: Set[str],
    target: str,
    what: str,
) -> None:
    """Add findings about what lies at and below `tops` and is not one of the `known` links.

    `what` describes another link into the directory `target`.
    """
    waiting = [*tops]
    while waiting:
        path = waiting.pop()
        kind = repository.kind(path)
        if kind is EntryType.DIRECTORY:
            waiting += [f"{path}/{child}" for child in repository.children(path)]
        elif kind is None or path in known:
            continue
        elif kind is EntryType.SYMLINK and f"{target}/" in (repository.link_text(path) or ""):
            inventory.warning(Kind.ORPHAN_LINK, path, what, how=COLLECT)
        else:
            inventory.foreign(path)


def _check_retired(repository: Repository, inventory: Inventory) -> None:
    """Add findings about metadata of retired images without an entry in the schedule."""
    names = {digest_hex(entry.manifest_digest) for entry in inventory.schedule}
    for path, name in sharded(repository, inventory, layout.RETIRED):
        if name in names or not inventory.certain:
            continue
        if read_retired(repository, path) is not None:
            inventory.warning(
                Kind.RETIRED_UNSCHEDULED,
                path,
                "a retired image that the remove schedule lacks, so that it is never collected",
                Remedy.DERIVE,
            )
        else:
            inventory.warning(
                Kind.ORPHAN_METADATA,
                path,
                "metadata of a retired image that the remove schedule lacks",
                how=COLLECT,
            )


def check_shards(
    repository: Repository,
    inventory: Inventory,
    top: str,
    known: Mapping[str, object],
    kind: Kind,
    what: str,
) -> None:
    """Add findings of `kind` about what `top` has by digest and is not `known`."""
    names = {digest_hex(digest) for digest in known}
    for path, name in sharded(repository, inventory, top):
        if name not in names and inventory.certain:
            inventory.warning(kind, path, what, how=COLLECT)


def sharded(repository: Repository, inventory: Inventory, top: str) -> Iterator[tuple[str, str]]:
    """Yield (path, hex digest) of everything in the 256 directories of `top`."""
    for shard in repository.children(top):
        directory = f"{top}/{shard}"
        if repository.kind(directory) is not EntryType.DIRECTORY:
            inventory.foreign(directory)
            continue
        for child in repository.children(directory):
            is_record = top in (layout.IMAGES, layout.HOT_FILES)
            name = child.removesuffix(".json") if is_record else child
            if name.startswith(shard) and len(name) >= 64 and _is_hexadecimal(name):
                yield f"{directory}/{child}", name
            else:
                inventory.foreign(f"{directory}/{child}")


def _is_hexadecimal(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)
