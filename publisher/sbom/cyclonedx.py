"""A bill of materials as CycloneDX 1.6 in JSON: https://cyclonedx.org/docs/1.6/json/."""

from __future__ import annotations

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.output.json import JsonV1Dot6

from publisher.packages.model import InstalledPackage
from publisher.sbom.purl import image_url, package_url
from publisher.sbom.subject import Subject

_ALGORITHMS = {"sha256": HashAlgorithm.SHA_256, "sha512": HashAlgorithm.SHA_512}
_LONGEST_VERSION = 1024
"""The schema allows no more characters."""


def cyclonedx(subject: Subject) -> bytes:
    """Return the document. The databases that list a package are its properties."""
    image = _image(subject)
    metadata = BomMetaData(component=image, timestamp=subject.created)
    components = [
        _component(each, paths, purl, subject)
        for purl, (each, paths) in subject.paths_by_purl().items()
    ]
    if subject.distribution is not None:
        components.append(
            Component(
                type=ComponentType.OPERATING_SYSTEM,
                name=subject.distribution.name,
                version=subject.distribution.version,
                bom_ref="distribution",
            )
        )
    inside = [Dependency(component.bom_ref) for component in components]
    bom = Bom(
        components=components,
        metadata=metadata,
        serial_number=subject.identity("cyclonedx"),
        dependencies=[Dependency(image.bom_ref, inside), *inside],
    )
    # The library registers each component once more, and searches all others for it: with
    # thousands of packages that takes minutes. The list above is complete.
    bom.register_dependency = _is_registered  # type: ignore[method-assign]
    return JsonV1Dot6(bom).output_as_string(indent=1).encode() + b"\n"


def _is_registered(*_: object, **__: object) -> None:
    """Do nothing, in place of `Bom.register_dependency`."""


def _image(subject: Subject) -> Component:
    algorithm, _, value = subject.digest.partition(":")
    return Component(
        type=ComponentType.CONTAINER,
        name=subject.name,
        version=subject.digest,
        bom_ref="image",
        purl=image_url(subject.name, subject.digest),
        hashes=[HashType(alg=_ALGORITHMS[algorithm], content=value)],
        properties=[Property(name="publisher:skipped", value=each) for each in subject.skipped],
    )


def _component(each: InstalledPackage, paths: list[str], purl: str, subject: Subject) -> Component:
    return Component(
        type=ComponentType.LIBRARY,
        name=each.package.name,
        version=each.package.version[:_LONGEST_VERSION],
        bom_ref=purl,
        purl=package_url(each, subject.distribution),
        properties=[
            Property(name="publisher:database", value=path.encode(errors="replace").decode())
            for path in sorted(set(paths))
        ],
    )
