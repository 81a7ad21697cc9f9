"""The bill of materials of a published image: the use case behind `publisher sbom`."""

from __future__ import annotations

from publisher.browse.packages import packages_of
from publisher.errors import InvalidManifest
from publisher.oci.config import parse_config
from publisher.repository import Repository
from publisher.repository.damaged import read_damaged
from publisher.repository.image_packages import ImagePackages
from publisher.repository.published import PublishedImage, find_name, load_image
from publisher.sbom.subject import Subject
from publisher.tree import layout


def image_subject(repository: Repository, text: str) -> tuple[Subject, ImagePackages]:
    """Return what the documents about a published image are made from, and its packages.

    Args:
        repository: Opened for reading.
        text: A published name, or an image reference.

    Raises: as `publisher.browse.packages.image_packages`.
    """
    image = load_image(repository, find_name(repository, text))
    found = packages_of(repository, image)
    return Subject.of(image.manifest_digest, _created(repository, image), found), found


def _created(repository: Repository, image: PublishedImage) -> str:
    """Return when the image was built, as its config has it; "" if that is unreadable."""
    data = read_damaged(repository, layout.config_file(image.name))
    try:
        assert image.manifest is not None
        return parse_config(data or b"", image.manifest.image_id).created
    except InvalidManifest:
        return ""
