"""The contents of images: which have pages about them, and what these contain."""

from __future__ import annotations

from publisher.browse.contents import flat_entries
from publisher.browse.packages import packages_of
from publisher.errors import PublisherError
from publisher.oci.manifest import Manifest
from publisher.repository import Repository
from publisher.repository.published import PublishedImage
from publisher.site import addresses
from publisher.site.facts import distinct
from publisher.site.files import MOST_ENTRIES, files_pages
from publisher.site.pages import FilesPage, PackageRow, PackagesPage
from publisher.site.survey import Survey

_MOST_PACKAGES = 10_000
"""The most packages of one image that its page lists."""


def detailed_images(survey: Survey, limit: int) -> dict[str, PublishedImage]:
    """Return the images that have pages about their contents, by manifest digest.

    They are the ones that were published last, as many as have `limit` entries together, so that
    neither time nor space grows with the repository. An image that is too large is left out.
    """
    chosen: dict[str, PublishedImage] = {}
    images = [image for image in survey.images.values() if image.manifest and image.publication]
    images.sort(key=_published, reverse=True)
    for image in images:
        entries = _count_entries(survey, image.manifest)
        if image.manifest_digest in chosen or entries is None or entries > MOST_ENTRIES:
            continue
        limit -= entries
        if limit < 0:
            break
        chosen[image.manifest_digest] = image
    return chosen


def _published(image: PublishedImage) -> tuple[str, str]:
    moment = image.publication.published_at.isoformat() if image.publication else ""
    return moment, image.name


def _count_entries(survey: Survey, manifest: Manifest | None) -> int | None:
    if manifest is None or any(layer.digest not in survey.sizes for layer in manifest.layers):
        return None
    return sum(survey.sizes[layer.digest].entries for layer in manifest.layers)


def image_files(repository: Repository, image: PublishedImage) -> list[tuple[str, FilesPage]]:
    """Return path and contents of the pages about an image's files; empty if they are unknown."""
    assert image.manifest is not None
    try:
        entries = list(flat_entries(repository, image.manifest))
    except (PublisherError, OSError):
        return []  # `publisher verify` reports it
    return files_pages(entries, addresses.contents(image.manifest_digest))


def image_packages(repository: Repository, image: PublishedImage) -> PackagesPage:
    """Return the page about the packages of an image."""
    try:
        found = packages_of(repository, image)
    except (PublisherError, OSError) as error:
        return PackagesPage((), (), "", (str(error),))
    rows = tuple(
        PackageRow(
            str(each.type),
            each.package.name,
            each.package.version,
            each.package.source,
            each.path,
        )
        for each in found.packages[:_MOST_PACKAGES]
    )
    skipped = [f"{each.path}: {each.why}" for each in found.skipped]
    if len(found.packages) > len(rows):
        skipped.append(f"{len(found.packages) - len(rows)} further packages are not shown")
    system = found.distribution
    return PackagesPage(
        rows,
        distinct(row.type for row in rows),
        f"{system.name} {system.version}" if system else "",
        tuple(skipped),
    )
