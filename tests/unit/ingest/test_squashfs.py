"""Images as squashfs files: published, linked, replaced, collected, restored, verified."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.runtimes.squashfs_file import PROGRAM
from publisher.tree import layout
from publisher.tree.users import ImageUsers
from tests.any_repository import KINDS, AnyRepository, make_repository
from tests.command import Result, run_here
from tests.components import require, run
from tests.layer_builder import Image, directory, file, hardlink, image, layer, symlink, whiteout
from tests.layer_builder import write_layout as write
from tests.trees import describe_tree

NAME = "local/tool:1"
LINK = layout.squashfs_link(NAME)
BASE = layer(
    directory("etc", mode=0o750, mtime_ns=5 * 10**9),
    file("etc/os", b"one\n", mtime_ns=-(10**9)),
    file("gone", b"x"),
    file("etc/\udcff", b"", mode=0o4755),
    hardlink("etc/again", "etc/os"),
    symlink("link", "/etc/os"),
)
FIRST = image(BASE, layer(whiteout("gone"), file("n" * 200, bytes(300_000))))
SECOND = image(BASE, layer(file("etc/os", b"two\n")))


class Stage:
    """A repository of one kind, and the wish that is published into it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.published: AnyRepository = make_repository(kind, folder)

    @property
    def root(self) -> Path:
        return self.published.root

    def run(self, *words: str | Path, code: int = 0) -> Result:
        place = ("--repository", self.published.url)
        done = run_here(*words, *place, env={"HOME": str(self.folder), **self.published.env})
        assert done.code == code, f"{done.out}\n{done.err}"
        return done

    def ingest(self, built: Image, outputs: str, name: str = "tool", code: int = 0) -> list[str]:
        write(built, self.folder / "layout", "1")
        wishes = self.folder / f"{name}.yaml"
        source = f"oci:{self.folder}/layout:1"
        wish = f"{{image: '{source}', name: {name}, outputs: [{outputs}]}}"
        wishes.write_text(f"version: 2\nimages:\n  - {wish}\n")
        done = self.run("ingest", wishes, "--output", "json", code=code)
        return [each["status"] for each in done.json["outcomes"]]

    def file(self, built: Image) -> Path:
        return self.root / layout.squashfs_file(built.image_id)

    def findings(self, *options: str, code: int = 0) -> list[tuple[str, str]]:
        found = self.run("verify", *options, "--output", "json", code=code).json["findings"]
        return [(each["kind"], each["path"]) for each in found]


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    require(PROGRAM, "unsquashfs")
    yield Stage(tmp_path, request.param)


def forget_program(stage: Stage) -> None:
    """Let the record of the file be as releases wrote it that did not record its program."""
    file = stage.root / layout.image_users(FIRST.image_id)
    record = json.loads(file.read_bytes())
    for key in ("format", "compressor", "program"):
        del record["squashfs"][key]
    parsed = ImageUsers.parse(json.dumps(record).encode(), "users")
    assert parsed.squashfs is not None and parsed.squashfs.program == ""
    assert json.loads(parsed.to_bytes()) == record
    file.write_bytes(parsed.to_bytes())


def test_the_file_has_the_content_of_the_flat_image_and_follows_the_life_of_the_image(
    stage: Stage, tmp_path: Path
) -> None:
    assert stage.ingest(FIRST, "flat, layers, squashfs") == ["published"]
    assert stage.ingest(FIRST, "flat, layers, squashfs") == ["unchanged"]
    first = stage.file(FIRST)
    assert (stage.root / LINK).resolve() == first.resolve()
    record = json.loads((stage.root / layout.image_users(FIRST.image_id)).read_bytes())
    data = first.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    version = run(PROGRAM, "--version").splitlines()[0]
    written = {
        "digest": digest,
        "size": len(data),
        "format": 1,
        "compressor": "zstd level=9 block-size=131072",
        "program": version,
    }
    assert record["squashfs"] == written
    shown = stage.run("show", NAME, "--output", "json").json
    assert shown["squashfsPath"] == layout.squashfs_file(FIRST.image_id)
    assert stage.findings("--deep") == []

    run("unsquashfs", "-quiet", "-no-progress", "-dest", tmp_path / "out", first)
    flat = describe_tree(stage.root / layout.flat_image(FIRST.image_id))
    found = describe_tree(tmp_path / "out")
    assert found.keys() == {p for p in flat if not p.rpartition("/")[2].startswith(".cvmfs")}
    for path, node in found.items():
        same = ("type", "mode", "uid", "gid", "target", "sha256")
        expected = [getattr(flat[path], key, None) for key in same]
        assert [getattr(node, key, None) for key in same] == expected, path
        assert node.mtime_ns == max(flat[path].mtime_ns // 10**9, 0) * 10**9, path
    assert (tmp_path / "out/etc/again").samefile(tmp_path / "out/etc/os")

    # A lost or damaged file is found, and written again with the same bytes.
    first.chmod(0o644)
    first.write_bytes(data[:-1] + b"x")
    assert stage.findings() == []
    assert stage.findings("--deep", code=1) == [
        ("squashfs-file-damaged", layout.squashfs_file(FIRST.image_id))
    ]
    assert stage.findings("--deep", "--repair") == []
    assert first.read_bytes() == data
    first.unlink()
    (stage.root / LINK).unlink()
    kinds = {kind for kind, _ in stage.findings(code=1)}
    assert kinds == {"squashfs-file-missing", "link-missing"}
    assert stage.findings("--repair") == []
    assert first.read_bytes() == data
    assert (stage.root / LINK).resolve() == first.resolve()

    # The record of an earlier release is kept as it is until the file is written again.
    forget_program(stage)
    assert stage.ingest(FIRST, "flat, layers, squashfs") == ["unchanged"]
    assert stage.findings("--deep") == []
    first.unlink()
    assert stage.findings("--repair") == []
    record = json.loads((stage.root / layout.image_users(FIRST.image_id)).read_bytes())
    assert record["squashfs"] == written

    # A moved tag; the earlier image stays until it is collected, and can be restored.
    assert stage.ingest(SECOND, "flat, layers, squashfs") == ["updated"]
    second = stage.file(SECOND)
    assert (stage.root / LINK).resolve() == second.resolve()
    assert first.read_bytes() == data
    assert stage.findings("--deep") == []
    stage.run("restore", f"{NAME}@{FIRST.manifest.digest}")
    assert (stage.root / LINK).resolve() == first.resolve()
    assert stage.findings() == []
    collected = stage.run("gc", "--now", "--output", "json").json
    assert not second.exists() and first.exists()
    assert stage.findings() == [], collected

    # Without the output, link and file are removed, but the file not while another name has it.
    stage.ingest(FIRST, "flat, layers, squashfs", "other")
    assert stage.ingest(FIRST, "flat, layers") == ["recorded"]
    assert not os.path.lexists(stage.root / LINK)
    assert first.read_bytes() == data and stage.findings() == []
    assert stage.ingest(FIRST, "flat, layers", "other") == ["recorded"]
    assert not first.exists() and stage.findings() == []
    record = json.loads((stage.root / layout.image_users(FIRST.image_id)).read_bytes())
    assert "squashfs" not in record

    assert stage.ingest(FIRST, "layers, squashfs") == ["recorded"]
    assert first.read_bytes() == data
    stage.run("remove", "--grace", "0d", NAME)
    stage.run("gc", "--now")
    assert not first.exists() and not os.path.lexists(stage.root / LINK)
    assert stage.findings() == []


def test_without_the_program_the_image_is_published_and_the_next_run_writes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(PROGRAM)
    stage = Stage(tmp_path, "directory")
    empty = tmp_path / "bin"
    empty.mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(empty))
        wishes = tmp_path / "tool.yaml"
        assert stage.ingest(FIRST, "flat, squashfs", code=1) == ["published"]
        done = stage.run("ingest", wishes, code=1)
        assert "tar2sqfs is not installed" in done.out + done.err
        assert "squashfs-tools-ng" in done.out + done.err
        doctor = stage.run("doctor", code=1)
        assert "tar2sqfs" in doctor.out
    assert not os.path.lexists(stage.root / LINK)
    assert [kind for kind, _ in stage.findings(code=1)] == [
        "squashfs-file-missing",
        "link-missing",
    ]
    assert stage.ingest(FIRST, "flat, squashfs") == ["recorded"]
    assert stage.findings("--deep") == []
    shutil.rmtree(stage.root)
