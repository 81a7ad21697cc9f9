"""What a thin image has beside its recipe, for engines that look before the layers are mounted."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from publisher.ingest.thin_images import build_thin
from publisher.repository.directory.repository import DirectoryRepository
from publisher.thin import ThinImageError
from publisher.thin.image import ThinImage
from publisher.tree import layout
from publisher.tree.layout import RepositoryURL
from publisher.tree.thin_image import ThinRecord
from tests.command import succeed
from tests.layer_builder import (
    Layer,
    directory,
    file,
    hardlink,
    image,
    layer,
    symlink,
    whiteout,
    write_layout,
)


def publish(folder: Path, *layers: Layer, **config: object) -> DirectoryRepository:
    source = write_layout(image(*layers, config=config), folder / "layout", "1")
    succeed("ingest-image", f"oci:{source}:1", "--name", "a", "--repository", folder / "tree")
    return DirectoryRepository(RepositoryURL("dir", str(folder / "tree")))


def thin(repository: DirectoryRepository) -> ThinImage:
    [built] = build_thin(repository, ["local/a:1"]).images
    return built


def members(built: ThinImage) -> dict[str, tuple[str, str]]:
    """Each member's mode, owner and type, and its content or target; without the recipe."""
    data = gzip.decompress(built.layer.data)
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        found = {}
        for each in opened:
            content = opened.extractfile(each) if each.isreg() else None
            text = content.read().decode() if content else each.linkname
            kind = each.type.decode()
            found[each.name] = (f"{kind} {each.mode:o} {each.uid}:{each.gid} {each.mtime}", text)
    assert next(iter(found)) == "thin.json"
    del found["thin.json"]
    return found


def test_users_groups_working_directory_and_volumes_are_those_of_the_image(tmp_path: Path) -> None:
    lower = layer(
        directory("etc", mode=0o711),
        file("etc/passwd", b"old"),
        file("etc/group", b"root:x:0:"),
        directory("home"),
        directory("home/app", mode=0o700, uid=7, gid=8),
        directory("data", mode=0o750),
        file("data/content"),
    )
    upper = layer(file("etc/passwd", b"new"), file("other"))
    built = thin(
        publish(tmp_path, lower, upper, WorkingDir="/home/app", Volumes={"/data": {}, "/no": {}})
    )
    owner = "7:8" if members(built)["home/app"][0].split()[2] == "7:8" else "0:0"
    assert members(built) == {
        "data": ("5 750 0:0 0", ""),
        "etc": ("5 711 0:0 0", ""),
        "etc/group": ("0 644 0:0 0", "root:x:0:"),
        "etc/passwd": ("0 644 0:0 0", "new"),
        "home": ("5 755 0:0 0", ""),
        "home/app": (f"5 700 {owner} 0", ""),
    }
    assert json.loads(built.recipe.to_bytes())["version"] == "1.1"


def test_deleted_files_links_and_an_image_without_any_are_left_as_they_are(tmp_path: Path) -> None:
    lower = layer(
        directory("etc"),
        file("etc/passwd", b"gone"),
        symlink("etc/group", "../usr/group"),
        directory("run"),
        directory("var"),
        symlink("var/run", "../run"),
    )
    upper = layer(whiteout("etc/passwd"))
    built = members(thin(publish(tmp_path, lower, upper, WorkingDir="/var/run/app")))
    assert set(built) == {"etc", "etc/group", "var", "var/run"}
    assert built["var/run"][1] == "../run", "or an engine would create a directory in its place"
    assert members(thin(publish(tmp_path / "b", layer(file("only"))))) == {}


def test_a_hard_link_is_the_file_that_it_names(tmp_path: Path) -> None:
    built = layer(directory("bin"), file("bin/users", b"u"), hardlink("etc/passwd", "bin/users"))
    assert members(thin(publish(tmp_path, built)))["etc/passwd"][1] == "u"


def test_layers_without_an_index_give_the_recipe_alone(tmp_path: Path) -> None:
    repository = publish(tmp_path, layer(file("etc/passwd", b"x")))
    [index] = (tmp_path / "tree").glob(".layers/??/*/.metadata/index.zst")
    index.unlink()
    assert members(thin(repository)) == {}


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_file_is_not_copied_into_a_thin_image(tmp_path: Path, damage: str) -> None:
    repository = publish(tmp_path, layer(file("etc/passwd", b"x")))
    [path] = (tmp_path / "tree").glob(".layers/??/*/layerfs/etc/passwd")
    path.unlink()
    if damage == "changed":
        path.write_bytes(b"y")
    with pytest.raises(ThinImageError) as caught:
        thin(repository)
    assert "etc/passwd" in str(caught.value)


def test_thin_images_of_the_older_form_are_pushed_again(tmp_path: Path) -> None:
    old = {
        "version": 1,
        "reference": "example.org/a:1",
        "digest": f"sha256:{'a' * 64}",
        "sourceDigest": f"sha256:{'b' * 64}",
        "platforms": ["linux/amd64"],
        "baseUrl": "file:///srv",
        "pushedAt": "2026-01-01T00:00:00Z",
    }
    record = ThinRecord.parse(json.dumps(old).encode(), layout.thin_file("a"))
    assert record.terms.recipe_version == "1.0"
