"""Podman runs images from the additional image store like the originals, without pulling."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publisher.tree import layout
from tests.command import command, environment, publisher, succeed
from tests.components import (
    Engine,
    docker_registry,
    podman,
    require_root,
    run,
    unmount_below,
)
from tests.layer_builder import directory, file, image, layer, opaque, whiteout, write_layout
from tests.podman_store import publish, rootless, with_store
from tests.probe import probe_image, read_report, run_original, write_probe
from tests.real_image import CHECK_NUMPY, RealImages
from tests.trees import tree_identity

pytestmark = pytest.mark.system

CONTAINERFILE = """\
FROM localhost/probe:1
USER 0
COPY Containerfile /copied
ENTRYPOINT ["/bin/ls", "/"]
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with podman(tmp_path / "podman") as running:
        yield running


@pytest.fixture
def original(tmp_path: Path) -> Iterator[Engine]:
    """Another engine, for what the image does without the store.

    Podman 5 does not find the names that an image has in an additional store if its own storage has
    the image too.
    """
    with podman(tmp_path / "original") as running:
        yield running


@pytest.mark.parametrize("outputs", ["flat, layers, podman", "flat, podman", "podman"])
def test_a_container_from_the_store_starts_like_one_from_the_original(
    tmp_path: Path, engine: Engine, original: Engine, outputs: str
) -> None:
    source = write_probe(tmp_path / "layout")
    expected = run_original(original, source)
    tree = tmp_path / "images"
    publish(tmp_path, tree, f"{{image: '{source}', name: probe}}", outputs=outputs)
    identity = tree_identity(tree)

    stored = with_store(engine, tmp_path, tree)

    assert read_report(stored.run("localhost/probe:1")) == expected
    assert expected.id == "1234:3456" and expected.directory == "/work dir"
    as_root = ["--user", "0", "--entrypoint", "/bin/sh"]
    seen = stored.run("localhost/probe:1", "-c", "touch /etc/new; ls /etc", options=as_root)
    assert "new" in seen.split() and "gone" not in seen.split(), "it writes above the store"
    assert tree_identity(tree) == identity, "and the tree stays as it is"


def test_real_images_run_with_numpy_and_share_their_layers(
    tmp_path: Path, engine: Engine, real_images: RealImages
) -> None:
    tree = tmp_path / "images"
    wishes = [f"{{image: '{real_images.source(tag)}', name: {tag}}}" for tag in ("python", "numpy")]
    publish(tmp_path, tree, *wishes, outputs="flat, layers, podman")
    stored = with_store(engine, tmp_path, tree)
    assert stored.run("localhost/numpy:numpy", "python3", "-c", CHECK_NUMPY).strip() == "45"
    layers = json.loads((tree / "podmanStore/overlay-layers/layers.json").read_bytes())
    images = json.loads((tree / "podmanStore/overlay-images/images.json").read_bytes())
    assert len(layers) == len(real_layers(tree, "local/numpy:numpy"))
    # In the order in which they were published: both at the same time.
    assert sorted(entry["names"] for entry in images) == [
        ["localhost/numpy:numpy"],
        ["localhost/python:python"],
    ]
    shown = json.loads(stored("image", "inspect", "localhost/numpy:numpy"))[0]
    assert shown["Config"]["Env"][-1] == "WITH=spaces and 'quotes'"


def real_layers(tree: Path, name: str) -> list[str]:
    manifest = json.loads((tree / ".metadata" / name / "manifest.json").read_bytes())
    return [entry["digest"] for entry in manifest["layers"]]


def test_a_moved_tag_moves_its_name_and_the_old_image_stays_under_its_id(
    tmp_path: Path, engine: Engine
) -> None:
    tree, layout = tmp_path / "images", tmp_path / "layout"
    old = image(layer(file("version", b"old")), config={"Cmd": ["/x"]})
    new = image(layer(file("version", b"new")), config={"Cmd": ["/x"]})
    with docker_registry(tmp_path / "registry") as registry:
        for built in (old, new):
            name = registry.push(f"oci:{write_layout(built, layout, '1')}:1", "tests/a:1")
            publish(tmp_path, tree, f"http://{name}", outputs="flat, podman, layers")
    stored = with_store(engine, tmp_path, tree)
    listed = json.loads(stored("images", "--format", "json"))
    names = {entry["Id"]: entry.get("Names") for entry in listed}
    assert names[new.image_id.removeprefix("sha256:")] == [name]
    assert not names[old.image_id.removeprefix("sha256:")]


def test_an_image_that_loses_the_output_podman_loses_its_name(tmp_path: Path) -> None:
    tree, source = tmp_path / "images", write_probe(tmp_path / "layout")
    for outputs in ("flat, podman", "flat"):
        publish(tmp_path, tree, f"{{image: '{source}', name: probe}}", outputs=outputs)
    [entry] = json.loads((tree / "podmanStore/overlay-images/images.json").read_bytes())
    assert entry["names"] == []


def test_two_machines_make_the_same_store(tmp_path: Path) -> None:
    source = write_probe(tmp_path / "layout")
    for name in ("one", "two"):
        succeed("init", tmp_path / name, "--mount", "/srv/images")
        publish(tmp_path, tmp_path / name, f"{{image: '{source}', name: probe}}", outputs="podman")
    run(
        "diff",
        "--recursive",
        "--no-dereference",
        tmp_path / "one/podmanStore",
        tmp_path / "two/podmanStore",
    )


def test_a_collected_image_leaves_the_store_and_those_that_share_its_layers_stay(
    tmp_path: Path, engine: Engine
) -> None:
    tree, layout = tmp_path / "images", tmp_path / "layout"
    source = write_probe(layout)
    shared = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    other = write_probe(tmp_path / "other", Labels={"another": "config"})
    wishes = [f"{{image: '{source}', name: probe}}", f"{{image: '{other}', name: other}}"]
    publish(tmp_path, tree, *wishes, outputs="flat, layers, podman")
    stored = with_store(engine, tmp_path, tree)
    assert stored.run("localhost/other:1", "-c", "ls /", options=["--entrypoint", "/bin/sh"])

    succeed("remove", "local/other:1", "--grace", "0d", "--repository", tree)
    succeed("gc", "--now", "--repository", tree)

    [entry] = json.loads((tree / "podmanStore/overlay-images/images.json").read_bytes())
    assert entry["names"] == ["localhost/probe:1"] and entry["digest"] == shared["digest"]
    kept = {path.name for path in (tree / "podmanStore/overlay-images").iterdir()}
    assert kept == {entry["id"], "images.json", "images.lock"}
    assert all(path.exists() for path in (tree / "podmanStore/overlay").glob("*/diff"))
    assert all(path.exists() for path in (tree / "podmanStore/overlay/l").iterdir())
    assert read_report(stored.run("localhost/probe:1")).id == "1234:3456"

    succeed("remove", "local/probe:1", "--grace", "0d", "--repository", tree)
    succeed("gc", "--now", "--repository", tree)
    assert json.loads((tree / "podmanStore/overlay-images/images.json").read_bytes()) == []
    assert json.loads((tree / "podmanStore/overlay-layers/layers.json").read_bytes()) == []
    assert not list((tree / "podmanStore/overlay").glob("*/*"))
    assert json.loads(stored("images", "--format", "json")) == [], "an empty store is one"


def test_a_damaged_store_is_found_and_the_next_ingest_builds_it_again(tmp_path: Path) -> None:
    tree, source = tmp_path / "images", write_probe(tmp_path / "layout")
    wish = f"{{image: '{source}', name: probe}}"
    publish(tmp_path, tree, wish, outputs="flat, layers, podman")
    assert succeed("verify", "--repository", tree, "--output", "json").json["findings"] == []
    store = tree / "podmanStore"
    copy = tmp_path / "copy"
    run("cp", "--archive", store, copy)
    for damage in (
        lambda: next((store / "overlay/l").iterdir()).unlink(),
        lambda: next((store / "overlay").glob("?" * 64 + "/diff")).unlink(),
        lambda: next((store / "overlay-images").glob("*/manifest")).unlink(),
        lambda: (store / "overlay-layers/layers.json").write_text("[]"),
        lambda: (store / "overlay-images/images.json").write_text("{"),
    ):
        damage()
        found = publisher("verify", "--repository", tree, "--output", "json")
        assert found.code == 1
        kinds = {finding["kind"] for finding in found.json["findings"]}
        assert kinds == {"podman-store-damaged"}
        run("rm", "-r", store)
        publish(tmp_path, tree, wish, outputs="flat, layers, podman")
        run("diff", "--recursive", "--no-dereference", copy, store)


def test_an_image_that_lists_a_layer_twice_shows_what_the_original_shows(
    tmp_path: Path, engine: Engine, original: Engine
) -> None:
    busybox, zero = probe_image().layers[0], layer(file("y/gone"), file("y/kept"))
    one = layer(directory("x"), file("x/one", b"1"), whiteout("y/gone"))
    two = layer(whiteout("x/one"), file("x/two", b"2"), file("y/gone", b"again"))
    built = image(busybox, zero, one, two, one, config={"Cmd": ["/bin/ls", "/x", "/y"]})
    source = f"oci:{write_layout(built, tmp_path / 'layout', '1')}:1"
    expected = original.run(source)
    tree = tmp_path / "images"
    publish(tmp_path, tree, f"{{image: '{source}', name: twice}}", outputs="flat, layers, podman")
    assert with_store(engine, tmp_path, tree).run("localhost/twice:1") == expected
    assert "gone" not in expected and "one" in expected and "two" in expected
    assert (
        len(json.loads(succeed("thin", "local/twice:1", "--repository", tree).out)["layers"]) == 4
    )


def stored_layers(root: Path) -> dict[str, dict[str, Any]]:
    """The entries of layers.json in a storage of podman, by ID."""
    entries = json.loads((root / "overlay-layers/layers.json").read_bytes())
    return {entry["id"]: entry for entry in entries}


def test_layers_have_the_ids_that_podman_gives_those_that_it_pulls(
    tmp_path: Path, engine: Engine
) -> None:
    tree = tmp_path / "images"
    layers = [layer(file(f"file-{number}", b"%d" % number)) for number in range(4)]
    layout = write_layout(image(*probe_image().layers, *layers), tmp_path / "layout", "1")
    wish = f"{{image: 'oci:{layout}:1', name: layers}}"
    publish(tmp_path, tree, wish, outputs="layers, podman")
    engine("pull", f"oci:{layout}:1")
    pulled = stored_layers(tmp_path / "podman/root")
    assert len(pulled) >= 5
    published = stored_layers(tree / "podmanStore")
    for key in ("parent", "diff-digest", "compressed-diff-digest"):
        assert {layer: entry.get(key) for layer, entry in pulled.items()} == {
            layer: entry.get(key) for layer, entry in published.items()
        }


def test_of_an_image_on_top_of_a_published_one_only_its_own_layers_are_fetched(
    tmp_path: Path, engine: Engine
) -> None:
    tree = tmp_path / "images"
    base = probe_image()
    own = layer(file("child", b"child"))
    child = image(*base.layers, own, config={"Cmd": ["/bin/cat", "/child"]})
    layout = write_layout(base, tmp_path / "layout", "base")
    write_layout(child, layout, "child")
    with docker_registry(tmp_path / "registry") as registry:
        names = {}
        for tag in ("base", "child"):
            name = f"tests/{tag}:1"
            names[tag] = registry.push(f"oci:{layout}:{tag}", name, "--preserve-digests")
        publish(tmp_path, tree, f"http://{names['base']}", outputs="flat, layers, podman")
        for published in base.layers:  # a request for one of them fails
            hexadecimal = published.digest.removeprefix("sha256:")
            run("rm", "-r", *(tmp_path / "registry").rglob(f"blobs/sha256/*/{hexadecimal}"))
        stored = with_store(engine, tmp_path, tree, network=True)
        stored("pull", "--tls-verify=false", names["child"])
        assert stored.run(names["child"]) == "child"
        assert len(stored_layers(tmp_path / "podman/root")) == 1
        stored("pull", "--tls-verify=false", names["base"])
        assert len(stored_layers(tmp_path / "podman/root")) == 1


def test_images_of_the_store_are_built_on_compared_and_committed(
    tmp_path: Path, engine: Engine
) -> None:
    tree = tmp_path / "images"
    source = write_probe(tmp_path / "layout")
    publish(tmp_path, tree, f"{{image: '{source}', name: probe}}", outputs="flat, layers, podman")
    identity = tree_identity(tree)
    stored = with_store(engine, tmp_path, tree)
    (tmp_path / "Containerfile").write_text(CONTAINERFILE)
    stored("build", "--tag", "localhost/built:1", str(tmp_path))
    assert {"copied", "probe", "work dir"} <= set(stored.run("localhost/built:1").split("\n"))

    command = ["--name", "one", "--user", "0", "--entrypoint", "/bin/touch"]
    stored("create", *engine.run_options, *command, "localhost/probe:1", "/new")
    stored("start", "--attach", "one")
    assert set(stored("diff", "one").splitlines()) >= {"A /new"}
    stored("commit", "one", "localhost/committed:1")
    listing = ["--entrypoint", "/bin/ls", "--user", "0"]
    assert "new" in stored.run("localhost/committed:1", "/", options=listing).split()
    assert {"D /etc/gone", "A /probe"} <= set(
        stored("image", "diff", "localhost/probe:1").splitlines()
    )
    assert Path(stored("mount", "one").strip(), "new").exists()
    stored("rm", "one")
    assert tree_identity(tree) == identity


def test_images_of_the_store_are_saved_and_pushed_with_their_own_digests(
    tmp_path: Path, engine: Engine
) -> None:
    tree = tmp_path / "images"
    source = write_probe(tmp_path / "layout")
    publish(tmp_path, tree, f"{{image: '{source}', name: probe}}", outputs="flat, layers, podman")
    stored = with_store(engine, tmp_path, tree, network=True)
    built = probe_image()
    archive = tmp_path / "saved.tar"
    stored("save", "--format", "oci-archive", "--output", archive, "localhost/probe:1")
    (tmp_path / "saved").mkdir()
    run("tar", "--extract", "--file", archive, "--directory", tmp_path / "saved")
    config = tmp_path / "saved/blobs" / built.image_id.replace(":", "/")
    assert config.read_bytes() == built.config
    stored("save", "--output", tmp_path / "docker.tar", "localhost/probe:1")
    with docker_registry(tmp_path / "registry") as registry:
        name = f"{registry.host}/tests/pushed:1"
        stored("push", "--tls-verify=false", "localhost/probe:1", f"docker://{name}")
        engine("pull", "--tls-verify=false", name)
        [image_id] = engine("images", "--quiet", "--no-trunc").split()
        assert image_id == built.image_id


def test_a_layer_of_the_store_is_used_on_top_of_another_one(tmp_path: Path, engine: Engine) -> None:
    """podman then assembles the layer's archive, instead of fetching it."""
    tree = tmp_path / "images"
    shared = layer(*(file(f"shared/{number}", b"%d" % number * 1000) for number in range(50)))
    one = image(layer(file("one", b"1")), shared)
    other = image(probe_image().layers[0], shared, config={"Cmd": ["/bin/ls", "/shared"]})
    layout = write_layout(one, tmp_path / "layout", "one")
    write_layout(other, layout, "other")
    publish(tmp_path, tree, f"{{image: 'oci:{layout}:one', name: one}}", outputs="layers, podman")
    with docker_registry(tmp_path / "registry") as registry:
        name = registry.push(f"oci:{layout}:other", "tests/other:1", "--preserve-digests")
        hexadecimal = shared.digest.removeprefix("sha256:")
        run("rm", "-r", *(tmp_path / "registry").rglob(f"blobs/sha256/*/{hexadecimal}"))
        stored = with_store(engine, tmp_path, tree, network=True)
        stored("pull", "--tls-verify=false", name)
    assert len(stored.run(name).split()) == 50
    layers = stored_layers(tmp_path / "podman/root").values()
    assert {each["diff-digest"] for each in layers} == {each.diff_id for each in other.layers}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that every user can enter."""
    with tempfile.TemporaryDirectory(prefix="publisher-") as name:
        Path(name).chmod(0o755)
        try:
            yield Path(name)
        finally:
            for file in Path(name).rglob("pause.pid"):  # what keeps a user's namespaces
                os.kill(int(file.read_text()), signal.SIGKILL)
            unmount_below(Path(name))


def test_ordinary_users_run_images_of_the_store_that_root_has_published(open_folder: Path) -> None:
    require_root()
    busybox = probe_image().layers[0]
    lower = layer(file("x/deleted", b"1"), file("y/deleted", b"1"), file("y/kept", b"1"))
    upper = layer(opaque("x"), file("x/new", b"1"), whiteout("y/deleted"))
    built = image(busybox, lower, upper, config={"Cmd": ["/bin/ls", "/x", "/y"]})
    source = f"oci:{write_layout(built, open_folder / 'layout', '1')}:1"
    tree = open_folder / "images"
    wish = f"{{image: '{source}', name: users}}"
    publish(open_folder, tree, wish, outputs="flat, layers, podman")
    identity = tree_identity(tree)
    engine = rootless(open_folder, tree)
    assert engine.run("localhost/users:1").split() == ["/x:", "new", "/y:", "kept"]
    status = engine("info", "--format", "{{.Store.GraphOptions}} {{.Store.GraphStatus}}")
    assert "podmanStore" in status and "mount_program" not in status, "the kernel's overlayfs"
    assert "mounts" in engine.run("localhost/users:1", "/bin/ls", "-l", "/etc/mtab")
    flat = os.path.realpath(tree / "local/users:1")
    listing = engine("run", "--rm", *engine.run_options, "--rootfs", flat, "/bin/ls", "/x", "/y")
    assert listing.split() == ["/x:", "new", "/y:", "kept"]
    assert tree_identity(tree) == identity


def test_what_layers_of_an_ordinary_user_hide_is_hidden_without_root_and_by_a_flat_image(
    open_folder: Path, engine: Engine
) -> None:
    require_root()
    lower = layer(file("x/deleted", b"1"), file("y", b"1"))
    upper = layer(directory("x"), opaque("x"), file("x/new", b"1"), whiteout("y"))
    config = {"Cmd": ["/bin/ls", "/x", "/y"]}
    built = image(probe_image().layers[0], lower, upper, config={**config, "User": "0"})
    other = image(probe_image().layers[0], lower, upper, config={**config, "User": ""})
    write_layout(other, write_layout(built, open_folder / "layout", "1"), "2")
    wishes, tree = open_folder / "wishes.yaml", open_folder / "images"
    wishes.write_text(
        "version: 2\nimages:\n"
        f"  - {{image: 'oci:{open_folder}/layout:1', name: a, outputs: [flat, layers, podman]}}\n"
        f"  - {{image: 'oci:{open_folder}/layout:2', name: b, outputs: [flat, podman]}}\n"
    )
    # As an ordinary user publishes, but that the files belong to root.
    limits = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
    run(*limits, *command("ingest", wishes, "--repository", tree), env=environment())
    opened = tree / layout.layer_tree(upper.digest) / "x"
    assert os.listxattr(opened) == ["user.overlay.opaque"]
    as_user, as_root = rootless(open_folder, tree), with_store(engine, open_folder, tree)
    for started, name in ((as_user, "a:1"), (as_user, "b:2"), (as_root, "b:2")):
        words = (*started.command, "run", "--rm", *started.run_options, f"localhost/{name}")
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.stdout.split() == ["/x:", "new"] and "/y" in done.stderr, (done, name)
    words = (
        *as_root.command,
        "run",
        "--rm",
        *as_root.run_options,
        "localhost/a:1",
        "/bin/ls",
        "/x",
    )
    assert run(*words).split() == ["deleted", "new"], "as the page describes"


def test_ordinary_users_pull_build_and_save_with_images_of_the_store(open_folder: Path) -> None:
    require_root()
    tree, base = open_folder / "images", probe_image()
    own = layer(file("child", b"child"))
    child = image(*base.layers, own, config={"Cmd": ["/bin/cat", "/child"]})
    layout = write_layout(base, open_folder / "layout", "1")
    write_layout(child, layout, "child")
    wish = f"{{image: 'oci:{layout}:1', name: probe}}"
    publish(open_folder, tree, wish, outputs="flat, layers, podman")
    for published in base.layers:  # the pull would fail if it read one of them
        (layout / "blobs" / published.digest.replace(":", "/")).unlink()
    run("chmod", "--recursive", "a+rX", layout)
    engine = rootless(open_folder, tree)
    pulled = engine("pull", "--quiet", f"oci:{layout}:child").strip()
    assert engine.run(pulled) == "child"
    (open_folder / "home/Containerfile").write_text(CONTAINERFILE)
    engine("build", "--tag", "localhost/built:1", f"{open_folder}/home")
    assert {"copied", "probe", "work dir"} <= set(engine.run("localhost/built:1").split("\n"))
    archive = open_folder / "home/saved.tar"
    engine("save", "--output", str(archive), "localhost/probe:1")
    manifest = json.loads(
        run("tar", "--extract", "--to-stdout", "--file", archive, "manifest.json")
    )
    assert manifest[0]["Config"] == f"{base.image_id.removeprefix('sha256:')}.json"
