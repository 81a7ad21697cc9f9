"""Package URLs: https://github.com/package-url/purl-spec, and its definitions of types."""

from __future__ import annotations

import re
from contextlib import suppress

from packageurl import PackageURL

from publisher.packages.model import InstalledPackage, Package, PackageType
from publisher.packages.orders import split_evr
from publisher.tree import layout

_DISTRIBUTIONS = {PackageType.DEB: "debian", PackageType.APK: "alpine"}
"""The vendor of packages in an image whose distribution is unknown."""


def package_url(each: InstalledPackage, distribution: Package | None) -> PackageURL:
    """Return the package URL of an installed package.

    Args:
        each: The package.
        distribution: The distribution of the image, which is the vendor of its packages.
    """
    with suppress(ValueError, TypeError):
        url = _package_url(each.type, each.package, distribution)
        if url.name and PackageURL.from_string(url.to_string()) == url:
            return url
    # A name of slashes, for example, which no package manager accepts.
    return PackageURL("generic", None, f"_{each.package.name}_", each.package.version)


def _package_url(kind: PackageType, package: Package, distribution: Package | None) -> PackageURL:
    match kind:
        case PackageType.DEB | PackageType.APK | PackageType.RPM:
            return _of_distribution(kind, package, distribution)
        case PackageType.NPM:
            scope, slash, name = package.name.rpartition("/")
            return PackageURL(
                "npm", scope if slash else None, name or package.name, package.version
            )
        case PackageType.CONDA:
            qualifiers = {
                "build": package.build,
                "channel": package.channel,
                "subdir": package.architecture,
            }
            return PackageURL("conda", None, package.name, package.version, qualifiers)
        case _:
            return PackageURL(str(kind), None, package.name, package.version)


def _of_distribution(
    kind: PackageType, package: Package, distribution: Package | None
) -> PackageURL:
    vendor = distribution.name if distribution else _DISTRIBUTIONS.get(kind)
    qualifiers = {"arch": package.architecture}
    if distribution is not None:
        qualifiers["distro"] = f"{distribution.name}-{distribution.version}"
    version = package.version
    if kind is PackageType.RPM:
        epoch, upstream, release = split_evr(version)
        qualifiers["epoch"] = epoch or ""
        version = upstream if release is None else f"{upstream}-{release}"
    return PackageURL(str(kind), vendor, package.name, version, qualifiers)


def image_url(name: str, digest: str) -> PackageURL:
    """Return the package URL of an image.

    Args:
        name: The public name: "registry.example.org/team/tool:1.0".
        digest: The digest of its manifest.
    """
    path, _, last = name.rpartition("/")
    repository, _, tag = re.sub(r"@.*", "", last, flags=re.DOTALL).partition(":")
    # A name without a registry ("local/tool:1") has no address.
    is_local = name.startswith(f"{layout.LOCAL}/")
    address = "" if is_local or not path else f"{path}/{repository}".lower()
    return PackageURL("oci", None, repository, digest, {"repository_url": address, "tag": tag})
