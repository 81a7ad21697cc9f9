"""Thin images end to end: from a registry, into a tree, to a registry, an engine and into files."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publisher.oci.media_types import DOCKER_MANIFEST
from tests.command import publisher, succeed
from tests.components import Registry, docker_registry, dockerd, require_root, run, skopeo_copy
from tests.layer_builder import directory, file, image, image_index, layer, write_layout
from tests.real_image import RealImages
from tests.schemas import layout_schema, recipe_schema
from tests.token_service import token_service

pytestmark = pytest.mark.system

PUSHES = re.compile(r'"(POST|PUT|PATCH) (/v2/\S*) HTTP')


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with docker_registry(tmp_path / "registry") as running:
        yield running


def pushes(registry: Registry) -> list[tuple[str, str]]:
    """(method, path) of everything that was sent to the registry, from its log."""
    return PUSHES.findall(registry.log.read_text())


def wish_list(path: Path, thin: str, *images: str, more: str = "") -> Path:
    lines = ["version: 2", f"thin: {json.dumps(thin)}", "defaults: {outputs: [flat, thin]}", more]
    lines += ["images:", *(f"  - {json.dumps(name)}" for name in images)]
    path.write_text("\n".join(lines) + "\n")
    return path


def inspect(reference: str, *options: str) -> Any:
    arguments = ("inspect", "--tls-verify=false", *options, f"docker://{reference}")
    return json.loads(run("skopeo", *arguments))


def recipe_in(reference: str, folder: Path) -> Any:
    """The recipe that a client finds in a thin image: pulled by skopeo, unpacked by umoci."""
    folder.mkdir()
    skopeo_copy(f"docker://{reference}", f"oci:{folder}/layout:1", "--src-tls-verify=false")
    run("umoci", "unpack", "--rootless", "--image", f"{folder}/layout:1", folder / "bundle")
    rootfs = folder / "bundle" / "rootfs"
    assert {path.name for path in rootfs.iterdir()} <= {"thin.json", "etc", "srv"}
    return json.loads((rootfs / "thin.json").read_bytes())


def test_the_thin_image_of_a_real_image_differs_only_in_recipe_mark_and_history(
    tmp_path: Path, registry: Registry, real_images: RealImages
) -> None:
    name = registry.push(real_images.source("numpy"), "science/numpy:1")
    thin = f"{registry.host}/thin/science/numpy:1"
    wishes = wish_list(
        tmp_path / "w.yaml", "$(scheme)://$(registry)/thin/$(image)", f"http://{name}"
    )
    tree = tmp_path / "images"

    succeed("ingest", wishes, "--repository", tree)

    before, after = inspect(name, "--config", "--raw"), inspect(thin, "--config", "--raw")
    before["config"].setdefault("Env", []).append("CVMFS_IMAGE=true")
    for changed in ("rootfs", "history"):
        del before[changed], after[changed]
    assert after == before
    recipe = recipe_in(thin, tmp_path / "pulled")
    recipe_schema().validate(recipe)
    manifest = inspect(name, "--raw")
    digests = [entry["digest"].removeprefix("sha256:") for entry in manifest["layers"]]
    assert [entry["digest"] for entry in recipe["layers"]] == digests
    for entry in recipe["layers"]:
        assert Path(entry["url"].removeprefix("file://")).is_dir()
    assert recipe["origin"] == f"http://{name}@{inspect(name)['Digest']}"
    record = json.loads((tree / ".metadata" / name / "thin-image.json").read_bytes())
    layout_schema("thin-image").validate(record)
    assert record["digest"] == inspect(thin)["Digest"]
    assert inspect(thin, "--raw")["annotations"] == {
        "org.opencontainers.image.base.name": name,
        "org.opencontainers.image.base.digest": inspect(name)["Digest"],
    }


def test_a_second_push_of_the_same_image_sends_nothing(tmp_path: Path, registry: Registry) -> None:
    built = image(layer(file("etc/a", b"a")), config={"Cmd": ["/bin/a"]})
    name = registry.push(f"oci:{write_layout(built, tmp_path / 'layout', '1')}:1", "tests/a:1")
    thin = f"{registry.host}/thin/tests/a:1"
    wishes = wish_list(
        tmp_path / "w.yaml", "$(scheme)://$(registry)/thin/$(image)", f"http://{name}"
    )
    tree = tmp_path / "images"
    succeed("ingest", wishes, "--repository", tree)
    first, sent = inspect(thin)["Digest"], len(pushes(registry))

    again = succeed("ingest", wishes, "--repository", tree, "--output", "json")
    assert again.json["outcomes"][0]["status"] == "unchanged"
    by_hand = succeed(
        "thin", name, "--repository", tree, "--push", f"http://{thin}", "--output", "json"
    )
    assert by_hand.json["result"] == "unchanged" and by_hand.json["digest"] == first
    (tree / ".metadata" / name / "thin-image.json").unlink()
    lost = succeed("ingest", wishes, "--repository", tree, "--output", "json")
    assert lost.json["outcomes"][0]["status"] == "recorded"
    assert len(pushes(registry)) == sent, "nothing was sent again"

    elsewhere = tmp_path / "elsewhere"
    succeed("ingest-image", f"http://{name}", "--repository", elsewhere)
    one, two = (
        json.loads(succeed("thin", name, "--repository", place).out) for place in (tree, elsewhere)
    )
    assert one != two
    for recipe, place in ((one, tree), (two, elsewhere)):
        for entry in recipe["layers"]:
            entry["url"] = entry["url"].removeprefix(f"file://{place}")
    assert one == two


def test_a_refused_push_leaves_the_image_published_and_a_later_run_pushes_it(
    tmp_path: Path, registry: Registry
) -> None:
    built = image(layer(file("etc/a", b"a")))
    name = registry.push(f"oci:{write_layout(built, tmp_path / 'layout', '1')}:1", "tests/a:1")
    tree, wishes = tmp_path / "images", tmp_path / "w.yaml"
    with docker_registry(tmp_path / "closed", htpasswd={"user": "secret"}) as closed:
        wish_list(wishes, f"http://{closed.host}/thin/$(image)", f"http://{name}")
        refused = publisher("ingest", wishes, "--repository", tree, "--output", "json")
        assert refused.code == 1
        [outcome] = refused.json["outcomes"]
        assert outcome["status"] == "published" and "thin" in outcome["error"]
        assert (tree / name / "etc/a").read_bytes() == b"a"

        seen = len(registry.log.read_text().splitlines())
        login = tmp_path / "auth.json"
        login.write_text(json.dumps({"auths": {closed.host: {"auth": "dXNlcjpzZWNyZXQ="}}}))
        options = ("--authfile", login, "--retry-failed", "--output", "json")
        allowed = succeed("ingest", wishes, "--repository", tree, *options)
        assert allowed.json["outcomes"][0]["status"] == "recorded"
        asked = registry.log.read_text().splitlines()[seen:]
        assert (
            sum(" /v2/tests/a" in line for line in asked if '"HEAD' in line or '"GET' in line) == 1
        )
        thin = f"docker://{closed.host}/thin/tests/a:1"
        digest = succeed("thin", name, "--repository", tree, "--save", f"oci:{tmp_path}/saved:1")
        found = run("skopeo", "inspect", "--tls-verify=false", "--creds", "user:secret", thin)
        assert json.loads(found)["Digest"] in digest.out


def test_an_image_for_several_platforms_has_one_thin_image_for_all_of_them(
    tmp_path: Path, registry: Registry
) -> None:
    built = {
        f"linux/{name}": image(layer(file("arch", name.encode())), architecture=name)
        for name in ("amd64", "arm64")
    }
    folder = tmp_path / "layout"
    for each in built.values():
        write_layout(each, folder, "single")
    index = image_index(built)
    (folder / "blobs/sha256" / index.digest.removeprefix("sha256:")).write_bytes(index.data)
    entry = {"mediaType": index.media_type, "digest": index.digest, "size": len(index.data)}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    name = registry.push(f"oci:{folder}:1", "tests/multi:1", "--all")
    thin = f"{registry.host}/thin/tests/multi:1"
    wishes = wish_list(tmp_path / "w.yaml", "$(scheme)://$(registry)/thin/$(image)")
    wishes.write_text(
        wishes.read_text()
        + f"  - {{image: 'http://{name}', platforms: [linux/amd64, linux/arm64]}}\n"
    )

    succeed("ingest", wishes, "--repository", tmp_path / "images")

    found = inspect(thin, "--raw")
    platforms = [entry["platform"]["architecture"] for entry in found["manifests"]]
    assert platforms == ["amd64", "arm64"]
    assert found["annotations"]["org.opencontainers.image.base.digest"] == index.digest
    for architecture, each in zip(platforms, built.values(), strict=True):
        config = inspect(thin, "--override-arch", architecture, "--config", "--raw")
        assert config["architecture"] == architecture
        digest = each.layers[0].digest.removeprefix("sha256:")
        entry = next(e for e in found["manifests"] if e["platform"]["architecture"] == architecture)
        recipe = recipe_in(f"{thin.rpartition(':')[0]}@{entry['digest']}", tmp_path / architecture)
        assert [layer["digest"] for layer in recipe["layers"]] == [digest]


def test_an_engine_loads_a_thin_image_and_pushes_it_with_its_config_whole(
    tmp_path: Path, registry: Registry
) -> None:
    require_root()
    settings = {"Entrypoint": ["/bin/a"], "User": "7", "Labels": {"a": "b c"}, "Env": ["A=b"]}
    built = image(layer(directory("etc"), file("etc/a", b"a")), config=settings)
    layout = write_layout(built, tmp_path / "layout", "1")
    tree = tmp_path / "images"
    succeed("ingest-image", f"oci:{layout}:1", "--name", "a", "--repository", tree)
    with dockerd(tmp_path / "docker", insecure_registries=[registry.host]) as engine:
        env = {"DOCKER_HOST": engine.socket}
        arguments = ("thin", "local/a:1", "--repository", tree)
        succeed(*arguments, "--push", "docker-daemon:thin/a:1", env=env)
        [loaded] = json.loads(engine("image", "inspect", "thin/a:1"))
        found = loaded["Config"]
        assert found["Env"] == ["A=b", "CVMFS_IMAGE=true"]
        assert {key: found[key] for key in settings if key != "Env"} == {
            key: value for key, value in settings.items() if key != "Env"
        }

        thin = f"{registry.host}/thin/a:2"
        succeed(*arguments, "--push", f"http://{thin}", "--through-engine", env=env)
        assert inspect(thin, "--config", "--raw")["config"]["Labels"] == {"a": "b c"}

        absent = "http://127.0.0.1:1/thin/a:1"
        failed = publisher(*arguments, "--push", absent, "--through-engine", env=env)
        assert failed.code == 1 and "cannot push" in failed.err and "127.0.0.1:1" in failed.err

        archive = f"docker-archive:{tmp_path / 'a.tar'}:thin/saved:1"
        succeed(*arguments, "--save", archive)
        assert "thin/saved:1" in engine("load", "--input", tmp_path / "a.tar")
    gone = publisher(*arguments, "--push", "docker-daemon:thin/a:1", env=env)
    assert gone.code == 1 and "engine" in gone.err


def test_the_thin_image_of_a_docker_image_has_dockers_format(
    tmp_path: Path, registry: Registry
) -> None:
    settings = {"Entrypoint": ["/bin/a", "it's"], "WorkingDir": "/etc", "Labels": {"a": "b c"}}
    source = f"oci:{write_layout(image(layer(file('a', b'a')), config=settings), tmp_path / 'l')}"
    name = registry.push(f"{source}:latest", "tests/docker:1", "--format", "v2s2")
    assert inspect(name, "--raw")["mediaType"] == DOCKER_MANIFEST
    wishes = wish_list(
        tmp_path / "w.yaml", "$(scheme)://$(registry)/thin/$(image)", f"http://{name}"
    )
    succeed("ingest", wishes, "--repository", tmp_path / "images")
    thin = f"{registry.host}/thin/tests/docker:1"
    manifest = inspect(thin, "--raw")
    assert manifest["mediaType"] == DOCKER_MANIFEST and "annotations" not in manifest
    before, after = inspect(name, "--config", "--raw"), inspect(thin, "--config", "--raw")
    before["config"]["Env"] = [*before["config"].get("Env", []), "CVMFS_IMAGE=true"]
    for changed in ("rootfs", "history"):
        del before[changed], after[changed]
    assert after == before
    skopeo_copy(f"docker://{thin}", f"dir:{tmp_path / 'pulled'}", "--src-tls-verify=false")


def test_a_push_requests_a_token_with_write_access(tmp_path: Path) -> None:
    tree, users = tmp_path / "images", {"mary": "s3cret"}
    layout = write_layout(image(layer(file("a", b"a"))), tmp_path / "layout", "1")
    succeed("ingest-image", f"oci:{layout}:1", "--name", "a", "--repository", tree)
    with (
        token_service(tmp_path / "service", users) as service,
        docker_registry(tmp_path / "registry", token=service) as registry,
    ):
        thin = f"http://{registry.host}/thin/a:1"
        refused = publisher("thin", "local/a:1", "--repository", tree, "--push", thin)
        assert refused.code == 1 and f"cannot push to {registry.host}/thin/a" in refused.err
        login = tmp_path / "auth.json"
        secret = base64.b64encode(b"mary:s3cret").decode()
        login.write_text(json.dumps({"auths": {registry.host: {"auth": secret}}}))
        arguments = ("--repository", tree, "--push", thin, "--authfile", login)
        assert "pushed" in succeed("thin", "local/a:1", *arguments).out
        assert "unchanged" in succeed("thin", "local/a:1", *arguments).out
