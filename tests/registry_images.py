"""Images for the tests' own registry, and shorthands for reading them back."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

from publisher.manifest import Descriptor, Platform
from publisher.reference import parse_reference
from publisher.sources import Source
from publisher.sources.open import Sources
from publisher.sources.settings import Settings
from tests.layer_builder import Image, Layer, file, image, layer
from tests.registry import OwnRegistry

AMD64 = Platform("linux", "amd64")
FAST = 0.002
"""Seconds of the first back-off in tests."""


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no compression makes smaller, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def noisy_layer(size: int = 50_000, seed: int = 0) -> Layer:
    """A layer with one file of noise."""
    return layer(file(f"noise-{seed}", noise(size, seed)), compression="none")


def sample_image(*sizes: int, seed: int = 0) -> Image:
    """An image with layers of about these sizes."""
    layers = [noisy_layer(size, seed * 100 + n) for n, size in enumerate(sizes or (50_000,))]
    return image(*layers)


def fast_sources(settings: Settings | None = None, **options: object) -> Sources:
    """Sources that do not wait long between tries."""
    return Sources(settings or Settings(), base_delay=FAST, **options)  # type: ignore[arg-type]


def open_image(sources: Sources, registry: OwnRegistry, name: str = "library/x:latest") -> Source:
    """The source of an image in the tests' own registry."""
    return sources.open(parse_reference(f"{registry.url}/{name}"))


def read_blob(source: Source, descriptor: Descriptor) -> bytes:
    """A blob, whole."""
    with source.blob(descriptor) as chunks:
        return b"".join(chunks)


def write_auths(path: Path, auths: dict[str, tuple[str, str]]) -> Path:
    """A credentials file as docker and podman write it."""
    entries = {
        host: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
        for host, (user, password) in auths.items()
    }
    path.write_text(json.dumps({"auths": entries}))
    return path
