"""Hooks, and the pushes that they report, as values. Pure."""

from __future__ import annotations

import enum
from dataclasses import field

from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.oci.reference import ImageReference


class HookKind(enum.StrEnum):
    """Which payloads a hook receives, and where they have their secret."""

    DISTRIBUTION = "distribution"
    HARBOR = "harbor"
    GITLAB = "gitlab"
    GITHUB = "github"
    QUAY = "quay"
    DOCKER_HUB = "docker-hub"

    @property
    def has_secret_in_path(self) -> bool:
        """Whether the secret is the last part of the URL: these send no other header."""
        return self in (HookKind.QUAY, HookKind.DOCKER_HUB)

    @property
    def is_signed(self) -> bool:
        """Whether the body is signed by the secret, which is not sent itself."""
        return self is HookKind.GITHUB


@dataclass(frozen=True, slots=True)
class Hook:
    """An address for the webhooks of one registry.

    Attributes:
        name: The part of its URL.
        kind: The kind of registry.
        secret: What shows that the registry has sent a request.
        registry: The host of the registry, with its port if it has one, as wishes name it.
        repositories: The names of the repositories whose wishes it is for; empty for all.
    """

    name: str
    kind: HookKind
    secret: str = field(repr=False)
    registry: str
    repositories: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Push:
    """An image that a registry has received, according to it.

    Attributes:
        image: The image repository, without tag and digest.
        tag: The tag, or None for an image that was pushed by its digest.
        digest: The digest of its manifest or index, or None if the payload does not have it.
        is_prefix: Whether images below this path may have been pushed as well, with any tag.
    """

    image: ImageReference
    tag: str | None = None
    digest: str | None = None
    is_prefix: bool = False


class InvalidPayload(PublisherError):
    """A payload is not one that a registry of this kind sends."""

    def __init__(self, kind: HookKind, why: str) -> None:
        super().__init__(
            "cannot read the payload of a webhook",
            why=why,
            hint=f"make sure that the hook is for a registry of the kind {kind}",
        )
        self.kind = str(kind)
