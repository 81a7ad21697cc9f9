"""The registry that `login` and `logout` mean. tests/unit/sources has the tests of the login."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import publisher, succeed

HUB = "https://index.docker.io/v1/"
SECRET = "s3cret-of-hub"


@pytest.fixture
def authfile(tmp_path: Path) -> Path:
    path = tmp_path / "auth.json"
    entry = {"auth": "YW5uOnMzY3JldA=="}
    path.write_text(json.dumps({"auths": {HUB: entry, "team": entry, "127.0.0.1:1": entry}}))
    return path


def kept(authfile: Path) -> set[str]:
    return set(json.loads(authfile.read_bytes())["auths"])


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io"])
def test_docker_hub_is_known_by_its_names(authfile: Path, name: str) -> None:
    succeed("logout", name, "--authfile", authfile)
    assert kept(authfile) == {"team", "127.0.0.1:1"}


def test_a_name_without_a_dot_is_a_host_and_never_a_name_of_docker_hub(authfile: Path) -> None:
    succeed("logout", "team", "--authfile", authfile)
    assert kept(authfile) == {HUB, "127.0.0.1:1"}


@pytest.mark.parametrize("name", ["127.0.0.1:1", "http://127.0.0.1:1", "https://127.0.0.1:1/"])
def test_a_registry_may_be_written_with_its_scheme(authfile: Path, name: str) -> None:
    succeed("logout", name, "--authfile", authfile)
    assert kept(authfile) == {HUB, "team"}


@pytest.mark.parametrize("name", ["127.0.0.1:1/team", "http://127.0.0.1:1/team", "quay.io/a:1", ""])
@pytest.mark.parametrize("verb", ["login", "logout"])
def test_text_that_is_not_a_registry_is_refused_before_anything_is_sent(
    authfile: Path, verb: str, name: str
) -> None:
    credentials = ("-u", "ann", "--password-stdin") if verb == "login" else ()
    result = publisher(verb, name, *credentials, "--authfile", authfile, input=SECRET)
    assert result.code == 2
    assert "Traceback" not in result.err and SECRET not in result.err
    assert kept(authfile) == {HUB, "team", "127.0.0.1:1"}


def test_an_engine_or_a_layout_is_not_a_registry(authfile: Path) -> None:
    assert publisher("logout", "oci:x", "--authfile", authfile).code == 2
