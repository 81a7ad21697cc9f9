"""An ordinary user of the publishing host cannot change what is published in a directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from publisher.cli.repositories import open_repository
from publisher.ingest.run import ingest as run_ingest
from publisher.layers.policy import Policy
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from tests.command import publisher, succeed
from tests.components import require_root
from tests.layer_builder import directory, file, hardlink, image, layer, write_layout

USER = 12345
BUILT = image(
    layer(
        directory("tmp", mode=0o1777),
        directory("opt", mode=0o777),
        file("opt/program", b"#!/bin/sh\n", mode=0o777),
        hardlink("opt/again", "opt/program"),
        directory("shared", mode=0o2775, gid=USER),
        file("shared/data", b"data", mode=0o664, gid=USER),
    ),
    layer(directory("var/spool", mode=0o733), file("own", b"own", mode=0o644)),
)

_ATTACK = """
import os, sys
done = []
for top, directories, files in os.walk(sys.argv[1]):
    for name in ("planted", *files):
        path = os.path.join(top, name)
        for attack in (lambda: open(path, "ab").close(), lambda: os.unlink(path)):
            try:
                attack()
                done.append(path)
            except OSError:
                pass
print(len(done))
"""


def ingest(tmp_path: Path, *options: str) -> Path:
    write_layout(BUILT, tmp_path / "layout", "1")
    root = tmp_path / "images"
    if options:
        succeed("init", root, *options)
    succeed("ingest-image", f"oci:{tmp_path}/layout:1", "--repository", root)
    return root


def changes_by_user(root: Path) -> int:
    """How many files an ordinary user can write to, make or delete below `root`."""
    for parent in (root, *root.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    ended = subprocess.run(
        [*as_user, "/usr/bin/python3", "-c", _ATTACK, str(root)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(ended.stdout)


def test_an_ordinary_user_cannot_change_a_published_program(tmp_path: Path) -> None:
    require_root()
    root = ingest(tmp_path)
    assert changes_by_user(root) == 0
    for path in root.rglob("*"):
        assert path.is_symlink() or not path.stat().st_mode & 0o022, path
    succeed("verify", "--deep", "--repository", root)
    flat = root / layout.flat_image(BUILT.image_id)
    assert flat.joinpath("tmp").stat().st_mode & 0o7777 == 0o1755
    assert flat.joinpath("var/tmp").stat().st_mode & 0o7777 == 0o1755


def test_write_permission_is_kept_where_the_administrator_asks_for_it(tmp_path: Path) -> None:
    require_root()
    root = ingest(tmp_path, "--writable", "keep")
    flat = root / layout.flat_image(BUILT.image_id)
    assert flat.joinpath("tmp").stat().st_mode & 0o7777 == 0o1777
    succeed("verify", "--deep", "--repository", root)
    assert changes_by_user(root) > 0


def publish_without_the_policy(tmp_path: Path) -> Path:
    """Publish as an earlier release did, with a policy that does not know of write permission."""
    write_layout(BUILT, tmp_path / "layout", "1")
    root = tmp_path / "images"
    repository = open_repository(f"dir:{root}", writable=True, may_be_new=True)
    wish = wish_for(f"oci:{tmp_path}/layout:1", name="tool")
    with Sources() as sources:
        assert not run_ingest([Request(wish)], repository, sources, policy=Policy()).failed
    repository.close()
    return root


def test_a_layer_of_an_earlier_release_is_accepted_where_write_permission_is_kept(
    tmp_path: Path,
) -> None:
    root = publish_without_the_policy(tmp_path)
    shutil.rmtree(tmp_path / "layout")
    assert publisher("verify", "--refetch", "--repository", root).code == 1
    succeed("init", root, "--writable", "keep")
    succeed("verify", "--deep", "--repository", root)
    assert "write permission" not in succeed("doctor", "--repository", root).out


def test_a_layer_of_an_earlier_release_is_named_and_replaced(tmp_path: Path) -> None:
    require_root()
    root = publish_without_the_policy(tmp_path)
    found = publisher("verify", "--repository", root, "--output", "json")
    assert {each["kind"] for each in json.loads(found.out)["findings"]} == {"layer-writable"}
    assert "verify --refetch" in publisher("verify", "--repository", root).out
    assert publisher("verify", "--repository", root).code == 1
    examined = publisher("doctor", "--repository", root)
    assert examined.code == 0
    assert "write permission for group or others" in examined.out + examined.err
    assert changes_by_user(root) > 0
    succeed("verify", "--refetch", "--repository", root)
    assert changes_by_user(root) == 0
    succeed("verify", "--deep", "--repository", root)
