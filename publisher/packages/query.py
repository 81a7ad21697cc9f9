"""The text of a search for packages: "openssl<3.0.15", "pypi:numpy>=1.20,<2", "lib*"."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping

from publisher.errors import PublisherError, presentable
from publisher.lazy import dataclass, pattern
from publisher.packages.model import LONGEST_TEXT, PACKAGE_TYPES, Package, PackageType
from publisher.packages.orders import Order
from publisher.packages.versions import compare, without_details

_OPERATORS: Mapping[str, Callable[[Order], bool]] = {
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    "=": lambda order: order == 0,
    "==": lambda order: order == 0,
    "!=": lambda order: order != 0,
    ">=": lambda order: order >= 0,
    ">": lambda order: order > 0,
}
_TEXT = pattern(
    rf"\s*(?:(?P<type>{'|'.join(PACKAGE_TYPES)}):)?(?P<name>[^<>=!,\s]+)\s*(?P<conditions>.*)",
    re.DOTALL,
)
_CONDITION = pattern(r"\s*(<=|>=|==|!=|<|>|=)\s*([^<>=!,\s]+)\s*")
_RPM_SOURCE = pattern(r"(?P<name>.+)-[^-]+-[^-]+\.(?:src|nosrc)\.rpm")
_SEPARATORS = pattern(r"[-_.]+")


class InvalidQuery(PublisherError):
    """The text is not a search for packages. `text` is the text."""

    def __init__(
        self, text: str, why: str = "expected [TYPE:]NAME, and conditions on the version"
    ) -> None:
        super().__init__(
            f"cannot search for the package {presentable(text)!r}",
            why=why,
            hint="for example 'openssl<3.0.15', 'pypi:numpy>=1.20,<2', or 'libssl*'",
        )
        self.text = text


@dataclass(frozen=True, slots=True)
class PackageQuery:
    """A search. `type` is None for all types; `conditions` are pairs of operator and version."""

    type: PackageType | None
    name: str
    conditions: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> PackageQuery:
        """Read a query.

        Raises:
            InvalidQuery: The text is not one.
        """
        match = _TEXT.fullmatch(text)
        if match is None or len(text) > LONGEST_TEXT:
            raise InvalidQuery(text)
        # No package has such a name: without an error, a search for a mistake finds nothing.
        if ":" in match["name"]:
            raise InvalidQuery(text, f"the types of packages are {', '.join(PACKAGE_TYPES)}")
        if match["name"].endswith("~") and match["conditions"].startswith("="):
            raise InvalidQuery(text, "the conditions are <, <=, =, !=, >= and >; there is no ~=")
        conditions = []
        for part in match["conditions"].split(",") if match["conditions"] else ():
            condition = _CONDITION.fullmatch(part)
            if condition is None:
                raise InvalidQuery(text)
            conditions.append((condition[1], condition[2]))
        kind = PackageType(match["type"]) if match["type"] else None
        return cls(kind, match["name"], tuple(conditions))

    def matches(self, kind: PackageType, package: Package) -> bool:
        """Return whether a package of type `kind` is searched for.

        The name is a glob for the package or its source package. A version without an epoch or a
        revision is compared without those of the package.
        """
        if kind is not (self.type or kind) or kind is PackageType.OS:
            return False
        return self._has_name(kind, package) and all(
            _OPERATORS[operator](
                compare(kind, without_details(kind, package.version, version), version)
            )
            for operator, version in self.conditions
        )

    def _has_name(self, kind: PackageType, package: Package) -> bool:
        if kind is PackageType.PYTHON:
            return fnmatch.fnmatchcase(_normalized(package.name), _normalized(self.name))
        source = package.source
        if kind is PackageType.RPM and (match := _RPM_SOURCE.fullmatch(source)):
            source = match["name"]
        return any(fnmatch.fnmatchcase(name, self.name) for name in (package.name, source) if name)


def _normalized(name: str) -> str:
    """Return the normalized name of a Python distribution (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()
