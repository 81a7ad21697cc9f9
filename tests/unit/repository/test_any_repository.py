"""The life of images, from publication to removal, in every kind of repository."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from publisher.browse.packages import image_packages
from publisher.repository.packages import read_layer_packages
from publisher.tree import layout
from publisher.tree.layer_packages import PackageRecord
from publisher.verify.findings import Kind
from publisher.verify.run import verify
from tests.any_repository import KINDS, AnyRepository, make_repository
from tests.command import publisher, succeed
from tests.layer_builder import (
    Image,
    directory,
    file,
    hardlink,
    image,
    layer,
    symlink,
    whiteout,
    write_layout,
)
from tests.registry import OwnRegistry, Reply, Request
from tests.schemas import layout_schema, strict
from tests.tar_split import assemble

BASE = layer(directory("etc"), file("etc/motd", b"hello"), file("gone", b"x"))
FIRST = image(BASE)
SECOND = image(BASE, layer(whiteout("gone"), file("etc/motd", b"changed")))


@pytest.fixture(params=KINDS)
def any_repository(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AnyRepository:
    made = make_repository(request.param, tmp_path)
    for key, value in made.env.items():
        monkeypatch.setenv(key, value)
    return made


class Requested:
    """A wish list of tags of one layout, published into one repository."""

    def __init__(self, folder: Path, repository: AnyRepository) -> None:
        self.folder = folder
        self.repository = repository
        self.list = folder / "wishes.yaml"

    def set(self, outputs: Sequence[str] = ("flat", "layers"), **images: Image) -> None:
        for tag, built in images.items():
            write_layout(built, self.folder / "layout", tag)
        wishes = [{"image": f"oci:{self.folder}/layout:{t}", "name": "tool"} for t in images]
        defaults = {"outputs": list(outputs)}
        wish_list = {"version": 2, "defaults": defaults, "images": wishes}
        self.list.write_text(json.dumps(wish_list))

    def run(self, *words: str | Path) -> Any:
        more = ("--repository", self.repository.url, "--output", "json")
        return succeed(*words, *more, env=self.repository.env).json

    def assert_sound(self) -> None:
        opened = self.repository.open(writable=False)
        assert not verify(opened, deep=True).findings


@pytest.fixture
def requested(tmp_path: Path, any_repository: AnyRepository) -> Requested:
    return Requested(tmp_path, any_repository)


def test_images_are_published_follow_their_tags_and_stay_unchanged(requested: Requested) -> None:
    root = requested.repository.root
    requested.set(a=FIRST, b=SECOND)
    statuses = [o["status"] for o in requested.run("ingest", requested.list)["outcomes"]]
    assert statuses == ["published", "published"]
    requested.set(a=SECOND, b=SECOND)
    statuses = [o["status"] for o in requested.run("ingest", requested.list)["outcomes"]]
    assert statuses == ["updated", "unchanged"]
    assert (root / "local/tool:a/etc/motd").read_bytes() == b"changed"
    assert not (root / "local/tool:a/gone").exists()
    statuses = [o["status"] for o in requested.run("ingest", requested.list)["outcomes"]]
    assert statuses == ["unchanged", "unchanged"]
    requested.assert_sound()


def test_an_image_that_is_no_longer_requested_is_scheduled_and_collected_and_shared_layers_stay(
    requested: Requested,
) -> None:
    root = requested.repository.root
    requested.set(a=FIRST, b=SECOND)
    requested.run("ingest", requested.list)
    requested.set(b=SECOND)
    requested.run("prune", requested.list, "--yes-really")
    assert (root / "local/tool:a/gone").exists(), "running jobs go on"
    requested.run("gc", "--now")
    assert not os.path.lexists(root / "local/tool:a")
    assert (root / "local/tool:b/etc/motd").read_bytes() == b"changed"
    requested.assert_sound()


def test_the_podman_store_has_links_for_its_clients_and_the_data_to_assemble_layers(
    requested: Requested,
) -> None:
    root, url = requested.repository.root, requested.repository.url
    requested.set(("layers", "podman"), b=SECOND)
    requested.run("ingest", requested.list)
    store = root / "podmanStore"
    is_directory = requested.repository.machine is None
    mount = str(root) if is_directory else f"/cvmfs/{url.partition(':')[2]}"
    assert json.loads((store / "podman-store.json").read_bytes())["mount"] == mount
    layers = json.loads((store / "overlay-layers/layers.json").read_bytes())
    for stored, built in zip(layers, SECOND.layers, strict=True):
        tree = layout.layer_tree(built.digest)
        assert os.readlink(store / "overlay" / stored["id"] / "diff") == f"{mount}/{tree}"
        data = (store / "overlay-layers" / f"{stored['id']}.tar-split.gz").read_bytes()
        assert assemble(data, root / tree) == built.tar
    requested.assert_sound()

    succeed("init", url, "--mount", "/mnt/images", env=requested.repository.env)
    requested.run("verify", "--repair")
    requested.assert_sound()
    for stored, built in zip(layers, SECOND.layers, strict=True):
        tree = layout.layer_tree(built.digest)
        assert os.readlink(store / "overlay" / stored["id"] / "diff") == f"/mnt/images/{tree}"

    requested.run("remove", "local/tool:b", "--grace", "0d")
    requested.run("gc", "--now")
    assert not list((store / "overlay-layers").glob("*.gz"))
    requested.assert_sound()


def test_an_image_that_is_requested_again_leaves_the_schedule(requested: Requested) -> None:
    requested.set(a=FIRST)
    requested.run("ingest", requested.list)
    requested.run("remove", "local/tool:a")
    assert requested.run("ingest", requested.list)["outcomes"][0]["status"] == "recorded"
    requested.run("gc", "--now")
    assert (requested.repository.root / "local/tool:a/gone").exists()
    requested.assert_sound()


def test_a_corrupt_blob_fails_its_image_only_and_publishes_nothing_of_it(
    requested: Requested,
) -> None:
    requested.set(a=SECOND, b=FIRST)
    digest = SECOND.layers[1].descriptor.digest.removeprefix("sha256:")
    blob = requested.folder / "layout/blobs/sha256" / digest
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    more = ("--repository", requested.repository.url)
    result = publisher("ingest", requested.list, *more, env=requested.repository.env)
    assert result.code == 1 and digest in result.err
    assert not os.path.lexists(requested.repository.root / "local/tool:a")
    assert (requested.repository.root / "local/tool:b/gone").exists()
    requested.assert_sound()


def test_a_layer_that_another_run_publishes_while_it_is_fetched_is_not_kept_twice(
    requested: Requested,
) -> None:
    write_layout(SECOND, requested.folder / "layout", "other")
    runs = []

    def other_publisher(_: Request, reply: Reply) -> Reply:
        runs.append(requested.run("ingest-image", f"oci:{requested.folder}/layout:other"))
        return reply

    with OwnRegistry() as registry:
        registry.add("tool", "1", SECOND)
        registry.misbehave(other_publisher, method="GET", path=BASE.digest, times=1)
        ended = requested.run("ingest-image", f"{registry.url}/tool:1")

    statuses = [run["outcomes"][0]["status"] for run in (*runs, ended)]
    assert statuses == ["published", "published"]
    places = [
        p for name in ("layers", "blobs") for p in requested.folder.glob(f"**/.publisher/{name}")
    ]
    assert places
    assert not [kept for place in places for kept in place.iterdir()]
    requested.assert_sound()


def test_the_packages_of_a_layer_are_recorded_beside_its_index(requested: Requested) -> None:
    """The record is what the tree would give, also after the files were replaced in the stream."""
    site = "opt/conda/lib/python3.12/site-packages/a-1.dist-info/METADATA"
    python = b"Name: a\nVersion: 1\n"
    base = layer(
        file("etc/os-release", b"ID=debian\nVERSION_ID=12\n"),
        file("var/lib/dpkg/status", b"Package: old\nVersion: 1\n"),
        file("var/lib/dpkg/status", b"Package: new\nVersion: 2\n" + b"\n" * 2_000_000),
        file("usr/lib/R/library/x/DESCRIPTION", b"Package: x\nVersion: 1\nBuilt: R\n"),
        symlink("usr/lib/R/library", "elsewhere"),
        file("opt/conda/pkgs/a-1/site-packages/a-1.dist-info/METADATA", python),
        hardlink(site, "opt/conda/pkgs/a-1/site-packages/a-1.dist-info/METADATA"),
        symlink("lib/apk/db/installed", "/etc/passwd"),
    )
    # Databases that are links to files of another name, or of a lower layer, are not recorded.
    other_name = layer(file("z", python), hardlink(site, "z"))
    lower = layer(hardlink("usr/lib/python3/site-packages/b.egg-info", site))
    plain = layer(file("etc/motd", b"hello"))
    requested.set(a=image(base, other_name, lower, plain))
    requested.run("ingest", requested.list)
    opened = requested.repository.open(writable=False)
    places = [layout.layer_packages(each.digest) for each in (base, other_name, lower, plain)]
    assert [opened.exists(place) for place in places] == [True, False, False, False]
    record = json.loads(opened.read(places[0]) or b"")
    strict(layout_schema("packages")).validate(record)
    assert [each["path"] for each in record["databases"]] == [
        "etc/os-release",
        "lib/apk/db/installed",
        site,
        "var/lib/dpkg/status",
    ]
    assert record["databases"][1]["skipped"] == "it is a symbolic link"
    assert record["databases"][3]["packages"] == [{"name": "new", "version": "2"}]
    read = PackageRecord.of(base.digest, read_layer_packages(opened, base.digest))
    assert read.to_bytes() == opened.read(places[0])
    found = image_packages(opened, "local/tool:a")
    assert [(each.package.name, each.path) for each in found.packages] == [
        ("new", "var/lib/dpkg/status"),
        ("a", site),
        ("a", "usr/lib/python3/site-packages/b.egg-info"),
    ]
    requested.assert_sound()


def test_records_of_packages_that_are_damaged_are_reported_and_read_from_the_tree_again(
    requested: Requested,
) -> None:
    base = layer(file("var/lib/dpkg/status", b"Package: a\nVersion: 1\n"))
    requested.set(a=image(base))
    requested.run("ingest", requested.list)
    path = layout.layer_packages(base.digest)
    whole = requested.repository.open(writable=False).read(path)
    assert whole is not None
    other = PackageRecord.parse(whole, base.digest).to_bytes().replace(b'"a"', b'"lie"')
    for damaged, why in (
        (b"{", "not JSON"),
        (whole.replace(base.digest.encode(), FIRST.layers[0].digest.encode()), "describes layer"),
        (whole.replace(b"var/lib/dpkg", rb"\ud800"), "is not a path in a layer"),
        (other, "differs from the package databases"),
    ):
        with (
            closing(requested.repository.open()) as opened,
            opened.transaction("damage") as transaction,
            transaction.exclusive(),
        ):
            transaction.replace(path, damaged)
            transaction.commit()
        found = verify(requested.repository.open(writable=False), deep=True).findings
        assert [(each.kind, each.path) for each in found] == [(Kind.PACKAGES_WRONG, path)]
        assert why in found[0].what
        listed = image_packages(requested.repository.open(writable=False), "local/tool:a")
        assert [each.package.name for each in listed.packages] == [
            "lie" if damaged == other else "a"
        ]
        requested.run("verify", "--deep", "--repair")
        assert requested.repository.open(writable=False).read(path) == whole
    requested.assert_sound()


def test_layers_are_published_by_worker_processes(
    any_repository: AnyRepository, tmp_path: Path
) -> None:
    write_layout(SECOND, tmp_path / "layout", "1")
    at = ("--repository", any_repository.url)
    image = f"oci:{tmp_path}/layout:1"
    env = {**any_repository.env, "PUBLISHER_WORKERS": "1"}
    succeed("ingest-image", image, "--name", "tool", *at, env=env)
    succeed("verify", "--deep", *at, env=env)
    motd = any_repository.root / layout.flat_image(SECOND.image_id) / "etc/motd"
    assert motd.read_bytes() == b"changed"
    if any_repository.machine is None:
        published = any_repository.root / layout.layer_tree(BASE.digest) / "etc/motd"
        published.write_bytes(b"damaged")
        repaired = publisher("verify", "--deep", "--repair", "--refetch", *at, env=env)
        assert repaired.code == 0, repaired
        assert published.read_bytes() == b"hello"
