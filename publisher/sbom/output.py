"""The output `sbom`: bills of materials beside the manifest of a published image.

They are written by the transaction that publishes the image. If they cannot be made, the image is
published without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from publisher.entry import EntryType
from publisher.errors import PublisherError, install_hint
from publisher.oci.config import ImageConfig
from publisher.repository import Repository
from publisher.repository.image_packages import image_packages
from publisher.sbom.subject import Subject
from publisher.tree import layout

OUTPUT = "sbom"

MOST_PACKAGES = 20_000
"""The most packages of a published document, which takes half a minute of CPU time."""

INSTALL = install_hint("sbom")


class NoBillOfMaterials(PublisherError):
    """The bill of materials of the image `name` cannot be made."""

    def __init__(self, name: str, *, why: str, hint: str = "") -> None:
        super().__init__(f"cannot make the bill of materials of {name}", why=why, hint=hint)
        self.name = name


def missing_library() -> str:
    """Return the name of a Python package that the documents need and that is missing, or ""."""
    try:
        import cyclonedx  # noqa: F401
        import packageurl  # noqa: F401
    except ModuleNotFoundError as error:
        return error.name or "cyclonedx"
    return ""


def has_files(repository: Repository, name: str) -> bool:
    """Return whether the image published as `name` has its documents."""
    files = layout.sbom_files(name)
    return all(repository.kind(path) is EntryType.FILE for path in files)


def bill_of_materials(
    repository: Repository, name: str, digest: str, layers: Sequence[str], config: ImageConfig
) -> Mapping[str, bytes]:
    """Return the documents of an image by their paths in the tree.

    Args:
        repository: Contains the layers, published or staged.
        name: The public name of the image.
        digest: The digest of its manifest.
        layers: The digests of its layers, from bottom to top.
        config: Its config.

    Raises:
        NoBillOfMaterials: It has too many packages, one of its package databases cannot be read at
            the moment, or the extra `sbom` is not installed.
        LayerError: The index of a layer is damaged.
        RepositoryChanged: A layer is neither published nor staged any more.
        RepositoryError: The tree of a layer has to be read, and the repository is not mounted.
    """
    missing = missing_library()
    if missing:
        why = f"the Python package {missing} is missing"
        raise NoBillOfMaterials(name, why=why, hint=INSTALL)
    from publisher.sbom.cyclonedx import cyclonedx
    from publisher.sbom.spdx import spdx

    found = image_packages(repository, name, layers)
    if found.unreadable:
        why = next(each.why for each in found.skipped)
        raise NoBillOfMaterials(name, why=f"a package database is not readable: {why}")
    if len(found.packages) > MOST_PACKAGES:
        raise NoBillOfMaterials(name, why=f"it has more than {MOST_PACKAGES} packages")
    subject = Subject.of(digest, config.created, found)
    documents = (cyclonedx(subject), spdx(subject))
    return dict(zip(layout.sbom_files(name), documents, strict=True))
