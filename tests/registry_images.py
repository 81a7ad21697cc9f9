"""Images for the registry for tests, and shorthands to read them from it."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import requests

from publisher.oci.descriptor import Descriptor
from publisher.oci.digest import digest_of
from publisher.oci.document import Document
from publisher.oci.media_types import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST
from publisher.oci.platform import Platform
from publisher.oci.reference import parse_reference
from publisher.sources import Source
from publisher.sources.open import Sources
from publisher.sources.settings import Settings
from tests.layer_builder import Image, Layer, file, image, layer
from tests.registry import OwnRegistry

AMD64 = Platform("linux", "amd64")
DOCKER_NAMES = {
    OCI_MANIFEST: DOCKER_MANIFEST,
    OCI_CONFIG: DOCKER_CONFIG,
    "application/vnd.oci.image.layer.v1.tar+gzip": (
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
    ),
    "application/vnd.oci.image.layer.v1.tar+zstd": (
        "application/vnd.docker.image.rootfs.diff.tar.zstd"
    ),
    "application/vnd.oci.image.layer.v1.tar": "application/vnd.docker.image.rootfs.diff.tar",
}
"""Docker's names of OCI's media types."""
FAST = 0.002
"""Seconds of the first back-off in tests."""


class Pushable(Protocol):
    """A manifest, and the blobs that it names, by digest."""

    @property
    def manifest(self) -> Document: ...

    @property
    def blobs(self) -> dict[str, bytes]: ...


def noise(size: int, seed: int = 0) -> bytes:
    """Return incompressible bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def noisy_layer(size: int = 50_000, seed: int = 0) -> Layer:
    """Return a layer with one file of noise."""
    return layer(file(f"noise-{seed}", noise(size, seed)), compression="none")


def sample_image(*sizes: int, seed: int = 0) -> Image:
    """Return an image with layers of about these sizes."""
    layers = [noisy_layer(size, seed * 100 + n) for n, size in enumerate(sizes or (50_000,))]
    return image(*layers)


def as_docker(built: Image) -> Image:
    """Return the image with the media types of Docker's schema 2."""
    value = json.loads(built.manifest.data)
    for each in (value, value["config"], *value["layers"]):
        each["mediaType"] = DOCKER_NAMES[each["mediaType"]]
    data = json.dumps(value).encode()
    layers = tuple(
        each.with_descriptor(media_type=DOCKER_NAMES[each.descriptor.media_type])
        for each in built.layers
    )
    return replace(built, manifest=Document(data, DOCKER_MANIFEST, digest_of(data)), layers=layers)


def push_as_it_is(url: str, name: str, tag: str, built: Pushable) -> None:
    """Push an image to any registry, byte for byte: other tools compress layers when they push."""
    for digest, data in built.blobs.items():
        begun = requests.post(f"{url}/v2/{name}/blobs/uploads/", timeout=30)
        begun.raise_for_status()
        to = begun.headers["Location"]
        to += f"{'&' if '?' in to else '?'}digest={digest}"
        requests.put(to, data=data, timeout=30).raise_for_status()
    put = requests.put(
        f"{url}/v2/{name}/manifests/{tag}",
        data=built.manifest.data,
        headers={"Content-Type": built.manifest.media_type},
        timeout=30,
    )
    put.raise_for_status()


def fast_sources(settings: Settings | None = None, **options: object) -> Sources:
    """Return sources with a short back-off between tries."""
    return Sources(settings or Settings(), base_delay=FAST, **options)  # type: ignore[arg-type]


def open_image(sources: Sources, registry: OwnRegistry, name: str = "library/x:latest") -> Source:
    """Return the source of an image in the registry for tests."""
    return sources.open(parse_reference(f"{registry.url}/{name}"))


def read_blob(source: Source, descriptor: Descriptor) -> bytes:
    """Return the content of a blob."""
    with source.blob(descriptor) as chunks:
        return b"".join(chunks)


def write_auths(path: Path, auths: dict[str, tuple[str, str]]) -> Path:
    """Write a credentials file as docker and podman do."""
    entries = {
        host: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
        for host, (user, password) in auths.items()
    }
    path.write_text(json.dumps({"auths": entries}))
    return path
