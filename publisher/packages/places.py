"""Which files of an image are package databases, by their paths."""

from __future__ import annotations

import enum
import re

from publisher.lazy import dataclass, pattern
from publisher.packages.model import PackageType

_MIB = 2**20


class Format(enum.Enum):
    """The format of a database."""

    DPKG = "dpkg"
    APK = "apk"
    RPM_SQLITE = "rpmdb.sqlite"
    RPM_NDB = "Packages.db"
    RPM_BERKELEY = "Packages"
    RPM_WAL = "rpmdb.sqlite-wal"
    PYTHON = "METADATA"
    CONDA = "conda-meta"
    R = "DESCRIPTION"
    NPM = "package.json"
    OS = "os-release"


@dataclass(frozen=True, slots=True)
class Place:
    """What a path is. Of a file with more than `limit` bytes, only these are read if `head`."""

    format: Format
    type: PackageType
    limit: int
    head: bool = False


_RPM = r"(?:var/lib/rpm|usr/lib/sysimage/rpm|usr/share/rpm)"
_PYTHON = r"(?:.*/)?(?:site|dist)-packages/"
_PATTERNS = (
    (r"var/lib/dpkg/(?:status|status\.d/(?![^/]*\.md5sums$)[^/]+)",
     Place(Format.DPKG, PackageType.DEB, 64 * _MIB)),
    (r"(?:usr/)?lib/apk/db/installed", Place(Format.APK, PackageType.APK, 128 * _MIB)),
    (rf"{_RPM}/rpmdb\.sqlite", Place(Format.RPM_SQLITE, PackageType.RPM, 256 * _MIB)),
    (rf"{_RPM}/Packages\.db", Place(Format.RPM_NDB, PackageType.RPM, 256 * _MIB)),
    (rf"{_RPM}/Packages", Place(Format.RPM_BERKELEY, PackageType.RPM, 0, head=True)),
    (rf"{_RPM}/rpmdb\.sqlite-wal", Place(Format.RPM_WAL, PackageType.RPM, 1, head=True)),
    (rf"{_PYTHON}(?:[^/]+\.dist-info/METADATA|[^/]+\.egg-info(?:/PKG-INFO)?"
     r"|[^/]+\.egg/EGG-INFO/PKG-INFO)",
     Place(Format.PYTHON, PackageType.PYTHON, _MIB // 4, head=True)),
    (r"(?:.*/)?conda-meta/[^/]+\.json", Place(Format.CONDA, PackageType.CONDA, 16 * _MIB)),
    (r"(?:.*/)?R/(?:site-)?library/[^/]+/DESCRIPTION",
     Place(Format.R, PackageType.R, _MIB // 4, head=True)),
    (r"(?:(?!node_modules/)[^/]+/)*lib/node_modules/(?:@[^/]+/)?[^/@][^/]*/package\.json",
     Place(Format.NPM, PackageType.NPM, _MIB)),
    (r"(?:etc|usr/lib)/os-release", Place(Format.OS, PackageType.OS, _MIB // 16, head=True)),
)  # fmt: skip
_COMPILED = tuple((pattern(text, re.DOTALL), place) for text, place in _PATTERNS)

_NAMES = frozenset(
    {
        *("status", "installed", "rpmdb.sqlite", "rpmdb.sqlite-wal", "Packages", "Packages.db"),
        *("METADATA", "PKG-INFO", "DESCRIPTION", "package.json", "os-release"),
    }
)
_ENDINGS = (".egg-info", ".json")
_STATUS_FILES = "var/lib/dpkg/status.d/"
_CACHE = pattern(r"(?:^|/)pkgs/[^/]+/")
"""A directory of Conda in which packages are kept, not installed."""


def place_of(path: str, *, also_cached: bool = False) -> Place | None:
    """Return what the file at `path` is; None if it is not a package database.

    Args:
        path: Relative to the root of the layer or image.
        also_cached: Whether files of packages that Conda keeps, and has not installed, count. The
            files of installed packages are hard links to them.
    """
    if is_likely(path):
        for compiled, place in _COMPILED:
            if compiled.fullmatch(path):
                return None if _CACHE.search(path) and not also_cached else place
    return None


def is_likely(path: str) -> bool:
    """Return False, fast, for nearly all paths that are not package databases.

    The path may be encoded as in a layer index.
    """
    name = path[path.rfind("/") + 1 :]
    return name in _NAMES or name.endswith(_ENDINGS) or path.startswith(_STATUS_FILES)
