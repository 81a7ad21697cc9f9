"""`publisher login` and `logout` against a real registry with passwords."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from tests.command import command, environment, publisher, succeed
from tests.components import docker_registry
from tests.layer_builder import file, image, layer, write_layout
from tests.registry import OwnRegistry
from tests.registry_auth import BasicAuth

pytestmark = pytest.mark.system

PASSWORD = "correct-horse-9d1c"


def test_a_login_is_stored_in_the_file_that_has_the_registry_and_is_used_until_logout(
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
        assert refused.code == 1 and "cannot log in" in refused.err
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
        assert failed.code == 1 and f"publisher login http://{registry.host}" in failed.err

        # podman has an older password for the registry: asked first, it would win over a newer one.
        stale = {"auths": {registry.host: {"auth": "cm9ib3Q6b2xk"}}}
        podman_file.write_text(json.dumps(stale))
        result = succeed(*login, "--output", "json", input=f"{PASSWORD}\n", home=home)
        assert result.json["keptIn"] == str(podman_file)
        assert succeed("tags", f"{host}/x/a", home=home).out == "1\n"


def test_login_without_a_terminal_requires_the_password_on_standard_input(tmp_path: Path) -> None:
    result = publisher("login", "registry.example.org", "-u", "robot", home=tmp_path)

    assert result.code == 2
    assert "--password-stdin" in result.err


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_a_password_of_many_lines_is_read_whole(tmp_path: Path, ending: bytes) -> None:
    """Some clouds give a JSON document for a password."""
    password = '{\n  "key": "geheim"\n}'
    with OwnRegistry(BasicAuth({"_json_key": password})) as registry:
        command_line = command("login", registry.url, "-u", "_json_key", "--password-stdin")
        subprocess.run(
            command_line, input=password.encode() + ending, env=environment(tmp_path), check=True
        )
    kept = json.loads((tmp_path / ".docker/config.json").read_text())
    entry = base64.b64decode(kept["auths"][registry.host]["auth"]).decode()
    assert entry == f"_json_key:{password}"


@pytest.mark.parametrize(
    ("username", "password", "why"),
    [
        ("an:n", b"x\n", "contains a colon"),
        ("ann", b"\xff\xfe\n", "UTF-8"),
        ("ann", b"x" * 70_000, "longer than 65536 bytes"),
        ("ann", b"\n", "are needed"),
    ],
)
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_an_invalid_login_is_refused_before_it_is_sent(
    tmp_path: Path, username: str, password: bytes, why: str, locale: str
) -> None:
    with OwnRegistry(BasicAuth({"ann": "x"})) as registry:
        done = subprocess.run(
            command("login", registry.url, "-u", username, "--password-stdin"),
            input=password,
            env=environment(tmp_path, LC_ALL=locale, PYTHONCOERCECLOCALE="0"),
            capture_output=True,
        )
        assert registry.count() == 0
    assert done.returncode == 2
    assert why in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_credentials_file_that_is_named_explicitly_has_to_exist(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.json")
    with OwnRegistry(BasicAuth({"ann": "x"})) as registry:
        for options, env in (
            (["--authfile", absent], {}),
            ([], {"REGISTRY_AUTH_FILE": absent}),
        ):
            result = publisher("tags", f"{registry.url}/x", *options, home=tmp_path, env=env)
            assert result.code == 2
            assert f"cannot read credentials {absent}" in result.err
        assert registry.count() == 0
        login = ("login", registry.url, "-u", "ann", "--password-stdin", "--authfile", absent)
        assert publisher(*login, input="x\n").code == 0, "login makes it"
        assert publisher("tags", f"{registry.url}/x", "--authfile", absent).code == 1
        assert registry.seen("GET", "/x/")[-1].headers["authorization"]
