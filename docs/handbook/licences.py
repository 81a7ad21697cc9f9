"""The licences of the packages that an installed publisher consists of, from their metadata.

.venv/bin/python -m docs.handbook.licences > docs/licences.md
"""

from __future__ import annotations

import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs.handbook.text import cell, table

_NOT_INSTALLED_BY_USERS = {"dev", "docs", "deploy-tests"}
_CLASSIFIER = "License :: OSI Approved :: "
_LONGEST = 60


def dependencies() -> dict[str, metadata.Distribution]:
    """Return all packages that the publisher and its extras need, at any depth, by their names."""
    found: dict[str, metadata.Distribution] = {}
    own = metadata.distribution("publisher")
    extras = set(own.metadata.get_all("Provides-Extra") or ()) - _NOT_INSTALLED_BY_USERS
    waiting = [(own, extra) for extra in ("", *sorted(extras))]
    seen = set()
    while waiting:
        package, extra = waiting.pop()
        for requirement in map(Requirement, package.requires or ()):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            name = canonicalize_name(requirement.name)
            found.setdefault(name, metadata.distribution(name))
            for each in ("", *requirement.extras):
                if (name, each) not in seen:
                    seen.add((name, each))
                    waiting.append((found[name], each))
    return found


def licence(package: metadata.Distribution) -> str:
    """Return the licence that the metadata of a package states, or "unknown"."""
    about = package.metadata
    if "License-Expression" in about:
        return str(about["License-Expression"])
    classifiers = about.get_all("Classifier") or ()
    named = [each.removeprefix(_CLASSIFIER) for each in classifiers if _CLASSIFIER in each]
    if named:
        return ", ".join(named)
    text = (about.get_all("License") or [""])[0].strip().partition("\n")[0]
    return text if text and len(text) <= _LONGEST else "unknown"


def licences_page() -> str:
    """Return the page with the licences."""
    rows = [
        (cell(str(package.metadata["Name"])), package.version, cell(licence(package)))
        for _, package in sorted(dependencies().items())
    ]
    return (
        "# Licences of the dependencies\n\n"
        "The publisher is under the licence [Apache-2.0](../LICENSE). It needs these packages of\n"
        "Python, with all of its extras; none of their code is part of it. The versions are those\n"
        "of `constraints.txt`. `python -m docs.handbook.licences` makes the table, from what the\n"
        "packages state.\n\n" + table(("package", "version", "licence"), rows)
    )


def unknown() -> list[str]:
    """Return the packages without a licence in their metadata."""
    return [name for name, package in dependencies().items() if licence(package) == "unknown"]


if __name__ == "__main__":
    sys.stdout.write(licences_page())
