"""`publisher login` and `logout` against a real registry with passwords."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import publisher, succeed
from tests.components import docker_registry
from tests.layer_builder import file, image, layer, write_layout

pytestmark = pytest.mark.system

PASSWORD = "correct-horse-9d1c"


def test_a_login_serves_until_logout_and_is_kept_where_the_registry_is_known_already(
    tmp_path: Path,
) -> None:
    layout = write_layout(image(layer(file("etc/motd", b"hi"))), tmp_path / "layout", "1")
    docker_file = tmp_path / "home/.docker/config.json"
    podman_file = tmp_path / "home/.config/containers/auth.json"
    podman_file.parent.mkdir(parents=True)
    with docker_registry(tmp_path / "registry", htpasswd={"robot": PASSWORD}) as registry:
        host = f"http://{registry.host}"
        registry.push(f"oci:{layout}:1", "x/a:1", "--dest-creds", f"robot:{PASSWORD}")
        home = tmp_path / "home"
        login = ("login", host, "--username", "robot", "--password-stdin")

        refused = publisher(*login, input="wrong\n", home=home)
        assert refused.code == 1 and "does not let us in" in refused.err
        assert not docker_file.exists(), "what the registry refuses is not kept"

        result = succeed(*login, "--output", "json", input=f"{PASSWORD}\n", home=home)
        assert result.json["keptIn"] == str(docker_file)
        assert docker_file.stat().st_mode & 0o777 == 0o600
        assert succeed("tags", f"{host}/x/a", home=home).out == "1\n"
        shown = succeed("inspect", f"{host}/x/a:1", "--debug", home=home)
        assert PASSWORD not in shown.out + shown.err

        succeed("logout", host, home=home)
        assert json.loads(docker_file.read_text())["auths"] == {}
        failed = publisher("tags", f"{host}/x/a", home=home)
        assert failed.code == 1 and f"publisher login {registry.host}" in failed.err

        # podman has an older password for the registry: asked first, it would win over a newer one.
        stale = {"auths": {registry.host: {"auth": "cm9ib3Q6b2xk"}}}
        podman_file.write_text(json.dumps(stale))
        result = succeed(*login, "--output", "json", input=f"{PASSWORD}\n", home=home)
        assert result.json["keptIn"] == str(podman_file)
        assert succeed("tags", f"{host}/x/a", home=home).out == "1\n"


def test_login_without_a_terminal_wants_the_password_on_standard_input(tmp_path: Path) -> None:
    result = publisher("login", "registry.example.org", "-u", "robot", home=tmp_path)

    assert result.code == 2
    assert "--password-stdin" in result.err
