"""How many entries the catalogs of CVMFS would have, with and without a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from bench.results.images import World
from bench.results.state import progress
from publisher.browse.contents import layer_index, merged_layers
from publisher.entry import Entry
from publisher.layers.catalogs import DEFAULT_LIMIT, catalog_sizes
from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree.layout import RepositoryURL

LIMITS = (DEFAULT_LIMIT, 10_000, 1_000)
"""The limits that are compared: the publisher's own, and smaller ones."""


def measure_catalogs(world: World) -> dict[str, Any]:
    """Return the entries of each tree, and the sizes of the catalogs in each way to divide them.

    The ways: none (the repository has one catalog), one for each of the 256 directories with the
    first two digits of a digest (as in the thesis), one for each tree, and a plan with each limit.
    """
    repository = DirectoryRepository(RepositoryURL("dir", str(world.tree)))
    trees: dict[str, int] = {}
    directories: Counter[str] = Counter()
    planned: dict[int, list[int]] = {limit: [] for limit in LIMITS}
    for recipe in world.recipes:
        manifest = world.manifest(recipe)
        digests = [each["digest"] for each in manifest["layers"]]
        found: list[tuple[str, str, Sequence[Entry]]] = [
            ("layer", digest, list(layer_index(repository, digest)))
            for digest in dict.fromkeys(digests)
        ]
        image_id = manifest["config"]["digest"]
        found.append(("flat", image_id, list(_flat(repository, digests))))
        for kind, digest, entries in found:
            name = f"{kind} {digest}"
            if name in trees:
                continue
            trees[name] = len(entries)
            directories[f"{kind} {digest.partition(':')[2][:2]}"] += len(entries)
            for limit, sizes in planned.items():
                sizes.extend(catalog_sizes(entries, limit).values())
        progress(f"  {recipe.name}: {len(found[-1][2]):,} entries")
    ways = {
        "no nested catalogs of CVMFS": [sum(trees.values())],
        "one for each first two digits": list(directories.values()),
        "one for each layer and flat image": list(trees.values()),
    } | {f"planned, at most {limit:,}": sizes for limit, sizes in planned.items()}
    return {
        "layers": sorted(n for name, n in trees.items() if name.startswith("layer")),
        "flat": sorted(n for name, n in trees.items() if name.startswith("flat")),
        "ways": {name: _summary(sizes) for name, sizes in ways.items()},
    }


def _flat(repository: DirectoryRepository, digests: Sequence[str]) -> Iterator[Entry]:
    for merged in merged_layers(repository, digests):
        yield merged.entry


def _summary(sizes: Sequence[int]) -> dict[str, int]:
    ordered = sorted(sizes)
    return {
        "catalogs": len(ordered),
        "median": ordered[len(ordered) // 2],
        "ninetieth": ordered[len(ordered) * 9 // 10],
        "largest": ordered[-1],
        "over": sum(size > DEFAULT_LIMIT for size in ordered),
    }
