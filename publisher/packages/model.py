"""Packages, the databases that list them, and the limits of both."""

from __future__ import annotations

import enum
import os
from typing import Annotated

from publisher.codec import Check, omit_default
from publisher.lazy import dataclass

LONGEST_TEXT = 4096
"""The most characters of a name or version."""

MOST_PACKAGES = 100_000
"""The most packages of one database, and of one layer."""

MOST_CHARACTERS = 2**25
"""The most characters of all texts of the packages of one layer."""

MOST_DATABASES = 50_000
"""The most databases of one layer. Each Python distribution is one."""


class PackageType(enum.StrEnum):
    """The package manager; the values are those of package URLs, except for `OS`.

    `OS` is the distribution itself, as os-release names it.
    """

    DEB = "deb"
    APK = "apk"
    RPM = "rpm"
    PYTHON = "pypi"
    CONDA = "conda"
    R = "cran"
    NPM = "npm"
    OS = "os"


PACKAGE_TYPES = tuple(str(each) for each in PackageType if each is not PackageType.OS)
_TYPES = frozenset(map(str, PackageType))
_TYPE = Check(_TYPES.__contains__, "is not a type of packages")


def is_short(text: str) -> bool:
    """Return whether a text of a package is not too long, and can be encoded in UTF-8."""
    try:
        return len(text) <= LONGEST_TEXT and bool(text.isascii() or text.encode())
    except UnicodeEncodeError:
        return False


def is_path(text: str) -> bool:
    """Return whether a text is a path in a layer, and can be a name of the file system."""
    try:
        return "\0" not in text and {b"", b".", b".."}.isdisjoint(os.fsencode(text).split(b"/"))
    except UnicodeEncodeError:
        return False


_PATH = Check(is_path, "is not a path in a layer")
_SHORT = Check(is_short, "is too long, or not Unicode")
_NAME = Check(lambda text: bool(text) and is_short(text), "is empty, too long, or not Unicode")


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One installed package, as its database describes it.

    Attributes:
        name: The name; of npm with its scope ("@scope/name").
        version: The full version: of dpkg and rpm with epoch and revision ("1:2.3-4").
        architecture: The architecture, or "".
        source: The source package, or "" if it has the same name or none.
        build: The build of Conda ("py311h5eee18b_0"), or "".
        channel: The channel of Conda, or "".
    """

    name: Annotated[str, _NAME]
    version: Annotated[str, _SHORT]
    architecture: Annotated[str, _SHORT] = omit_default("")
    source: Annotated[str, _SHORT] = omit_default("")
    build: Annotated[str, _SHORT] = omit_default("")
    channel: Annotated[str, _SHORT] = omit_default("")

    def is_valid(self) -> bool:
        """Return whether it has a name and a version, and no text is too long."""
        return bool(self.name and self.version) and all(map(is_short, self._texts()))

    def characters(self) -> int:
        """Return the length of all texts together."""
        return sum(map(len, self._texts()))

    def _texts(self) -> tuple[str, ...]:
        return (
            *(self.name, self.version, self.architecture),
            *(self.source, self.build, self.channel),
        )


@dataclass(frozen=True, slots=True)
class InstalledPackage:
    """A package of an image, and the database that lists it, as a path in the image."""

    type: PackageType
    package: Package
    path: str

    def order(self) -> tuple[str, Package, str]:
        """Return a key that sorts by type, name, version and path."""
        return str(self.type), self.package, self.path


@dataclass(frozen=True, slots=True)
class Database:
    """The packages that one file lists. `path` is relative to the root of the layer.

    `skipped` is why the file, or a part of it, was not read; "" if all of it was read.
    """

    path: Annotated[str, _PATH]
    type: Annotated[str, _TYPE]
    packages: tuple[Package, ...] = ()
    skipped: Annotated[str, _SHORT] = omit_default("")

    def characters(self) -> int:
        """Return the length of all texts of the packages together."""
        return sum(package.characters() for package in self.packages)


@dataclass(frozen=True, slots=True)
class LayerPackages:
    """All databases of one layer, sorted by path.

    Attributes:
        skipped: Why some were left out, or "".
        unreadable: The paths of those that the file system, or the permissions of their files,
            hide at the moment.
    """

    databases: tuple[Database, ...] = ()
    skipped: str = ""
    unreadable: frozenset[str] = frozenset()


class UnreadableDatabase(ValueError):
    """A database is malformed, too large, or in a format that is not read. The text is why."""
