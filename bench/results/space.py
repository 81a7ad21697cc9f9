"""How much space the images take: as layers, flat, as single files, and by distinct contents."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.results.images import World
from bench.results.recipes import Recipe
from bench.results.state import progress, used_bytes
from publisher.browse.contents import layer_index, merged_layers
from publisher.entry import EntryType
from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree.layout import RepositoryURL
from tests.components import program, run

_SQUASHFS = ("-comp", "zstd", "-Xcompression-level", "3", "-noappend", "-no-progress", "-quiet")


def measure_space(world: World) -> dict[str, Any]:
    """Return the sizes of each image, in the order of publication, and those of the tree."""
    repository = DirectoryRepository(RepositoryURL("dir", str(world.tree)))
    rows: list[dict[str, Any]] = []
    layers: dict[str, dict[str, int]] = {}
    contents: dict[str, int] = {}
    for recipe in world.recipes:
        manifest = world.manifest(recipe)
        digests = [each["digest"] for each in manifest["layers"]]
        new_layers = [digest for digest in digests if digest not in layers]
        before = sum(contents.values())
        for digest, described in zip(digests, manifest["layers"], strict=True):
            if digest not in layers:
                layers[digest] = _layer(repository, digest, contents) | {
                    "compressed": described["size"],
                    "images": 0,
                }
        for digest in set(digests):
            layers[digest]["images"] += 1
        row: dict[str, Any] = {
            "name": recipe.name,
            "compressed": sum(layers[digest]["compressed"] for digest in digests),
            "unpacked": sum(layers[digest]["bytes"] for digest in digests),
            "newLayerBytes": sum(layers[digest]["bytes"] for digest in new_layers),
            "newLayerCompressed": sum(layers[digest]["compressed"] for digest in new_layers),
            "newContentBytes": sum(contents.values()) - before,
            **_flat(repository, digests),
            "squashfs": _squashfs(world.flat(recipe), world.state.folder / "image.squashfs"),
        }
        if world.sif(recipe).exists():
            row["sif"] = world.sif(recipe).stat().st_size
        rows.append(row)
        flat, squashfs = row["flatBytes"] / 1e6, row["squashfs"] / 1e6
        progress(f"  {recipe.name}: flat {flat:.0f} MB, squashfs {squashfs:.0f} MB")
    progress("  one squashfs of all layers")
    return {
        "images": rows,
        "layers": list(layers.values()),
        "contents": len(contents),
        "contentBytes": sum(contents.values()),
        "tree": {
            "disk": used_bytes(world.tree),
            "diskWithoutFlat": _used_without(world.tree, ".flat"),
            "oneSquashfs": _squashfs(world.tree / ".layers", world.state.folder / "all.squashfs"),
            "registry": used_bytes(world.registry.storage),
        },
    }


def _layer(
    repository: DirectoryRepository, digest: str, contents: dict[str, int]
) -> dict[str, int]:
    """Return the size of a layer, and add what its files contain to `contents`."""
    index = layer_index(repository, digest)
    size = files = 0
    for _, kind, length, sha256, *_ in index.rows():
        files += kind in (EntryType.FILE, EntryType.HARDLINK)
        if kind == EntryType.FILE:
            size += length
            contents[sha256] = length
    return {"bytes": size, "files": files, "entries": index.header.entries}


def _flat(repository: DirectoryRepository, digests: Iterable[str]) -> dict[str, int]:
    """Return the size of the flat image of these layers: each file once, however many names."""
    entries = files = size = 0
    for merged in merged_layers(repository, digests):
        entries += 1
        if merged.entry.type is EntryType.FILE:
            files += 1
            size += merged.entry.size
    return {"flatEntries": entries, "flatFiles": files, "flatBytes": size}


def _squashfs(source: Path, target: Path) -> int:
    target.unlink(missing_ok=True)
    run(program("mksquashfs"), source, target, *_SQUASHFS)
    size = target.stat().st_size
    target.unlink()
    return size


def _used_without(tree: Path, name: str) -> int:
    """Return the bytes that a directory takes without one of its entries.

    Flat images consist of links to the files of layers: only their directories are counted.
    """
    done = run("du", "-s", "-B1", f"--exclude={name}", tree)
    return int(done.split()[0])


def versions(recipes: Iterable[Recipe]) -> dict[str, list[str]]:
    """Return the families that have several versions, with these in the order of publication."""
    families: dict[str, list[str]] = {}
    for recipe in recipes:
        families.setdefault(recipe.family, []).append(recipe.name)
    return {
        family: names for family, names in families.items() if len(names) > 2 and family != "debian"
    }
