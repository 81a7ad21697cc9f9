from __future__ import annotations

import base64
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.sources import AuthenticationFailed
from publisher.sources.credentials.files import remove_login, store_login
from publisher.sources.credentials.helper import get_from_helper
from publisher.sources.credentials.lookup import Credential, Credentials, key_of, lookup_keys
from publisher.sources.settings import RegistrySettings, Settings


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def find(config: Any, registry: str, repository: str = "library/x") -> Credential | None:
    return Credentials(Settings(credentials=json.dumps(config))).find(registry, repository)


def user(config: Any, registry: str, repository: str = "library/x") -> str | None:
    found = find(config, registry, repository)
    return found.username if found else None


def make_helper(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_a_credential_matches_the_exact_host_only() -> None:
    config = {"auths": {"registry.example.org": auth("ann", "a")}}
    assert user(config, "registry.example.org") == "ann"
    for other in (
        "example.org",
        "registry.example.org.evil.net",
        "evil-registry.example.org",
        "registry.example.or",
        "registry.example.org:5000",
        "sub.registry.example.org",
    ):
        assert user(config, other) is None, other


def test_the_longest_path_wins_and_only_whole_components_count() -> None:
    config = {
        "auths": {
            "quay.io": auth("host", "1"),
            "quay.io/group": auth("group", "2"),
            "quay.io/group/project": auth("project", "3"),
        }
    }
    assert user(config, "quay.io", "other/x") == "host"
    assert user(config, "quay.io", "group") == "group"
    assert user(config, "quay.io", "group/x") == "group"
    assert user(config, "quay.io", "groupie/x") == "host"
    assert user(config, "quay.io", "group/project/x") == "project"
    assert user({"auths": {"quay.io/group": auth("group", "2")}}, "quay.io", "other/x") is None


@pytest.mark.parametrize(
    "key",
    [
        "https://index.docker.io/v1/",
        "index.docker.io",
        "docker.io",
        "registry-1.docker.io",
        "https://index.docker.io/v2/",
        "hub.docker.com",
    ],
)
@pytest.mark.parametrize("registry", ["docker.io", "index.docker.io", "registry.hub.docker.com"])
def test_docker_hub_is_one_registry_with_many_names(key: str, registry: str) -> None:
    assert user({"auths": {key: auth("ann", "a")}}, registry) == "ann"


def test_keys_that_are_addresses_mean_their_host() -> None:
    for key in ("https://quay.io", "http://quay.io/v1/", "https://quay.io/v2/", "QUAY.io"):
        assert user({"auths": {key: auth("ann", "a")}}, "quay.io") == "ann"


def test_a_password_may_hold_colons_and_letters_of_any_kind() -> None:
    found = find({"auths": {"quay.io": auth("ann", "pa:ss:wörd")}}, "quay.io")
    assert found is not None
    assert found.password == "pa:ss:wörd"
    assert "wörd" not in repr(found)


def test_an_identity_token_is_found() -> None:
    found = find({"auths": {"quay.io": {"auth": "eA==", "identitytoken": "t0ken"}}}, "quay.io")
    assert found is not None
    assert (found.identity_token, found.password) == ("t0ken", "")
    assert "t0ken" not in repr(found)


def test_a_user_name_and_password_in_fields_of_their_own_are_found() -> None:
    found = find({"auths": {"quay.io": {"username": "ann", "password": "a"}}}, "quay.io")
    assert found is not None
    assert (found.username, found.password) == ("ann", "a")


def test_the_first_file_with_a_credential_for_the_registry_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(json.dumps({"auths": {"a.io": auth("ann", "1")}}))
    second.write_text(json.dumps({"auths": {"a.io": auth("old", "2"), "b.io": auth("ben", "3")}}))
    credentials = Credentials(Settings(credential_files=(tmp_path / "none", first, second)))
    found = [credentials.find(host, "x") for host in ("a.io", "b.io", "c.io")]
    assert [each.username if each else None for each in found] == ["ann", "ben", None]
    assert [each.origin if each else None for each in found] == [str(first), str(second), None]


def test_a_registrys_own_file_comes_before_the_others(tmp_path: Path) -> None:
    own, usual = tmp_path / "own", tmp_path / "usual"
    own.write_text(json.dumps({"auths": {"a.io": auth("ann", "1")}}))
    usual.write_text(json.dumps({"auths": {"a.io": auth("old", "2")}}))
    settings = Settings({"a.io": RegistrySettings(credentials=own)}, credential_files=(usual,))
    found = Credentials(settings).find("a.io", "x")
    assert found is not None
    assert found.username == "ann"
    own.unlink()
    with pytest.raises(AuthenticationFailed, match="No such file"):
        Credentials(settings).find("a.io", "x")


@pytest.mark.parametrize(
    "text",
    [
        "s3cret",
        '["s3cret"]',
        '{"auths": ["s3cret"]}',
        '{"auths": {"quay.io": "s3cret"}}',
        '{"auths": {"quay.io": {"auth": "s3cret"}}}',
        '{"auths": {"quay.io": {"auth": 7, "x": "s3cret"}}}',
        '{"auths": {"quay.io": {"auth": "c-3-c-r-e-t-s3cret!"}}}',
        '{"auths": {"quay.io": {"auth": "////s3cret"}}}',
        "[" * 100_000,
    ],
)
def test_a_malformed_file_is_an_error_that_does_not_quote_it(text: str) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        Credentials(Settings(credentials=text)).find("quay.io", "x")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        '{"username": "a\\ud800", "password": "s3cret"}',
        '{"username": "ann", "password": "s3cret\\udfff"}',
        '{"username": ["ann"], "password": ["s3cret"]}',
        '{"username": 5, "password": "s3cret"}',
        '{"auth": "YW5uOnMzY3JldA==", "identitytoken": "s3cret\\ud800"}',
        '{"auth": "YW5uOnMzY3JldA==", "identitytoken": 5}',
        '{"auth": "/zr+"}',
        '{"auth": "s3cret"}',
        '{"auth": 5}',
        '["s3cret"]',
        "null",
    ],
)
def test_an_entry_that_cannot_be_sent_is_an_error_that_does_not_quote_it(entry: str) -> None:
    with pytest.raises(AuthenticationFailed, match=r"for quay\.io .* malformed") as caught:
        find({"auths": {"quay.io": json.loads(entry)}}, "quay.io")
    assert "s3cret" not in str(caught.value)


def test_a_malformed_entry_of_another_registry_is_ignored() -> None:
    config = {"auths": {"broken.io": {"auth": "!"}, "quay.io": auth("ann", "a")}}
    assert user(config, "quay.io") == "ann"


@given(st.text(), st.text())
def test_keys_match_whole_hosts_and_path_components_only(key: str, host: str) -> None:
    if key_of(key) in lookup_keys(host, "a/b"):
        assert key_of(key).partition("/")[0] == lookup_keys(host, "a/b")[-1].partition("/")[0]


# Helpers ------------------------------------------------------------------------------------------

ANSWER = 'cat >/dev/null; echo \'{"ServerURL":"x","Username":"ann","Secret":"s3cret-ann"}\''


def test_a_helper_gets_the_name_of_the_registry(programs: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    make_helper(
        programs,
        "test",
        f'echo "$1 $(cat)" >> {asked}\necho \'{{"Username":"ann","Secret":"s3cret-ann"}}\'',
    )
    for config in ({"credsStore": "test"}, {"credHelpers": {"quay.io": "test"}}):
        found = find(config, "quay.io")
        assert found is not None
        assert (found.username, found.password) == ("ann", "s3cret-ann")
    find({"credHelpers": {"https://index.docker.io/v1/": "test"}}, "docker.io")
    assert asked.read_text().splitlines() == [
        "get quay.io",
        "get quay.io",
        "get https://index.docker.io/v1/",
    ]


def test_a_helper_runs_once_for_all_images(programs: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    make_helper(programs, "test", f"echo asked >> {asked}; {ANSWER}")
    credentials = Credentials(Settings(credentials='{"credsStore": "test"}'))
    for number in range(10):
        assert credentials.find("quay.io", f"group/image-{number}")
    assert asked.read_text() == "asked\n"


def test_a_helper_set_for_a_registry_in_the_configuration_comes_first(programs: Path) -> None:
    make_helper(programs, "test", ANSWER)
    settings = Settings(
        {"quay.io": RegistrySettings(credential_helper="test")},
        credentials=json.dumps({"auths": {"quay.io": auth("old", "x")}}),
    )
    found = Credentials(settings).find("quay.io", "x")
    assert found is not None
    assert found.username == "ann"


def test_a_helper_may_keep_an_identity_token(programs: Path) -> None:
    make_helper(
        programs, "test", 'cat >/dev/null; echo \'{"Username":"<token>","Secret":"t0ken"}\''
    )
    found = find({"credsStore": "test"}, "quay.io")
    assert found is not None
    assert (found.identity_token, found.password) == ("t0ken", "")


def test_a_helper_without_a_credential_is_not_an_error(programs: Path) -> None:
    make_helper(
        programs, "test", "cat >/dev/null; echo credentials not found in native keychain; exit 1"
    )
    assert find({"credsStore": "test"}, "quay.io") is None
    config = {"credHelpers": {"quay.io": "test"}, "auths": {"quay.io": auth("ann", "a")}}
    assert user(config, "quay.io") == "ann"


@pytest.mark.parametrize(
    "script",
    [
        "echo s3cret; exit 1",
        "echo s3cret >&2; exit 3",
        "echo s3cret",
        'echo \'{"Username": 7, "Secret": "s3cret"}\'',
        "echo '[]'",
        "head -c 200000 /dev/zero | tr '\\0' '['",
        'echo \'{"Username": "a\\ud800", "Secret": "s3cret"}\'',
        'echo \'{"Username": "a", "Secret": "s3cret\\ud800"}\'',
        "printf '\\377s3cret'",
        "kill -9 $$",
    ],
)
def test_a_helper_that_fails_is_an_error_that_does_not_quote_it(
    programs: Path, script: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make_helper(programs, "test", f"cat >/dev/null; {script}")
    with pytest.raises(AuthenticationFailed, match="docker-credential-test") as caught:
        find({"credsStore": "test"}, "quay.io")
    printed = capfd.readouterr()
    assert "s3cret" not in str(caught.value) + printed.out + printed.err


def test_a_helper_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(AuthenticationFailed, match="no such program"):
        find({"credsStore": "no-such-helper-here"}, "quay.io")


@pytest.mark.parametrize("name", ["../evil", "a b", "-x", ""])
def test_a_helper_cannot_be_a_path(name: str) -> None:
    with pytest.raises(AuthenticationFailed):
        get_from_helper(name, "quay.io")


def test_a_helper_that_hangs_is_ended_after_its_time_limit(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.sources.credentials.helper.TIMEOUT", 0.2)
    make_helper(programs, "test", "exec sleep 30")
    with pytest.raises(AuthenticationFailed, match="no answer"):
        get_from_helper("test", "quay.io")


def test_a_helper_that_failed_does_not_run_for_every_other_image(
    programs: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    make_helper(programs, "test", f"echo x >> {asked}; exit 1")
    credentials = Credentials(Settings(credentials='{"credsStore": "test"}'))
    for number in range(5):
        with pytest.raises(AuthenticationFailed, match="status 1"):
            credentials.find("quay.io", f"library/x{number}")
    assert asked.read_text() == "x\n"


def test_a_slow_helper_delays_its_own_registry_only(programs: Path, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    os.mkfifo(go_on)
    make_helper(programs, "slow", f"read x < {go_on}; exit 1")
    make_helper(programs, "quick", 'echo \'{"Username": "ann", "Secret": "x"}\'')
    helpers = {"credHelpers": {"slow.io": "slow", "quick.io": "quick"}}
    credentials = Credentials(Settings(credentials=json.dumps(helpers)))
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(credentials.find, "slow.io", "x")
        with go_on.open("w") as release:  # opened as soon as the helper reads
            found = pool.submit(credentials.find, "quick.io", "x").result(timeout=20)
            assert found is not None and found.username == "ann"
            assert not waiting.done()
            release.write("on\n")
        with pytest.raises(AuthenticationFailed):
            waiting.result()


# Logging in ---------------------------------------------------------------------------------------


def test_a_login_is_stored_as_docker_stores_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "config.json"
    assert store_login(path, "quay.io", "ann", "s3cret") == str(path)
    store_login(path, "docker.io", "ben", "pa:ss")
    assert json.loads(path.read_text()) == {
        "auths": {
            "quay.io": auth("ann", "s3cret"),
            "https://index.docker.io/v1/": auth("ben", "pa:ss"),
        }
    }
    assert path.stat().st_mode & 0o7777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["config.json"]


def test_a_login_leaves_the_rest_of_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    before = {
        "auths": {"a.io": auth("x", "y"), "https://quay.io/v1/": auth("o", "p")},
        "proxies": {"default": {}},
        "detachKeys": "ctrl-e,e",
    }
    path.write_text(json.dumps(before))
    link = tmp_path / "link.json"
    link.symlink_to(path)
    store_login(link, "quay.io", "ann", "s3cret")
    assert link.is_symlink()
    assert json.loads(path.read_text()) == {
        **before,
        "auths": {"a.io": auth("x", "y"), "quay.io": auth("ann", "s3cret")},
    }
    assert remove_login(path, "quay.io") is True
    assert remove_login(path, "quay.io") is False
    assert json.loads(path.read_text()) == {**before, "auths": {"a.io": auth("x", "y")}}


def test_concurrent_logins_and_logouts_do_not_overwrite_each_other(tmp_path: Path) -> None:
    path = tmp_path / "docker" / "config.json"
    hosts = [f"r{number}.example.org" for number in range(24)]
    for host in hosts[::2]:
        store_login(path, host, "old", "s3cret")

    def change(number: int) -> None:
        if number % 2:
            store_login(path, hosts[number], "new", "s3cret")
        else:
            assert remove_login(path, hosts[number])

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(change, number) for number in range(len(hosts))]:
            future.result()
    assert set(json.loads(path.read_text())["auths"]) == set(hosts[1::2])
    assert [entry.name for entry in path.parent.iterdir()] == ["config.json"]


def test_a_login_goes_to_the_helper_where_one_is_named(programs: Path, tmp_path: Path) -> None:
    reported = tmp_path / "reported"
    make_helper(programs, "test", f'echo "$1 $(cat)" >> {reported}')
    path = tmp_path / "config.json"
    path.write_text('{"credHelpers": {"quay.io": "test"}}')
    assert store_login(path, "quay.io", "ann", "s3cret") == "docker-credential-test"
    assert remove_login(path, "quay.io") is True
    assert path.read_text() == '{"credHelpers": {"quay.io": "test"}}'
    stored, erased = reported.read_text().splitlines()
    assert json.loads(stored.removeprefix("store ")) == {
        "ServerURL": "quay.io",
        "Username": "ann",
        "Secret": "s3cret",
    }
    assert erased == "erase quay.io"


def test_a_login_that_cannot_be_stored_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuthenticationFailed) as caught:
        store_login(tmp_path / "file" / "config.json", "quay.io", "ann", "s3cret")
    assert "s3cret" not in str(caught.value)
