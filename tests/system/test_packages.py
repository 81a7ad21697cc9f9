"""The packages of Debian with Python and numpy are those that its own programs list."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from publisher.browse.packages import image_packages
from publisher.packages.model import Package
from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree.layout import RepositoryURL
from tests.command import succeed
from tests.components import program, run
from tests.real_image import PACKAGES, RealImages

pytestmark = pytest.mark.system


def test_the_packages_of_a_real_image_are_those_that_dpkg_and_pip_list(
    real_images: RealImages, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    succeed("ingest-image", real_images.source("numpy"), "--repository", images)
    repository = DirectoryRepository(RepositoryURL.parse(f"dir:{images}"), writable=False)
    (name,) = repository.names()
    found = image_packages(repository, name)
    assert found.distribution == Package("debian", "12")
    assert found.skipped == ()

    form = "${db:Status-Status} ${Package} ${Version} ${Architecture} ${source:Package}\n"
    database = f"--admindir={images / name}/var/lib/dpkg"
    listed = run(program("dpkg-query"), database, "-W", f"-f={form}").splitlines()
    shown = [each.package for each in found.packages if each.type == "deb"]
    assert sorted(
        f"installed {p.name} {p.version} {p.architecture} {p.source or p.name}" for p in shown
    ) == sorted(line for line in listed if line.startswith("installed "))
    assert len(shown) > 80

    pip = [sys.executable, "-m", "pip", "list", "--format=json"]
    by_pip = json.loads(run(*pip, f"--path={images / name}{PACKAGES}"))
    python = [each.package for each in found.packages if each.type == "pypi"]
    assert {(p.name, p.version) for p in python} == {(p["name"], p["version"]) for p in by_pip}
    assert "numpy" in {each.name for each in python}

    document = succeed("sbom", name, "--repository", images).out
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document) is None
    assert "pkg:deb/debian/bash@" in document
