"""What a bill of materials is made from."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice

from publisher.lazy import dataclass
from publisher.packages.model import InstalledPackage, Package
from publisher.repository.image_packages import ImagePackages

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_SKIPPED = 100
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/")


@dataclass(frozen=True, slots=True)
class Subject:
    """An image, and its packages.

    Attributes:
        name: The public name of the image, "registry.example.org/team/tool:1.0".
        digest: The digest of its manifest.
        created: When the image was built, by its config; EPOCH if that is unknown.
        distribution: As os-release names it, or None.
        packages: Sorted.
        skipped: The package databases that were not read, each with the reason.
    """

    name: str
    digest: str
    created: datetime
    distribution: Package | None
    packages: Sequence[InstalledPackage]
    skipped: Sequence[str] = ()

    @classmethod
    def of(cls, digest: str, created: str, found: ImagePackages) -> Subject:
        """Return the subject for an image.

        Args:
            digest: The digest of its manifest.
            created: When it was built, as its config has it; any other text counts as unknown.
            found: Its name and its packages.
        """
        skipped = [_skipped(each.path, each.why) for each in islice(found.skipped, _MOST_SKIPPED)]
        if len(found.skipped) > _MOST_SKIPPED:
            skipped.append(f"{len(found.skipped) - _MOST_SKIPPED} others")
        return cls(
            found.name, digest, _moment(created), found.distribution, found.packages, skipped
        )

    def identity(self, form: str) -> uuid.UUID:
        """Return the identifier of the document in the given form, which the image determines."""
        return uuid.uuid5(_NAMESPACE, f"{form} {self.name} {self.digest}")

    def paths_by_purl(self) -> Mapping[str, tuple[InstalledPackage, list[str]]]:
        """Return the packages by their package URLs, each with the databases that list it."""
        from publisher.sbom.purl import package_url

        found: dict[str, tuple[InstalledPackage, list[str]]] = {}
        for each in self.packages:
            purl = package_url(each, self.distribution).to_string()
            found.setdefault(purl, (each, []))[1].append(each.path)
        return dict(sorted(found.items()))


def _moment(created: str) -> datetime:
    """Return when an image was built, to the second."""
    try:
        found = datetime.fromisoformat(created).astimezone(UTC)
    except (ValueError, OverflowError):
        return EPOCH
    return max(found.replace(microsecond=0), EPOCH)


def _skipped(path: str, why: str) -> str:
    return f"{path or 'databases of a layer'}: {why}".encode(errors="replace").decode()
