"""Image configs.

Source: OCI image specification 1.1, config page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from publisher.errors import InvalidManifest
from publisher.oci.digest import is_digest
from publisher.oci.document import read_object
from publisher.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image's config: what a container is started with, and its layers' diff IDs.

    `values` is the whole parsed document, so that nothing of it is lost on the way to a runtime.
    """

    platform: Platform
    diff_ids: tuple[str, ...]
    values: Mapping[str, Any]


def parse_config(data: bytes, digest: str) -> ImageConfig:
    """Read an image config; `digest` names it in errors."""
    what = f"cannot read config {digest}"
    value = read_object(data, f"config {digest}")
    os, architecture = value.get("os"), value.get("architecture")
    variant = value.get("variant") or ""
    if not isinstance(value.get("config") or {}, dict):
        raise InvalidManifest(what, why="its config is not an object")
    rootfs = value.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not (isinstance(os, str) and isinstance(architecture, str) and isinstance(variant, str)):
        raise InvalidManifest(what, why="os, architecture or variant is missing or not a string")
    if diff_ids is None:
        diff_ids = []  # an image without layers may leave it out, or say null
    if not isinstance(diff_ids, list) or not all(
        isinstance(d, str) and is_digest(d) for d in diff_ids
    ):
        raise InvalidManifest(what, why="rootfs.diff_ids is not a list of digests")
    return ImageConfig(Platform(os, architecture, variant), tuple(diff_ids), value)
