"""A bill of materials as SPDX 2.3 in JSON: https://spdx.github.io/spdx-spec/v2.3/.

The document is a tree of a few keys, so that it is written without a library; the tests compare it
with spdx-tools, which reads and validates it.
"""

from __future__ import annotations

import json

from publisher.packages.model import InstalledPackage
from publisher.sbom.purl import image_url
from publisher.sbom.subject import Subject
from publisher.times import format_time

_ALGORITHMS = {"sha256": "SHA256", "sha512": "SHA512"}
_IMAGE = "SPDXRef-Image"


def spdx(subject: Subject) -> bytes:
    """Return the document. The databases that list a package are its source information."""
    packages = [
        _package(f"SPDXRef-Package-{number}", each, paths, purl)
        for number, (purl, (each, paths)) in enumerate(subject.paths_by_purl().items(), 1)
    ]
    value = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace": f"https://spdx.org/spdxdocs/image-{subject.identity('spdx')}",
        "creationInfo": {
            "created": format_time(subject.created),
            "creators": ["Tool: publisher"],
        },
        "packages": [_image(subject), *packages],
        "relationships": [
            _relationship("SPDXRef-DOCUMENT", "DESCRIBES", _IMAGE),
            *(_relationship(_IMAGE, "CONTAINS", str(each["SPDXID"])) for each in packages),
        ],
    }
    return json.dumps(value, indent=1).encode() + b"\n"


def _image(subject: Subject) -> dict[str, object]:
    algorithm, _, digest = subject.digest.partition(":")
    return {
        **_any_package(_IMAGE, subject.name, subject.digest),
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": _ALGORITHMS[algorithm], "checksumValue": digest}],
        "externalRefs": [_purl(image_url(subject.name, subject.digest).to_string())],
        **({"comment": "skipped: " + "; ".join(subject.skipped)} if subject.skipped else {}),
    }


def _package(
    identifier: str, each: InstalledPackage, paths: list[str], purl: str
) -> dict[str, object]:
    listed = ", ".join(sorted(set(paths))).encode(errors="replace").decode()
    return {
        **_any_package(identifier, each.package.name, each.package.version),
        "sourceInfo": f"listed by {listed}",
        "externalRefs": [_purl(purl)],
    }


def _any_package(identifier: str, name: str, version: str) -> dict[str, object]:
    return {
        "SPDXID": identifier,
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    }


def _purl(text: str) -> dict[str, str]:
    return {
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": text,
    }


def _relationship(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
