"""The packages of published images, and what differs between two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from publisher.browse.contents import Change, layer_index, manifest_of
from publisher.lazy import dataclass
from publisher.packages.model import PackageType
from publisher.repository import Repository
from publisher.repository.image_packages import ImageLayers, ImagePackages
from publisher.repository.image_packages import image_packages as packages_in
from publisher.repository.published import PublishedImage, find_name, load_image


@dataclass(frozen=True, slots=True)
class PackageChange:
    """A package whose versions differ between two images; sorted, empty if it is missing."""

    type: PackageType
    name: str
    old: tuple[str, ...]
    new: tuple[str, ...]

    @property
    def kind(self) -> Change:
        """Whether it was added, removed or changed."""
        if not self.old:
            return Change.ADDED
        return Change.CHANGED if self.new else Change.REMOVED


def image_packages(repository: Repository, text: str) -> ImagePackages:
    """Return the packages of one published image.

    Args:
        repository: Opened for reading.
        text: A published name, or an image reference.

    Raises:
        NotPublished: The image is not published.
        NoContents: Its manifest, or a layer or its index, is missing.
        RepositoryError: Databases have to be read from the tree, which is not mounted.
    """
    return packages_of(repository, load_image(repository, find_name(repository, text)))


def packages_of(repository: Repository, image: PublishedImage) -> ImagePackages:
    """Return the packages of `image`; see `image_packages`."""
    digests = [layer.digest for layer in manifest_of(image).layers]
    return packages_of_layers(repository, image.name, digests)


def packages_of_layers(
    repository: Repository, name: str, digests: Sequence[str], reader: ImageLayers | None = None
) -> ImagePackages:
    """Return the packages of the image with these layers; see `image_packages`.

    Args:
        repository: Opened for reading.
        name: The name of the image.
        digests: Its layers, from bottom to top.
        reader: Reads the layers of several images.
    """
    for digest in digests:
        layer_index(repository, digest)  # raises NoContents
    return packages_in(repository, name, digests, reader)


def diff_packages(repository: Repository, old: str, new: str) -> list[PackageChange]:
    """Return the packages that differ between two images, by type and name.

    Raises: as `image_packages`.
    """
    return package_changes(*(image_packages(repository, each) for each in (old, new)))


def package_changes(old: ImagePackages, new: ImagePackages) -> list[PackageChange]:
    """Return the packages that differ between two lists, by type and name."""
    before, after = _versions(old), _versions(new)
    keys = sorted(before.keys() | after.keys())
    changes = (PackageChange(*key, before.get(key, ()), after.get(key, ())) for key in keys)
    return [change for change in changes if change.old != change.new]


def _versions(image: ImagePackages) -> Mapping[tuple[PackageType, str], tuple[str, ...]]:
    found: dict[tuple[PackageType, str], set[str]] = {}
    for each in image.packages:
        found.setdefault((each.type, each.package.name), set()).add(each.package.version)
    return {key: tuple(sorted(versions)) for key, versions in found.items()}
