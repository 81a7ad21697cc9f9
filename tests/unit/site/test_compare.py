"""Images are compared with what their name pointed to before, and with others on request."""

from __future__ import annotations

import re
from pathlib import Path

from tests.command import run_here
from tests.layer_builder import file, image, layer, whiteout, write_layout

DPKG = "Package: tool\nStatus: install ok installed\nVersion: {}\nArchitecture: all\n\n"


def publish(root: Path, version: str, *members: object) -> None:
    base = layer(file("etc/kept", b"k"), file("etc/gone", b"g" * 10))
    packages = file("var/lib/dpkg/status", DPKG.format(version).encode())
    write_layout(image(base, layer(packages, *members)), root / "tool", "1")  # type: ignore[arg-type]
    result = run_here("ingest-image", f"oci:{root}/tool:1", "--repository", root / "images")
    assert result.code == 0, result.err


def site(root: Path, *arguments: str) -> dict[str, str]:
    result = run_here("site", root / "www", "--repository", root / "images", *arguments)
    assert result.code == 0, result.err
    return {path.name: path.read_text() for path in (root / "www/compare").glob("*")}


def test_what_a_moved_tag_changed_is_a_page_of_its_own(tmp_path: Path) -> None:
    publish(tmp_path, "1.0")
    assert site(tmp_path) == {}
    publish(tmp_path, "1.1", whiteout("etc/gone"), file("etc/new", b"n" * 30))
    [(name, text)] = site(tmp_path).items()
    cells = [re.sub(r"<[^>]*>", " ", row).split() for row in re.findall(r"<tr.*?</tr>", text)]
    assert ["tool", "changed", "1.0", "1.1", "deb"] in cells
    assert ["/etc/gone", "removed", "10", "B"] in cells
    assert ["/etc/new", "added", "30", "B"] in cells
    assert not any("/etc/kept" in row for row in cells)
    pages = [path.read_text() for path in (tmp_path / "www/images").iterdir()]
    assert pages and all(f"compare/{name}" in page for page in pages)
    # Without pages of contents, only requested ones are written.
    assert site(tmp_path, "--contents", "0") == {}
    write_layout(image(layer(file("a", b"a"))), tmp_path / "b", "1")
    other = run_here("ingest-image", f"oci:{tmp_path}/b:1", "--repository", tmp_path / "images")
    assert other.code == 0
    [named] = site(tmp_path, "--contents", "0", "--compare", "local/tool:1", "local/b:1").values()
    assert "local/b:1" in named and "/etc/new" in named
    arguments = ("--compare", "local/tool:1", "local/missing:1")
    result = run_here("site", tmp_path / "www", "--repository", tmp_path / "images", *arguments)
    assert result.code == 1 and "no image is published as local/missing:1" in result.err
