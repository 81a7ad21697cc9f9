"""The output `sbom`: published with the image, replaced, collected, restored, verified."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from publisher.sbom import output
from publisher.tree import layout
from tests.any_repository import KINDS, AnyRepository, make_repository
from tests.bills import valid_cyclonedx, valid_spdx
from tests.command import Result, run_here
from tests.layer_builder import Image, file, image, layer, whiteout
from tests.layer_builder import write_layout as write
from tests.package_databases import APK

NAME = "local/tool:1"
STATUS = (
    b"Package: tool\nStatus: install ok installed\nVersion: 2.0-1\nArchitecture: amd64\n\n"
    b"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: amd64\n"
)
BASE = layer(
    file("usr/lib/os-release", b"ID=debian\nVERSION_ID=12\n"),
    file("var/lib/dpkg/status", STATUS),
    file("lib/apk/db/installed", APK),
)
FIRST = image(BASE, layer(whiteout("lib/apk/db/installed")))
SECOND = image(
    BASE,
    layer(file("var/lib/rpm/Packages", b"an old database of rpm")),
)


class Stage:
    """A repository of one kind, and the wish that is published into it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.published: AnyRepository = make_repository(kind, folder)

    def run(self, *words: str | Path, code: int = 0) -> Result:
        place = ("--repository", self.published.url)
        done = run_here(*words, *place, env={"HOME": str(self.folder), **self.published.env})
        assert done.code == code, f"{done.out}\n{done.err}"
        return done

    def ingest(self, built: Image, outputs: str, code: int = 0) -> list[str]:
        write(built, self.folder / "layout", "1")
        wishes = self.folder / "wishes.yaml"
        source = f"oci:{self.folder}/layout:1"
        wish = f"{{image: '{source}', name: tool, outputs: [{outputs}]}}"
        wishes.write_text(f"version: 2\nimages:\n  - {wish}\n")
        done = self.run("ingest", wishes, "--output", "json", code=code)
        return [each["status"] for each in done.json["outcomes"]]

    def documents(self) -> list[bytes]:
        paths = [self.published.root / path for path in layout.sbom_files(NAME)]
        return [path.read_bytes() for path in paths if path.exists()]

    def printed(self, code: int = 0) -> list[bytes]:
        forms = ("cyclonedx", "spdx")
        found = [self.run("sbom", NAME, "--format", form, code=code).out for form in forms]
        return [text.encode() for text in found]

    def findings(self, *options: str, code: int = 0) -> set[str]:
        found = self.run("verify", *options, "--output", "json", code=code).json["findings"]
        return {each["kind"] for each in found}


@pytest.mark.parametrize("kind", KINDS)
def test_the_documents_follow_the_life_of_the_image(tmp_path: Path, kind: str) -> None:
    stage = Stage(tmp_path, kind)
    assert stage.ingest(FIRST, "flat, layers, sbom") == ["published"]
    assert stage.ingest(FIRST, "flat, layers, sbom") == ["unchanged"]
    first = stage.documents()
    assert first == stage.printed()
    cyclonedx, spdx = valid_cyclonedx(first[0]), valid_spdx(first[1])
    urls = {each.get("purl") for each in cyclonedx["components"]}
    assert urls == {"pkg:deb/debian/tool@2.0-1?arch=amd64&distro=debian-12", None}
    assert [each["name"] for each in spdx["packages"]] == [NAME, "tool"]
    shown = stage.run("show", NAME, "--output", "json").json
    assert shown["sbomPaths"] == list(layout.sbom_files(NAME))
    assert stage.findings("--deep") == set()

    # Lost, damaged, and a directory in the place of one: found, and made again.
    paths = [stage.published.root / path for path in layout.sbom_files(NAME)]
    paths[0].chmod(0o644)
    paths[0].write_bytes(b"{}")
    assert stage.findings() == set()
    assert stage.findings("--deep", code=1) == {"sbom-damaged"}
    paths[1].unlink()
    assert stage.findings(code=1) == {"sbom-missing"}
    assert stage.findings("--deep", "--repair") == set()
    assert stage.documents() == first
    paths[0].unlink()
    assert stage.ingest(FIRST, "flat, layers, sbom") == ["recorded"]
    assert stage.documents() == first

    # A moved tag. What cannot be read of the new image is named in its documents.
    assert stage.ingest(SECOND, "flat, layers, sbom") == ["updated"]
    second = stage.documents()
    assert second == stage.printed(code=1)
    skipped = "var/lib/rpm/Packages: Berkeley DB"
    [about] = valid_cyclonedx(second[0])["metadata"]["component"]["properties"]
    assert about["value"].startswith(skipped)
    assert skipped in valid_spdx(second[1])["packages"][0]["comment"]
    assert stage.findings("--deep") == set()
    stage.run("restore", f"{NAME}@{FIRST.manifest.digest}")
    assert stage.documents() == first
    assert stage.findings("--deep") == set()

    # Without the output, they leave at once; and with the name in any case.
    assert stage.ingest(FIRST, "flat, layers") == ["recorded"]
    assert stage.documents() == []
    assert stage.ingest(FIRST, "flat, sbom") == ["recorded"]
    assert stage.documents() == first
    stage.run("remove", "--grace", "0d", NAME)
    stage.run("gc", "--now")
    assert stage.documents() == []
    assert stage.findings() == set()


def test_an_image_is_published_although_its_documents_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, "directory")
    with monkeypatch.context() as patch:
        patch.setattr(output, "MOST_PACKAGES", 0)
        assert stage.ingest(FIRST, "flat, sbom", code=1) == ["published"]
        done = stage.run("ingest", tmp_path / "wishes.yaml", code=1)
        assert "cannot write its bill of materials (a later run tries again)" in done.out + done.err
        assert "more than 0 packages" in done.out + done.err
    assert stage.documents() == []
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cyclonedx", None)
        done = stage.run("ingest", tmp_path / "wishes.yaml", code=1)
        cure = f"in a checkout of the publisher: {sys.executable} -m pip install '.[sbom]'"
        assert cure in done.out + done.err
        assert "bills of materials" in stage.run("doctor", code=1).out
        assert stage.findings("--repair", code=1) == {"sbom-missing"}
    assert stage.findings(code=1) == {"sbom-missing"}
    # A document of an earlier image does not stay with another one.
    assert stage.ingest(FIRST, "flat, sbom") == ["recorded"]
    assert len(stage.documents()) == 2
    with monkeypatch.context() as patch:
        patch.setattr(output, "MOST_PACKAGES", 0)
        assert stage.ingest(SECOND, "flat, sbom", code=1) == ["updated"]
    assert stage.documents() == []
