"""Bills of materials are accepted by validators, name packages by their URLs, and never change."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packageurl import PackageURL

from publisher.packages.model import InstalledPackage, Package, PackageType
from publisher.sbom.cyclonedx import cyclonedx
from publisher.sbom.purl import image_url, package_url
from publisher.sbom.spdx import spdx
from publisher.sbom.subject import EPOCH, Subject
from tests.bills import valid_cyclonedx, valid_spdx

DEBIAN = Package("debian", "12")
STATUS = "var/lib/dpkg/status"
HOSTILE = "<b>\u202e\x1b[31m" + "x" * 4000


def subject(*packages: InstalledPackage, distribution: Package | None = DEBIAN) -> Subject:
    name = "registry.example.org:5000/team/tool:1.0"
    created = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Subject(name, "sha256:" + "0f" * 32, created, distribution, packages)


PACKAGES = (
    InstalledPackage(PackageType.DEB, Package("libssl3", "1:3.0-1+b1", "amd64", "openssl"), STATUS),
    InstalledPackage(PackageType.PYTHON, Package("Ruamel_Yaml", "1.0"), "a/METADATA"),
    InstalledPackage(PackageType.PYTHON, Package("Ruamel_Yaml", "1.0"), "b\udce9/METADATA"),
    InstalledPackage(PackageType.NPM, Package(HOSTILE, HOSTILE), "c"),
)


def test_cyclonedx_accepts_the_document() -> None:
    value = valid_cyclonedx(cyclonedx(subject(*PACKAGES)))
    image = value["metadata"]["component"]
    assert image["type"] == "container"
    assert image["version"] == "sha256:" + "0f" * 32
    assert image["hashes"] == [{"alg": "SHA-256", "content": "0f" * 32}]
    assert value["metadata"]["timestamp"] == "2026-01-02T03:04:05+00:00"
    found = {each["name"]: each for each in value["components"]}
    assert found.keys() == {"libssl3", "Ruamel_Yaml", "debian", HOSTILE}
    assert found["debian"]["type"] == "operating-system"
    assert found["libssl3"]["purl"] == (
        "pkg:deb/debian/libssl3@1:3.0-1%2Bb1?arch=amd64&distro=debian-12"
    )
    # One package that two databases list is one component.
    assert [each["value"] for each in found["Ruamel_Yaml"]["properties"]] == [
        "a/METADATA",
        "b?/METADATA",
    ]
    dependencies = {each["ref"]: each.get("dependsOn", []) for each in value["dependencies"]}
    assert len(dependencies["image"]) == 4


def test_spdx_tools_accepts_the_document() -> None:
    value = valid_spdx(spdx(subject(*PACKAGES)))
    assert value["creationInfo"]["created"] == "2026-01-02T03:04:05Z"
    image, *packages = value["packages"]
    assert image["primaryPackagePurpose"] == "CONTAINER"
    assert {each["name"] for each in packages} == {"libssl3", "Ruamel_Yaml", HOSTILE}
    purls = {each["externalRefs"][0]["referenceLocator"] for each in packages}
    assert "pkg:pypi/ruamel-yaml@1.0" in purls
    described = [each["relatedSpdxElement"] for each in value["relationships"]]
    assert described == ["SPDXRef-Image", *(f"SPDXRef-Package-{n}" for n in (1, 2, 3))]


def test_documents_depend_on_the_image_alone() -> None:
    for write in (cyclonedx, spdx):
        assert write(subject(*PACKAGES)) == write(subject(*PACKAGES))
        other = Subject("local/tool:1", "sha512:" + "0f" * 64, EPOCH, None, ())
        assert write(other) != write(subject())
    value = valid_cyclonedx(cyclonedx(other))
    assert uuid.UUID(value["serialNumber"].removeprefix("urn:uuid:")) == other.identity("cyclonedx")
    assert valid_spdx(spdx(other))["creationInfo"]["created"] == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("kind", "package", "distribution", "expected"),
    [
        # The examples of the definitions of types.
        ("deb", Package("curl", "7.50.3-1", "i386"), Package("debian", "8"),
         "pkg:deb/debian/curl@7.50.3-1?arch=i386&distro=debian-8"),
        ("rpm", Package("curl", "1:7.50.3-1.fc25", "i386"), Package("fedora", "25"),
         "pkg:rpm/fedora/curl@7.50.3-1.fc25?arch=i386&distro=fedora-25&epoch=1"),
        ("apk", Package("apk", "2.12.9-r3", "x86"), None, "pkg:apk/alpine/apk@2.12.9-r3?arch=x86"),
        ("pypi", Package("Django_Allauth", "12.23"), DEBIAN, "pkg:pypi/django-allauth@12.23"),
        ("npm", Package("@angular/animation", "12.3.1"), None,
         "pkg:npm/%40angular/animation@12.3.1"),
        ("cran", Package("A3", "1.0.0"), None, "pkg:cran/A3@1.0.0"),
        ("conda", Package("absl-py", "0.4.1", "linux-64", "", "py36h06a4308_0", "main"), None,
         "pkg:conda/absl-py@0.4.1?build=py36h06a4308_0&channel=main&subdir=linux-64"),
    ],
)  # fmt: skip
def test_package_urls_are_those_of_the_specification(
    kind: str, package: Package, distribution: Package | None, expected: str
) -> None:
    each = InstalledPackage(PackageType(kind), package, "")
    assert package_url(each, distribution).to_string() == expected


def test_images_have_package_urls() -> None:
    digest = "sha256:" + "0f" * 32
    quoted = digest.replace(":", "%3A") if "%3A" in image_url("a:1", digest).to_string() else digest
    assert image_url("docker.io/library/debian:latest", digest).to_string() == (
        f"pkg:oci/debian@{quoted}?repository_url=docker.io/library/debian&tag=latest"
    )
    assert image_url("local/tool:2", digest).to_string() == f"pkg:oci/tool@{quoted}?tag=2"
    assert image_url(f"quay.io/a/b@{digest}", digest).qualifiers == {
        "repository_url": "quay.io/a/b"
    }


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from([each for each in PackageType if each is not PackageType.OS]),
    texts=st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=8)] * 4),
)
def test_every_package_has_a_url_and_is_in_valid_documents(
    kind: PackageType, texts: tuple[str, str, str, str]
) -> None:
    name, version, architecture, distribution = texts
    package = Package(name or "/", version or "@", architecture, "", version, distribution)
    each = InstalledPackage(kind, package, name)
    made = subject(each, distribution=Package(distribution or "?", version or " "))
    purl = package_url(each, made.distribution).to_string()
    assert PackageURL.from_string(purl).to_string() == purl
    assert len(json.loads(cyclonedx(made))["components"]) == 2
    assert len(json.loads(spdx(made))["packages"]) == 2
