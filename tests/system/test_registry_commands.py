"""`publisher inspect` and `tags`, and where commands find settings, credentials and proxies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import publisher, succeed
from tests.layer_builder import image, image_index
from tests.registry import OwnRegistry
from tests.registry_auth import BasicAuth, basic
from tests.registry_images import noisy_layer, sample_image, write_auths

pytestmark = pytest.mark.system


def test_inspect_shows_platforms_sizes_and_which_layers_are_published(tmp_path: Path) -> None:
    same = noisy_layer(5_000)
    images = {
        "linux/amd64": image(same, noisy_layer(7_000, 1)),
        "linux/arm64": image(same, noisy_layer(9_000, 2), architecture="arm64"),
        "unknown/unknown": sample_image(10, seed=9),
    }
    index = image_index(images)
    amd64, arm64, _ = images.values()
    with OwnRegistry() as registry:
        for built in images.values():
            registry.add("library/x", None, built)
        registry.add_document("library/x", "1", index)
        name = f"{registry.url}/library/x:1"
        raw = succeed("inspect", name, "--raw").out
        assert raw.encode() == index.data

        found = succeed("inspect", name, "--output", "json").json
        assert (found["digest"], found["mediaType"]) == (index.digest, index.media_type)
        assert found["platforms"] == ["linux/amd64", "linux/arm64"]
        for shown, built in zip(found["images"], (amd64, arm64), strict=True):
            assert shown["manifestDigest"] == built.manifest.digest
            assert shown["imageId"] == built.image_id
            assert shown["config"] == json.loads(built.config)
            assert shown["layers"] == [
                {
                    "digest": each.digest,
                    "mediaType": each.descriptor.media_type,
                    "compressedBytes": len(each.blob),
                    "published": None,
                }
                for each in built.layers
            ]
        images_there = tmp_path / "images"
        succeed("ingest-image", name, "--repository", images_there)
        words = ("inspect", name, "--repository", images_there)
        found = succeed(*words, "--output", "json").json
        there = [[layer["published"] for layer in shown["layers"]] for shown in found["images"]]
        assert there == [[True, True], [True, False]]
        found = succeed(*words, "--platform", "linux/arm64", "--output", "json").json
        assert [shown["platform"] for shown in found["images"]] == ["linux/arm64"]
        text = succeed(*words).out
        assert "platforms:  linux/amd64, linux/arm64" in text
        assert [
            line.split()[-1] for line in text.splitlines() if line.startswith("    sha256:")
        ] == [
            *("published", "published"),
            *("published", "new"),
        ]
        assert registry.count("GET", f"/blobs/{amd64.layers[0].digest}") == 1, "by the ingest"


def test_the_command_tags_matches_as_a_wish_list_does() -> None:
    with OwnRegistry(page=2) as registry:
        for tag in ("1.9", "1.10", "1.10-rc1", "2.0", "latest"):
            registry.add("library/x", tag, sample_image())
        name = f"{registry.url}/library/x"
        everything = ["1.9", "1.10", "1.10-rc1", "2.0", "latest"]
        assert succeed("tags", name).out.split() == everything
        chosen = ("--match", "1.*", "--match", ">=2", "--exclude", "*-rc*")
        assert succeed("tags", name, *chosen).out.split() == ["1.9", "1.10", "2.0"]
        found = succeed("tags", name, "--exclude", "1*", "--output", "json").json
        assert found["tags"] == ["2.0", "latest"]
        nothing = publisher("tags", name, "--match", "3.*")
        assert nothing.code == 1
        assert "no tag matches 3.*" in nothing.err


def test_settings_are_found_by_option_then_variable_then_the_users_own_place(
    tmp_path: Path,
) -> None:
    """Each of the four files has a mistake: the one that is complained about was read."""
    files = {
        name: tmp_path / name / "publisher/config.yaml"
        for name in ("option", "variable", "xdg", "home/.config")
    }
    for file in files.values():
        file.parent.mkdir(parents=True)
        file.write_text("mistake: true\n")
    option, variable, xdg, own = files.values()
    env = {"PUBLISHER_CONFIG": str(variable), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    home = tmp_path / "home"
    for file, options in (
        (option, ["--config", str(option)]),
        (variable, []),
        (xdg, []),
        (own, []),
    ):
        result = publisher("tags", "http://127.0.0.1:1/x", *options, home=home, env=env)
        assert result.code == 1
        assert f"{file}:1:1: error: unknown key 'mistake'" in result.err
        if file is variable or file is xdg:
            del env["PUBLISHER_CONFIG" if file is variable else "XDG_CONFIG_HOME"]
    absent = publisher("tags", "http://127.0.0.1:1/x", "--config", tmp_path / "absent")
    assert absent.code == 2
    assert "cannot read configuration" in absent.err


def test_credentials_are_looked_up_in_the_documented_order(tmp_path: Path) -> None:
    """All places know the registry, each by another name; the first of them is taken away."""
    home = tmp_path / "home"
    users = ("in-environment", "own-file", "in-runtime", "in-config", "in-docker")
    with OwnRegistry(BasicAuth(dict.fromkeys(users, "x"))) as registry:
        registry.add("library/x", "1", sample_image())

        def write(path: Path, user: str) -> Path:
            path.parent.mkdir(parents=True, exist_ok=True)
            return write_auths(path, {registry.host: (user, "x")})

        config = tmp_path / "config.yaml"
        own = write(tmp_path / "own.json", "own-file")
        settings = {"registries": {registry.host: {"credentials": str(own)}}}
        config.write_text(json.dumps(settings))
        runtime = write(tmp_path / "run/containers/auth.json", "in-runtime")
        in_config = write(home / ".config/containers/auth.json", "in-config")
        write(tmp_path / "docker/config.json", "in-docker")
        env = {
            "DOCKER_AUTH_CONFIG": write(tmp_path / "text", "in-environment").read_text(),
            "PUBLISHER_CONFIG": str(config),
            "XDG_RUNTIME_DIR": str(tmp_path / "run"),
            "DOCKER_CONFIG": str(tmp_path / "docker"),
        }
        for user in users:
            succeed("tags", f"{registry.url}/library/x", home=home, env=env)
            assert registry.requests[-1].headers["authorization"] == basic(user, "x")
            match user:
                case "in-environment":
                    del env["DOCKER_AUTH_CONFIG"]
                case "own-file":
                    del env["PUBLISHER_CONFIG"]
                case "in-runtime":
                    runtime.unlink()
                case "in-config":
                    in_config.unlink()
        asked_for = write(tmp_path / "asked.json", "in-environment")
        env["REGISTRY_AUTH_FILE"] = str(asked_for)
        succeed("tags", f"{registry.url}/library/x", home=home, env=env)
        assert registry.requests[-1].headers["authorization"] == basic("in-environment", "x")


def test_plain_http_goes_through_its_proxy_unless_no_proxy_excludes_the_host() -> None:
    with OwnRegistry() as proxy, OwnRegistry() as registry:
        for each in (proxy, registry):
            each.add("library/x", "1", sample_image())
        far = "http://registry.example.org/library/x"
        for variable in ("http_proxy", "HTTP_PROXY"):
            assert succeed("tags", far, env={variable: proxy.url}).out == "1\n"
        assert {r.target for r in proxy.requests} == {
            "http://registry.example.org/v2/library/x/tags/list"
        }
        env = {"HTTP_PROXY": proxy.url, "NO_PROXY": "example.com,127.0.0.0/8"}
        assert succeed("tags", f"{registry.url}/library/x", env=env).out == "1\n"
        assert (len(proxy.requests), len(registry.requests)) == (2, 1)
