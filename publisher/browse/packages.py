"""The packages of published images, and what differs between two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from publisher.browse.contents import Change, layer_index, manifest_of
from publisher.lazy import dataclass
from publisher.packages.model import LayerPackages, PackageType
from publisher.repository import Repository
from publisher.repository.image_packages import ImagePackages
from publisher.repository.image_packages import image_packages as packages_of_layers
from publisher.repository.packages import layer_packages
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


def packages_of(
    repository: Repository,
    image: PublishedImage,
    read: Callable[[str], LayerPackages] | None = None,
) -> ImagePackages:
    """Return the packages of `image`; see `image_packages`.

    Args:
        repository: Opened for reading.
        image: The image.
        read: Returns the packages of a layer, such as `RememberedLayers`.
    """
    digests = [layer.digest for layer in manifest_of(image).layers]
    for digest in digests:
        layer_index(repository, digest)  # raises NoContents
    return packages_of_layers(repository, image.name, digests, read)


class RememberedLayers:
    """Reads the packages of layers; the indexes of those without databases once only.

    Most images of a repository have such layers in common. The packages of others are not kept.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._without: set[str] = set()

    def read(self, digest: str) -> LayerPackages:
        """Return the packages of a layer; see `publisher.repository.packages.layer_packages`."""
        if digest in self._without:
            return LayerPackages()
        found = layer_packages(self._repository, digest)
        if found == LayerPackages():
            self._without.add(digest)
        return found


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
