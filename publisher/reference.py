"""Image references: text to value and back (stub to be completed)."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Transport(enum.StrEnum):
    """Where an image comes from; spelled as skopeo and podman spell it."""

    REGISTRY = "docker"
    OCI = "oci"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_DAEMON = "docker-daemon"
    DOCKER_ARCHIVE = "docker-archive"


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A place where one image is found.

    `registry` (host, with its port if it has one, as the wish wrote it, in lower case) and
    `repository` (the *image repository*: path and name) belong to the registry transport;
    `plain_http` is true only where `http://` was written. `location` is the folder or file of the
    layout and archive transports; for `docker-daemon:` and `docker-archive:` `repository` is the
    engine's name of the image. `digest` is "algorithm:hex".
    """

    transport: Transport
    registry: str = ""
    repository: str = ""
    location: str = ""
    tag: str | None = None
    digest: str | None = None
    plain_http: bool = False
