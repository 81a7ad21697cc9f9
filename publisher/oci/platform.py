"""Platforms: operating system, architecture and variant."""

from __future__ import annotations

from publisher.lazy import dataclass, pattern

_PLATFORM_PART = pattern(
    r"[a-z0-9][a-z0-9._-]*\Z"
)  # used as a directory name, hence no leading dot


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system, architecture and variant, as in the OCI image specification."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read "os/architecture[/variant]"; raise ValueError for any other text."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(_PLATFORM_PART.match(p) for p in parts):
            raise ValueError(f"{text!r} is not os/architecture[/variant], such as linux/amd64")
        return cls(*parts).normalized()

    def normalized(self) -> Platform:
        """Return the usual spelling: x86_64 is amd64, aarch64 is arm64, arm64/v8 is arm64."""
        architecture = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}.get(
            self.architecture, self.architecture
        )
        variant = self.variant
        if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
            variant = ""
        if architecture == "arm" and not variant:
            variant = "v7"
        return Platform(self.os, architecture, variant)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)
