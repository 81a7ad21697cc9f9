"""What a bill of materials is made from."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from publisher.packages.model import InstalledPackage, Package

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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
    """

    name: str
    digest: str
    created: datetime
    distribution: Package | None
    packages: Sequence[InstalledPackage]

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
