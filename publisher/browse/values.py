"""Published images, their contents and their states as JSON values, as docs/schemas has them.

They are printed by commands with `--output json`, and answered by the service.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from publisher.errors import printable
from publisher.times import format_time

if TYPE_CHECKING:  # a command loads only what it uses
    from publisher.browse.images import ImageDetails, ListedImage
    from publisher.browse.status import StatusLine
    from publisher.entry import Entry
    from publisher.packages.model import InstalledPackage, Package
    from publisher.repository.image_packages import ImagePackages
    from publisher.repository.published import PublishedImage
    from publisher.state import RunRecord


def listed_value(listed: ListedImage) -> dict[str, object]:
    """Return an image of a list, of the document `list/1`."""
    return _image_value(listed.image) | {
        "bytes": listed.size,
        "pinned": listed.pin is not None,
        "pinnedUntil": str(listed.pin.until) if listed.pin and listed.pin.until else None,
        "removableFrom": format_time(listed.scheduled.not_before) if listed.scheduled else None,
    }


def details_value(details: ImageDetails) -> dict[str, object]:
    """Return the document `show/1`."""
    value = _image_value(details.image)
    value["layers"] = [
        {
            "digest": layer.digest,
            "compressedBytes": layer.size,
            "path": layer.path,
            "images": None if layer.images < 0 else layer.images,
        }
        for layer in details.layers
    ]
    return value | {
        "flatPath": details.flat_path,
        "squashfsPath": details.squashfs_path or None,
        "sbomPaths": list(details.sbom_paths),
        "config": config_value(details.config_data) if details.config else None,
        "scheduled": [entry.to_value() for entry in details.scheduled],
    }


def _image_value(image: PublishedImage) -> dict[str, object]:
    value: dict[str, object] = {
        "name": image.name,
        "manifestDigest": image.manifest_digest,
        "linked": image.linked,
    }
    if image.manifest is not None:
        value |= {
            "imageId": image.manifest.image_id,
            "layers": len(image.manifest.layers),
            "compressedBytes": image.manifest.size,
        }
    if image.publication is not None:
        record = image.publication
        value |= {
            "reference": record.reference,
            "sourceDigest": record.source_digest,
            "platform": record.platform,
            "outputs": list(record.outputs),
            "publishedAt": format_time(record.published_at),
            "wishList": record.wish_list,
            "owner": record.owner,
            "note": record.note,
        }
    if image.problem:
        value["problem"] = image.problem
    return value


def config_value(data: bytes) -> dict[str, object]:
    """Return the exact config as a JSON value, to be copied into a result document.

    `data` was accepted by `parse_config`; decisions are made on its typed values only.
    """
    value = json.loads(data)
    assert isinstance(value, dict)
    return value


def entry_value(entry: Entry) -> dict[str, object]:
    """Return an entry of an image, of the document `ls/1`."""
    value: dict[str, object] = {
        "path": entry.path,
        "type": str(entry.type),
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtimeNs": entry.mtime_ns,
    }
    more = {"target": entry.target, "sha256": entry.sha256}
    return value | {key: text for key, text in more.items() if text}


def packages_value(found: ImagePackages, shown: Iterable[InstalledPackage]) -> dict[str, object]:
    """Return the document `packages/1` with those packages that are shown."""
    return {
        "image": found.name,
        "distribution": _distribution_value(found.distribution),
        "packages": [package_value(each) for each in shown],
        "skipped": [{"database": each.path, "why": each.why} for each in found.skipped],
    }


def package_value(each: InstalledPackage) -> dict[str, object]:
    """Return the JSON value of one package."""
    more: dict[str, object] = {
        "architecture": each.package.architecture,
        "source": each.package.source,
        "build": each.package.build,
        "channel": each.package.channel,
    }
    value: dict[str, object] = {
        "type": str(each.type),
        "name": each.package.name,
        "version": each.package.version,
        "database": each.path,
    }
    return value | {key: text for key, text in more.items() if text}


def _distribution_value(distribution: Package | None) -> dict[str, str] | None:
    if distribution is None:
        return None
    return {"id": distribution.name, "version": distribution.version}


def status_value(line: StatusLine) -> dict[str, object]:
    """Return a wish and its state, of the document `status/1`."""
    published = line.image.publication if line.image else None
    tries = line.tries
    has_registry = line.registry is not None and not line.registry.error
    return {
        "name": line.name,
        "reference": line.reference,
        "wishList": line.wish_list,
        "owner": line.owner,
        "status": str(line.condition),
        "published": line.is_published,
        "publishedAt": _time(published.published_at if published else None),
        "manifestDigest": (line.image.manifest_digest or None) if line.image else None,
        "sourceDigest": line.source_digest or None,
        "registryDigest": line.registry.digest if line.registry and has_registry else None,
        "registryCheckedAt": _time(line.registry.at if line.registry else None),
        "registryError": printable(line.registry.error) if line.registry else "",
        "behind": line.is_behind,
        "behindSince": _time(line.behind_since),
        "firstSeen": _time(tries.first_seen if tries else None),
        "lastSuccess": _time(tries.last_success if tries else None),
        "failingSince": _time(tries.failing_since if tries else None),
        "cause": tries.cause if tries else "",
        "error": tries.error if tries else "",
        "tries": tries.tries if tries else 0,
        "nextTry": _time(tries.next_try if tries else None),
        "removableFrom": _time(line.scheduled.not_before if line.scheduled else None),
        "removalReason": line.scheduled.reason if line.scheduled else "",
        "pinned": line.pin is not None,
        "pinnedUntil": str(line.pin.until) if line.pin and line.pin.until else None,
        "problem": line.image.problem if line.image else "",
    }


def run_value(run: RunRecord) -> dict[str, object]:
    """Return how a run ended, as JSON."""
    return {
        "command": run.command,
        "endedAt": format_time(run.ended),
        "exitCode": run.exit_code,
        "error": printable(run.error),
    }


def _time(moment: datetime | None) -> str | None:
    return format_time(moment) if moment is not None else None
