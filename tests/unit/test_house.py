"""The house itself: what the files in the root say must agree with each other."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.command import succeed

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_dependency_is_pinned_to_a_version_that_it_allows() -> None:
    project = PROJECT["project"]
    requirements = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for extra in project["optional-dependencies"].values():
        requirements += extra
    versions = pinned()
    for requirement in map(Requirement, requirements):
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} does not allow {version}"


def test_plain_make_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    output = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^make ([\w-]+) ", output, re.MULTILINE)
    assert sorted(listed) == sorted(phony.split())


def test_the_readme_lists_the_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    table = set(re.findall(r"^\| `publisher ([a-z-]+)", readme, re.MULTILINE))
    listed = succeed("--help").out.partition("Commands:\n")[2].partition("\n\n")[0]
    assert table == set(re.findall(r"^  ([a-z-]+)", listed, re.MULTILINE))


def test_links_in_the_documents_lead_somewhere() -> None:
    documents = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    documents += (ROOT / "docs").glob("*.md")
    for document in documents:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
