"""Images in archives of all versions of `docker save`.

- Before Docker 1.10: per layer a directory with `VERSION`, `json`, `layer.tar`; `repositories`.
- Since 1.10: the same with `manifest.json` and configs. Podman also writes it, with `HEX.tar`.
- Since 25: an OCI image layout and `manifest.json`, with uncompressed layers.
- With containerd as image store: the same, with the layers and the nested index of the registry.

The manifests of a layout are used as they are. Otherwise a manifest is made from `manifest.json`;
equal archives give equal bytes. The digest of a layer is then that of the archive's file, which for
an uncompressed one is its diff ID.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from publisher.oci.config import parse_config
from publisher.oci.descriptor import Descriptor
from publisher.oci.digest import digest_of
from publisher.oci.document import Document
from publisher.oci.media_types import DOCKER_CONFIG, DOCKER_MANIFEST
from publisher.oci.reference import HUB
from publisher.sources import ImageNotFound, Source, SourceError
from publisher.sources.archive import Archive
from publisher.sources.docker_save import SavedImage, saved_images
from publisher.sources.files import open_blob
from publisher.sources.names import name_one, nearest
from publisher.sources.oci_layout import FULL_NAME, LayoutSource, has_layout
from publisher.sources.protocol import read_small_blob

_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


def open_docker_archive(archive: Archive, name: str | None) -> Source:
    """Return the source of an image in an archive by its name, or of the only image.

    Raises:
        ImageNotFound: The archive has no image of that name.
        SourceError: The archive is malformed, or has several images and no name is given.
    """
    if has_layout(archive):
        found = _in_layout(archive, name)
        if found is not None:
            return found
    images = saved_images(archive)
    names = [saved for image in images for saved in image.names]
    if name is not None:
        images = [i for i in images if canonical(name) in map(canonical, i.names)]
    if not images:
        shown = nearest(name or "", names)
        raise ImageNotFound(
            f"no image {name or ''} in {archive.name}".replace("  ", " "),
            why=f"its images: {', '.join(shown) or 'none with a name'}",
            hint=name_one(archive.name, shown),
            nearest=shown,
        )
    if len({image.config for image in images}) > 1:
        raise _several(archive, names)
    return SavedSource(archive, images[0])


def _several(archive: Archive, names: Sequence[str]) -> SourceError:
    shown = nearest("", names)
    return SourceError(
        f"{archive.name} has several images",
        why=f"its images: {', '.join(shown) or 'none with a name'}",
        hint=name_one(archive.name, shown) or "save each image on its own, with its name",
    )


def _in_layout(archive: Archive, name: str | None) -> LayoutSource | None:
    """Return the image in the archive's layout; None if only `manifest.json` has its name."""
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
    """Return an engine's name of an image without the parts of Docker Hub that may be omitted."""
    name = name.removeprefix(f"{HUB}/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


class SavedSource:
    """An image in an archive with a config and layers, for which a manifest is made."""

    def __init__(self, archive: Archive, image: SavedImage) -> None:
        self._archive = archive
        self._image = image
        self._files: dict[str, str] = {}
        self._document = self._make_manifest()

    def resolve(self) -> str:
        """Return the digest of the generated manifest."""
        return self._document.digest

    def manifest(self, digest: str | None = None) -> Document:
        """Return the generated manifest."""
        if digest not in (None, self._document.digest):
            raise ImageNotFound(
                f"no manifest {digest} in {self._archive.name}",
                why=f"its image now has {self._document.digest}",
            )
        return self._document

    def fetch(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, verified."""
        if descriptor.digest == digest_of(self._image.config):
            return self._image.config
        return read_small_blob(self, descriptor, self._archive.name)

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Return a blob in chunks."""
        return open_blob(self._archive, self._files.get(descriptor.digest, ""), descriptor)

    def tags(self) -> Iterator[str]:
        """Yield the tags in the image's names."""
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

    def _layer(self, name: str, diff_id: str) -> dict[str, object]:
        start = self._archive.start(name)
        if start is None:
            raise SourceError(f"cannot read {self._archive.name}", why=f"it has no layer {name}")
        suffix = compression_suffix(start)
        digest = (self._archive.digest(name) or diff_id) if suffix else diff_id
        self._files[digest] = name
        return {
            "mediaType": _LAYER + suffix,
            "size": self._archive.size(name),
            "digest": digest,
        }


def compression_suffix(start: bytes) -> str:
    """Return the suffix of a layer's media type, from the first bytes of its file."""
    if start.startswith(b"\x1f\x8b"):
        return ".gzip"
    return ".zstd" if start.startswith(b"\x28\xb5\x2f\xfd") else ""
