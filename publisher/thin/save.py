"""Thin images as files: an OCI image layout, or an archive for `docker load`."""

from __future__ import annotations

import json
from pathlib import Path

from publisher.codec import Malformed, load_object
from publisher.oci.digest import digest_hex
from publisher.oci.document import Document
from publisher.oci.media_types import OCI_INDEX
from publisher.replacing import replace_file
from publisher.thin import ThinImageError, archive
from publisher.thin.image import ThinImage, ThinSet

_REF_NAME = "org.opencontainers.image.ref.name"


def save_layout(thin: ThinSet, directory: Path, tag: str) -> None:
    """Add the thin image under `tag` to an OCI image layout, which is created if missing.

    Source: OCI image specification 1.1, image-layout page. Raises ThinImageError.
    """
    index_file = directory / "index.json"
    try:
        entries = _read_entries(index_file)
        for image in thin.images:
            for blob in (image.config, image.layer, image.manifest):
                _write_blob(directory, blob)
        _write_blob(directory, thin.top)
        _write(directory / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        # The index is written last: it must only name blobs that exist.
        kept = [entry for entry in entries if _tag(entry) != tag]
        top = {
            "mediaType": thin.top.media_type,
            "size": len(thin.top.data),
            "digest": thin.top.digest,
            "annotations": {_REF_NAME: tag},
        }
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*kept, top]}
        _write(index_file, json.dumps(index, separators=(",", ":")).encode())
    except OSError as error:
        raise _unwritable(directory, error) from error


def save_archive(thin: ThinSet, file: Path, name: str) -> None:
    """Write the thin image (for several platforms, the first one) as an archive for engines."""
    try:
        _write(file, engine_archive(thin.images[0], name))
    except OSError as error:
        raise _unwritable(file, error) from error


def engine_archive(image: ThinImage, name: str) -> bytes:
    """Return the archive that `docker save` would write; `name` is "name:tag", or "" for none.

    Source: Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format".
    """
    config = f"{digest_hex(image.config.digest)}.json"
    layer = f"{digest_hex(image.layer.digest)}/layer.tar"
    listed = [{"Config": config, "RepoTags": [name] if name else [], "Layers": [layer]}]
    return archive.tar(
        {
            config: image.config.data,
            layer: image.archive,
            "manifest.json": json.dumps(listed, separators=(",", ":")).encode(),
        }
    )


def _read_entries(index_file: Path) -> list[object]:
    """Return the entries of an existing index.json; entries of other programs are kept as is."""
    try:
        entries = load_object(index_file.read_bytes())["manifests"]
        if not isinstance(entries, list):
            raise Malformed("is not a list", "manifests")
    except FileNotFoundError:
        return []
    except (Malformed, KeyError) as error:
        why = "manifests is missing" if isinstance(error, KeyError) else str(error)
        raise ThinImageError(
            f"cannot save to {index_file.parent}",
            why=f"its index.json is damaged: {why}",
            hint="save to another directory",
        ) from error
    return entries


def _tag(entry: object) -> object:
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    return annotations.get(_REF_NAME) if isinstance(annotations, dict) else None


def _write_blob(directory: Path, blob: Document) -> None:
    path = directory / "blobs" / "sha256" / digest_hex(blob.digest)
    if not path.exists():
        _write(path, blob.data)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data)


def _unwritable(path: Path, error: OSError) -> ThinImageError:
    return ThinImageError(f"cannot save to {path}", why=error.strerror or str(error))
