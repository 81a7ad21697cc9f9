"""Images in archives of `docker save`, in all forms that it has had.

- Before Docker 1.10: a folder per layer with `VERSION`, `json` and `layer.tar`, and `repositories`.
- Since 1.10: the same with `manifest.json` and configs. Podman writes it too, with `HEX.tar`.
- Since 25: an OCI image layout beside `manifest.json`, with uncompressed layers.
- With containerd as its store: the same, with the layers and the nested index of the registry.

Where there is a layout, its manifests are used, exactly as they are. Else a manifest is made from
`manifest.json`; equal archives give equal bytes. A layer's digest is then that of the archive's
file, which for an uncompressed one is its diff ID.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from publisher.oci.config import parse_config
from publisher.oci.descriptor import Descriptor
from publisher.oci.digest import digest_of
from publisher.oci.document import Document
from publisher.oci.media_types import DOCKER_CONFIG, DOCKER_MANIFEST
from publisher.oci.reference import HUB
from publisher.sources import ImageNotFound, Source, SourceError
from publisher.sources.archive import Archive
from publisher.sources.files import open_blob, read_file
from publisher.sources.legacy_archive import legacy_images
from publisher.sources.oci_layout import FULL_NAME, LayoutSource, has_layout
from publisher.sources.protocol import read_small_blob
from publisher.sources.saved import SavedImage

_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


def saved_images(archive: Archive) -> list[SavedImage]:
    """The images that `manifest.json`, or `repositories` of old, lists."""
    data = read_file(archive, "manifest.json")
    if data is None:
        return legacy_images(archive)
    try:
        entries = json.loads(data)
        return [_entry(archive, entry) for entry in entries]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise SourceError(
            f"cannot read {archive.name}", why="its manifest.json is not one of docker save"
        ) from None


def _entry(archive: Archive, entry: dict[str, Any]) -> SavedImage:
    config = read_file(archive, str(entry["Config"]))
    if config is None:
        raise SourceError(f"cannot read {archive.name}", why=f"there is no {entry['Config']}")
    names = entry.get("RepoTags") or []
    return SavedImage(tuple(map(str, names)), config, tuple(map(str, entry["Layers"])))


def open_docker_archive(archive: Archive, name: str | None) -> Source:
    """The source of an image in an archive, by its name; without one, of the only one there is."""
    if has_layout(archive):
        found = _in_layout(archive, name)
        if found is not None:
            return found
    images = saved_images(archive)
    names = [saved for image in images for saved in image.names]
    if name is not None:
        images = [i for i in images if canonical(name) in map(canonical, i.names)]
    if not images:
        raise ImageNotFound(
            f"no image {name or ''} in {archive.name}".replace("  ", " "),
            why=f"the images there: {', '.join(names) or 'none with a name'}",
        )
    if len({image.config for image in images}) > 1:
        raise SourceError(
            f"{archive.name} holds several images",
            why=f"the images there: {', '.join(names)}",
            hint="name one behind the file: docker-archive:FILE:NAME:TAG",
        )
    return SavedSource(archive, images[0])


def _in_layout(archive: Archive, name: str | None) -> LayoutSource | None:
    """The image in the archive's layout; None where only `manifest.json` knows its name."""
    entries = LayoutSource(archive).entries()
    if name is not None:
        entries = tuple(
            entry
            for entry in entries
            if canonical(entry.annotations.get(FULL_NAME, "")) == canonical(name)
        )
    digests = {entry.digest for entry in entries}
    return LayoutSource(archive, digest=digests.pop()) if len(digests) == 1 else None


def canonical(name: str) -> str:
    """An engine's name of an image without what engines leave out or put in: Docker Hub's parts."""
    name = name.removeprefix(f"{HUB}/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


class SavedSource:
    """An image that lies in an archive as a config and layers, for which a manifest is made."""

    def __init__(self, archive: Archive, image: SavedImage) -> None:
        self._archive = archive
        self._image = image
        self._files: dict[str, str] = {}
        self._document = self._make_manifest()

    def resolve(self) -> str:
        """The digest of the manifest that is made."""
        return self._document.digest

    def manifest(self, digest: str | None = None) -> Document:
        """The manifest that is made."""
        if digest not in (None, self._document.digest):
            raise ImageNotFound(
                f"no manifest {digest} in {self._archive.name}",
                why=f"its image now has {self._document.digest}",
            )
        return self._document

    def fetch(self, descriptor: Descriptor) -> bytes:
        """A small blob, whole and verified."""
        if descriptor.digest == digest_of(self._image.config):
            return self._image.config
        return read_small_blob(self, descriptor, self._archive.name)

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """A blob in chunks."""
        return open_blob(self._archive, self._files.get(descriptor.digest, ""), descriptor)

    def tags(self) -> Iterator[str]:
        """The tags in the image's names."""
        return iter([name.rpartition(":")[2] for name in self._image.names])

    def _make_manifest(self) -> Document:
        config = self._image.config
        digest = digest_of(config)
        diff_ids = parse_config(config, digest).diff_ids
        if len(diff_ids) != len(self._image.layers):
            raise SourceError(
                f"cannot read {self._archive.name}",
                why=f"it has {len(self._image.layers)} layers, its config {len(diff_ids)} diff IDs",
            )
        manifest = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {"mediaType": DOCKER_CONFIG, "size": len(config), "digest": digest},
            "layers": [
                self._layer(name, diff_id)
                for name, diff_id in zip(self._image.layers, diff_ids, strict=True)
            ],
        }
        data = json.dumps(manifest, separators=(",", ":")).encode()
        return Document(data, DOCKER_MANIFEST, digest_of(data))

    def _layer(self, name: str, diff_id: str) -> dict[str, Any]:
        file = self._archive.open(name)
        if file is None:
            raise SourceError(f"cannot read {self._archive.name}", why=f"there is no layer {name}")
        with file:
            suffix = compression_suffix(file.peek(4))
            digest = diff_id
            if suffix:
                digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        self._files[digest] = name
        return {
            "mediaType": _LAYER + suffix,
            "size": self._archive.size(name),
            "digest": digest,
        }


def compression_suffix(start: bytes) -> str:
    """What a layer's media type ends with, from its first bytes."""
    if start.startswith(b"\x1f\x8b"):
        return ".gzip"
    return ".zstd" if start.startswith(b"\x28\xb5\x2f\xfd") else ""
