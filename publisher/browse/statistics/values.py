"""Statistics as JSON values, as docs/schemas has them. Catalogs are those of CVMFS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from publisher.browse.statistics.collect import Named, Problem, Statistics
from publisher.browse.statistics.shares import Share
from publisher.browse.statistics.totals import Sizes
from publisher.errors import printable
from publisher.layers.catalogs import DEFAULT_LIMIT

if TYPE_CHECKING:  # what merges layers: most statistics do without
    from publisher.browse.statistics.contents import Contents


def share_value(share: Share) -> dict[str, object]:
    """Return the fields of a result document about what images use."""
    return {
        "manifests": share.manifests,
        "layers": share.layers,
        "exclusiveLayers": share.exclusive_layers,
        "unknownLayers": share.unknown,
        "entries": share.entries,
        "files": share.files,
        "bytes": share.stored,
        "sharedBytes": share.shared,
        "exclusiveBytes": share.exclusive,
        "exclusiveSquashfsBytes": share.single_files,
        "freedBytes": share.freed,
    }


def problem_value(problem: Problem) -> dict[str, str]:
    """Return the fields of a result document about what was not counted."""
    return {"name": printable(problem.name), "problem": str(problem.error)}


def statistics_value(found: Statistics) -> dict[str, object]:
    """Return the document `stats/1`."""
    sums = found.totals
    return {
        "totals": {
            "names": sums.names,
            "images": sums.images,
            "retired": sums.retired,
            "layers": sums.layers,
            "unknownLayers": sums.unknown,
            "entries": sums.entries,
            "files": sums.files,
            "bytes": sums.stored,
            "squashfsBytes": sums.single_files,
            "bytesWithoutSharing": sums.separate,
            "retiredBytes": sums.retired_only,
        },
        "layersByUsers": [
            {"images": e.images, "layers": e.layers, "bytes": e.stored} for e in found.users
        ],
        "layersByEntries": _sizes_values(found.entries),
        "catalogLimit": DEFAULT_LIMIT,
        "contents": _contents_value(found.contents) if found.contents else None,
        "growth": [
            {
                "month": e.month,
                "published": e.published,
                "removed": e.removed,
                "images": e.images,
                "bytes": e.stored,
            }
            for e in found.growth
        ],
        "images": _named_values(found.images),
        "owners": _named_values(found.owners),
        "wishLists": _named_values(found.lists),
        "problems": [problem_value(problem) for problem in found.problems],
    }


def _named_values(named: Sequence[Named]) -> list[dict[str, object]]:
    return [{"name": each.name} | share_value(each.share) for each in named]


def _sizes_values(sizes: Sequence[Sizes]) -> list[dict[str, object]]:
    return [{"most": e.most, "count": e.trees, "entries": e.entries} for e in sizes]


def _contents_value(contents: Contents) -> dict[str, object]:
    return {
        "files": contents.files,
        "fileBytes": contents.file_bytes,
        "contents": contents.contents,
        "contentBytes": contents.content_bytes,
        "flatImages": contents.flat_images,
        "flatEntries": contents.flat_entries,
        "flatBytes": contents.flat_bytes,
        "catalogsByEntries": _sizes_values(contents.catalogs),
        "catalogsOverLimit": contents.over,
        "largestCatalogs": [asdict(each) for each in contents.largest],
    }
