"""The main job on real images from a real registry: wish list in, tree out."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.any_repository import make_repository
from tests.command import command, environment, publisher, succeed
from tests.components import Registry, docker_registry, overlay_mount, require_root, run
from tests.flat import generated_paths
from tests.layer_builder import directory, file, image, layer, whiteout, write_layout
from tests.real_image import RealImages
from tests.trees import assert_same_tree, tree_identity

pytestmark = pytest.mark.system

CHECK_NUMPY = "import numpy; print(numpy.arange(4).sum())"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with docker_registry(tmp_path / "registry") as running:
        yield running


def wish_list(path: Path, *images: str) -> Path:
    """A version-1 wish list, as they exist in the field."""
    lines = [
        "version: 1",
        "user: tester",
        "cvmfs_repo: unpacked.example.org",
        "output_format: '$(scheme)://$(registry)/thin/$(image)'",
        "input:",
        *(f"  - {json.dumps(name)}" for name in images),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def requests_seen(registry: Registry) -> list[tuple[str, str]]:
    """(method, path) of everything that the registry was asked, from its log."""
    found = re.findall(r'"(GET|HEAD|POST|PUT|PATCH) (/v2/\S*) HTTP', registry.log.read_text())
    return [(method, path) for method, path in found if path != "/v2/"]


def layer_trees(repository: Path, name: str) -> list[Path]:
    manifest = json.loads((repository / ".metadata" / name / "manifest.json").read_bytes())
    digests = [entry["digest"].removeprefix("sha256:") for entry in manifest["layers"]]
    return [repository / ".layers" / d[:2] / d / "layerfs" for d in digests]


def test_a_real_image_is_published_and_runs_and_a_second_run_changes_nothing(
    tmp_path: Path, registry: Registry, real_images: RealImages
) -> None:
    require_root()
    name = registry.push(real_images.source("numpy"), "science/numpy:1")
    wishes = wish_list(tmp_path / "wishes.yaml", f"http://{name}")
    repository = tmp_path / "images"

    succeed("ingest", wishes, "--repository", f"dir:{repository}")

    public = repository / name
    assert public.is_symlink() and not os.readlink(public).startswith("/")
    assert run("chroot", public, "python3", "-B", "-c", CHECK_NUMPY).strip() == "6"
    with overlay_mount(layer_trees(repository, name)) as mounted:
        assert_same_tree(public.resolve(), mounted, ignore_paths=generated_paths(mounted))
    manifest = (repository / ".metadata" / name / "manifest.json").read_bytes()
    inspected = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert manifest.decode() == inspected

    before, asked = tree_identity(repository), len(requests_seen(registry))
    second = succeed("ingest", wishes, "--repository", f"dir:{repository}", "--output", "json")
    changed = {
        path
        for path, identity in tree_identity(repository).items()
        if before.get(path) != identity and not path.startswith(".metadata/.publisher")
    }
    assert [o["status"] for o in second.json["outcomes"]] == ["unchanged"]
    assert not changed
    assert requests_seen(registry)[asked:] == [("HEAD", "/v2/science/numpy/manifests/1")]


def test_one_good_one_missing_one_malformed_image_publishes_the_good_one_and_names_both_failures(
    tmp_path: Path, registry: Registry, real_images: RealImages
) -> None:
    good = registry.push(real_images.source("base"), "library/base:1")
    missing = f"{registry.host}/library/absent:1"
    malformed = f"http://{registry.host}/library/UPPER case:1"
    wishes = wish_list(tmp_path / "wishes.yaml", f"http://{good}", f"http://{missing}", malformed)
    repository = tmp_path / "images"

    result = publisher("ingest", wishes, "--repository", repository)

    assert result.code == 1
    assert (repository / good / "bin").exists()
    assert not (repository / missing).exists()
    last_lines = "\n".join(result.err.strip().splitlines()[-2:])
    assert missing in last_lines and "UPPER case" in last_lines
    assert f"{registry.host} does not have it" in last_lines


def test_images_that_share_a_base_download_and_store_it_once(
    tmp_path: Path, registry: Registry, real_images: RealImages
) -> None:
    base = registry.push(real_images.source("base"), "library/base:1")
    python = registry.push(real_images.source("python"), "library/python:1")
    wishes = wish_list(tmp_path / "wishes.yaml", f"http://{base}", f"http://{python}")
    repository = tmp_path / "images"
    pushed = len(requests_seen(registry))

    succeed("ingest", wishes, "--repository", repository, "--jobs", "4")

    fetched = [path for _, path in requests_seen(registry)[pushed:] if "/blobs/" in path]
    trees = layer_trees(repository, python)
    base_digest = layer_trees(repository, base)[0].parent.name
    assert trees[0] == layer_trees(repository, base)[0]
    assert sum(base_digest in path for path in fetched) == 1
    layers = int(run("du", "-s", "--block-size=1", repository / ".layers").split()[0])
    everything = run("du", "-s", "--block-size=1", repository / ".layers", repository / ".flat")
    flat = int(everything.splitlines()[1].split()[0])
    # du counts a hard link once: the flat images cost their directories, and no file.
    directories = sum(len(found) + 1 for _, found, _ in os.walk(repository / ".flat"))
    assert flat < 0.1 * layers
    assert flat <= directories * 3 * 4096
    origin = json.loads((trees[0].parent / ".metadata" / "origin.json").read_bytes())["origin"]
    assert len(origin) == 2


def test_a_tampered_blob_fails_its_image_with_both_digests_and_shows_nothing_of_it(
    tmp_path: Path, registry: Registry
) -> None:
    built = image(layer(directory("etc"), file("etc/secret", os.urandom(100_000))))
    layout = write_layout(built, tmp_path / "layout", "1")
    name = registry.push(f"oci:{layout}:1", "tests/tampered:1")
    expected = built.layers[0].descriptor.digest
    blob = registry.blob_path(expected)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    repository = tmp_path / "images"

    result = publisher("ingest-image", f"http://{name}", "--repository", repository)

    actual = run("sha256sum", blob).split()[0]
    assert result.code == 1
    assert expected in result.err and f"sha256:{actual}" in result.err
    visible = {path.name for path in repository.rglob("*") if ".publisher" not in path.parts}
    assert "secret" not in visible
    assert visible <= {".metadata"}
    assert not list((repository / ".metadata/.publisher/layers").iterdir())


def test_sigint_during_a_download_shows_nothing_and_the_next_run_completes(
    tmp_path: Path, registry: Registry
) -> None:
    noise = [file(f"part{n}", os.urandom(20_000_000)) for n in range(3)]
    layers = [layer(member) for member in noise]
    layout = write_layout(image(*layers), tmp_path / "layout", "1")
    name = registry.push(f"oci:{layout}:1", "tests/large:1")
    repository = tmp_path / "images"
    arguments = ("ingest-image", f"http://{name}", "--repository", repository, "--jobs", "1")

    process = subprocess.Popen(
        command(*arguments), stderr=subprocess.PIPE, text=True, env=environment()
    )
    layers_seen = repository / ".metadata/.publisher/layers"
    deadline = time.monotonic() + 60
    while not (layers_seen.exists() and any(layers_seen.iterdir())):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "interrupted" in err
    assert not (repository / name).is_symlink()
    assert not (repository / ".flat").exists()

    again = succeed(*arguments, "--output", "json")
    outcome = again.json["outcomes"][0]
    assert outcome["status"] == "published"
    assert outcome["layersReused"] >= 1, "finished layers of the interrupted run are kept"
    for number in range(3):
        assert (repository / name / f"part{number}").stat().st_size == 20_000_000


def test_a_moved_tag_is_followed_and_the_old_manifest_is_scheduled(
    tmp_path: Path, registry: Registry
) -> None:
    base = layer(directory("etc"), file("etc/motd", b"old"), file("gone", b"x"))
    first = write_layout(image(base), tmp_path / "layout", "first")
    write_layout(image(base, layer(whiteout("gone"), file("etc/motd", b"new"))), first, "second")
    name = registry.push(f"oci:{first}:first", "tests/moving:1")
    repository = tmp_path / "images"
    succeed("ingest-image", f"http://{name}", "--repository", repository)
    old = (repository / ".metadata" / name / "manifest.json").read_bytes()

    registry.push(f"oci:{first}:second", "tests/moving:1")
    result = succeed(
        "ingest-image", f"http://{name}", "--repository", repository, "--output", "json"
    )

    assert result.json["outcomes"][0]["status"] == "updated"
    assert result.json["outcomes"][0]["layersReused"] == 1
    assert (repository / name / "etc/motd").read_text() == "new"
    assert not (repository / name / "gone").exists()
    hexadecimal = hashlib.sha256(old).hexdigest()
    retired = repository / ".metadata/.retired" / hexadecimal[:2] / hexadecimal
    [entry] = json.loads((retired / "schedule.json").read_bytes())["entries"]
    assert entry["manifest"] == json.loads(old)
    assert entry["reason"] == "tag-moved" and entry["name"] == name
    assert entry["notBefore"] > entry["scheduledAt"]
    assert entry["manifestDigest"] == f"sha256:{hexadecimal}"
    assert (retired / "manifest.json").read_bytes() == old


def test_a_repository_that_becomes_unusable_does_not_hide_what_was_published(
    tmp_path: Path,
) -> None:
    """The disk of the server is full after the first of four images."""
    place = make_repository("cvmfs", tmp_path)
    lines = ""
    for tag, path in (("1", "small"), ("2", "large/2"), ("3", "large/3"), ("4", "large/4")):
        directory = write_layout(image(layer(file(path, tag.encode()))), tmp_path / "layout", tag)
        lines += f"  - image: oci:{directory}:{tag}\n    name: n\n"
    wishes = tmp_path / "wishes.yaml"
    wishes.write_text(f"version: 2\nrepository: {place.url}\nimages:\n{lines}")
    refusal = {
        "CVMFS_STANDIN_REFUSE": "large/",
        "CVMFS_STANDIN_REFUSAL": "write: No space left on device",
    }
    command = ("ingest", wishes, "--jobs", "1")
    result = publisher(*command, env={**place.env, **refusal})
    assert result.code == 3
    assert "published: local/n:1" in result.out and "1 published, 1 failed" in result.out
    assert result.err.count("No space left") == 2, "the first image, and the repository"
    assert result.err.count("try: free space") == 1 and "local/n:4" not in result.err
    shown = succeed("status", wishes, "--repository", place.url, "--output", "json", env=place.env)
    last = shown.json["lastRun"]
    assert last["exitCode"] == 3 and "one after another" in last["error"]
    result = publisher(*command, "--output", "json", env={**place.env, **refusal})
    assert result.code == 3
    found = [(each["status"], each["cause"]) for each in result.json["outcomes"]]
    assert found == [
        ("unchanged", ""),
        ("failed", "no-space"),
        ("failed", "repository"),
        ("failed", "repository"),
    ]
    succeed(*command, env=place.env)


def test_an_unusable_repository_does_not_hide_what_was_published_to_another(tmp_path: Path) -> None:
    layout = write_layout(image(layer(file("etc/motd", b"hi"))), tmp_path / "layout", "1")
    lists = []
    for name, repository in (("good", tmp_path / "good"), ("bad", tmp_path / "absent/bad")):
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            f"version: 2\nrepository: dir:{repository}\n"
            f"images:\n  - image: oci:{layout}:1\n    name: {name}\n"
        )
        lists.append(path)

    result = publisher("ingest", *lists, "--output", "json")

    assert result.code == 3
    assert [o["status"] for o in result.json["outcomes"]] == ["published", "failed"]
    assert "does not exist" in result.json["outcomes"][1]["error"]
    assert (tmp_path / "good/local/good:1/etc/motd").exists()
