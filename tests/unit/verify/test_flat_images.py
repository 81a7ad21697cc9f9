"""Mount points behind an image's own links are published and verified, also without its config."""

from __future__ import annotations

from pathlib import Path

from publisher.repository.directory.repository import DirectoryRepository
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from publisher.verify.findings import Kind
from publisher.verify.run import verify
from tests.command import succeed
from tests.layer_builder import file, image, layer, symlink, write_layout

BUILT = image(
    layer(file("etc/os", b"1"), symlink("etc/mtab", "../proc/self/mounts")),
    layer(symlink("run", "/var/run"), symlink("etc/resolv.conf", "../run/dns/resolv.conf")),
)


def test_mount_points_behind_links_are_published_and_verified(tmp_path: Path) -> None:
    write_layout(BUILT, tmp_path / "layout", "1")
    tree = tmp_path / "images"
    succeed("ingest-image", f"oci:{tmp_path}/layout:1", "--repository", tree)
    flat = tree / layout.flat_image(BUILT.image_id)
    for path in ("var/run/.containerenv", "var/run/dns/resolv.conf", "etc/hostname"):
        assert (flat / path).read_bytes() == b""
    assert (flat / "etc/mtab").readlink() == Path("../proc/self/mounts")
    assert (flat / "run").readlink() == Path("/var/run")

    def kinds() -> list[Kind]:
        url = RepositoryURL("dir", str(tree))
        report = verify(DirectoryRepository(url, writable=False), deep=True)
        return [finding.kind for finding in report.findings]

    assert kinds() == []
    config = tree / layout.config_file("local/layout:1")
    data = config.read_bytes()
    config.unlink()
    assert kinds() == [Kind.CONFIG_MISSING]
    config.write_bytes(data)
    (flat / "var/run/.containerenv").unlink()
    assert kinds() == [Kind.FLAT_DAMAGED]
