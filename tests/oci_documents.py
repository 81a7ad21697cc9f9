"""Manifests, indexes and configs as JSON, for tests that read them."""

from __future__ import annotations

import json
from typing import Any

from publisher.oci.digest import digest_of
from publisher.oci.document import Document
from publisher.oci.media_types import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
)

ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "123")
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
IN_TOTO = "application/vnd.in-toto+json"


def manifest(**changes: Any) -> dict[str, Any]:
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": ONE, "size": 10},
        "layers": [
            {"mediaType": GZIP, "digest": TWO, "size": 20},
            {"mediaType": GZIP, "digest": THREE, "size": 30, "annotations": {"a": "b"}},
        ],
        "annotations": {"org.opencontainers.image.title": "x"},
    }
    return {**value, **changes}


def without(key: str) -> dict[str, Any]:
    value = manifest()
    del value[key]
    return value


def document(value: Any, media_type: str = OCI_MANIFEST) -> Document:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Document(data, media_type, digest_of(data))


def index(*platforms: str) -> dict[str, Any]:
    manifests = []
    for number, text in enumerate(platforms):
        os, architecture, *variant = text.split("/")
        platform = {"os": os, "architecture": architecture}
        if variant:
            platform["variant"] = variant[0]
        manifests.append(
            {
                "mediaType": OCI_MANIFEST,
                "digest": f"sha256:{number:064x}",
                "size": 1,
                "platform": platform,
            }
        )
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}


CONFIG = {
    "os": "linux",
    "architecture": "arm64",
    "variant": "v8",
    "config": {"Env": ["A=b"], "Cmd": ["sh"]},
    "rootfs": {"type": "layers", "diff_ids": [ONE, TWO]},
}

SCHEMA1 = {"schemaVersion": 1, "name": "x", "fsLayers": [{"blobSum": ONE}], "history": []}
DUCC = {
    "SchemaVersion": 2,
    "MediaType": DOCKER_MANIFEST,
    "Config": {"MediaType": DOCKER_CONFIG, "Size": 10, "Digest": ONE},
    "Layers": [
        {"MediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "Size": 2, "Digest": TWO}
    ],
}
