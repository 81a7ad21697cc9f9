"""Wish lists are read from files, the web and git, and have one name however it is written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from publisher.sources.settings import Settings
from publisher.sources.wish_lists import list_identity, read_wish_list_document
from publisher.wishlist import MAX_BYTES, WishListError
from tests.git_server import commit, git_server
from tests.http_server import Received, http_server
from tests.registry import OwnRegistry, Reply

SETTINGS = Settings()


@contextmanager
def web_server(answers: dict[str, tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
    def respond(request: Received) -> None:
        code, headers, body = answers[request.path]
        request.send_response(code)
        for key, value in headers.items():
            request.send_header(key, value)
        request.end_headers()
        request.wfile.write(body)

    with http_server(respond) as url:
        yield url


def test_a_file_is_read_up_to_what_a_list_may_have(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_bytes(b"x" * (MAX_BYTES + 100))
    assert len(read_wish_list_document(str(path), SETTINGS)) == MAX_BYTES + 1
    with pytest.raises(WishListError, match="No such file"):
        read_wish_list_document(str(tmp_path / "none"), SETTINGS)


def test_a_list_is_read_from_the_web_with_redirects() -> None:
    with web_server(
        {
            "/old": (302, {"Location": "/new"}, b""),
            "/new": (200, {}, b"version: 2"),
            "/loop": (302, {"Location": "/loop"}, b""),
            "/gone": (404, {}, b"no"),
            "/file": (302, {"Location": "file:///etc/passwd"}, b""),
            "/long": (200, {}, b"x" * (MAX_BYTES + 100)),
        }
    ) as url:
        assert read_wish_list_document(f"{url}/old", SETTINGS) == b"version: 2"
        assert len(read_wish_list_document(f"{url}/long", SETTINGS)) == MAX_BYTES + 1
        for path, why in (("loop", "redirects"), ("gone", "404"), ("file", "not http or https")):
            with pytest.raises(WishListError, match=why):
                read_wish_list_document(f"{url}/{path}", SETTINGS)
    with pytest.raises(WishListError, match="cannot read wish list"):
        read_wish_list_document(f"{url}/new", SETTINGS)


def test_a_redirect_that_cannot_be_followed_is_an_error_without_its_query() -> None:
    moved = {"/bad": "http://[/x", "/port": "http://127.0.0.1:99999/", "/ftp": "ftp://x/y?s3cret"}
    answers = {path: (302, {"Location": to}, b"") for path, to in moved.items()}
    with web_server(
        {**answers, "/away": (302, {"Location": "http://127.0.0.1:1/?s3cret"}, b"")}
    ) as url:
        for path, why in (
            ("bad", "not http or https"),
            ("port", "not http or https"),
            ("ftp", "not http or https"),
            ("away", "Connection refused"),
        ):
            with pytest.raises(WishListError, match=why) as caught:
                read_wish_list_document(f"{url}/{path}", SETTINGS)
            assert "s3cret" not in str(caught.value)
    for address in (
        "https://x:99999/list",
        "https://[/list",
        "https:///list",
        "git+https://[/x//y",
    ):
        with pytest.raises(WishListError, match="cannot read wish list"):
            read_wish_list_document(address, SETTINGS)


def test_a_list_that_arrives_too_slowly_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.sources.wish_lists.WEB_SECONDS", 0.3)
    with OwnRegistry() as registry:
        slowly = Reply(200, body=b"#" * 1000, pause=0.05, piece=10, chunked=True)
        registry.misbehave(lambda request, reply: slowly)
        with pytest.raises(WishListError, match="not served within"):
            read_wish_list_document(f"{registry.url}/list.yaml", SETTINGS)


def test_a_list_is_read_from_a_branch_of_a_git_repository(tmp_path: Path) -> None:
    commit(tmp_path / "wishes.git", {"lists/a.yaml": "main", "b.yaml": "b"})
    commit(tmp_path / "wishes.git", {"lists/a.yaml": "other"}, branch="feature/x")
    with git_server(tmp_path) as url:
        place = f"git+{url}/wishes.git//lists/a.yaml"
        assert read_wish_list_document(place, SETTINGS) == b"main"
        assert read_wish_list_document(f"{place}@main", SETTINGS) == b"main"
        assert read_wish_list_document(f"{place}@feature/x", SETTINGS) == b"other"
        for broken in (f"{place}@none", f"git+{url}/none.git//a", f"git+{url}/wishes.git//none"):
            with pytest.raises(WishListError, match="cannot read wish list"):
                read_wish_list_document(broken, SETTINGS)


def test_a_list_is_read_from_a_local_clone(tmp_path: Path) -> None:
    commit(tmp_path / "wishes.git", {"lists/a.yaml": "main"})
    commit(tmp_path / "wishes.git", {"lists/a.yaml": "other"}, branch="v2")
    subprocess.run(
        ["git", "clone", "--quiet", tmp_path / "wishes.git", tmp_path / "clone"], check=True
    )
    for repository in ("wishes.git", "clone"):
        place = f"git+file://{tmp_path}/{repository}//lists/a.yaml"
        assert read_wish_list_document(place, SETTINGS) == b"main"
        assert list_identity(f"{place}@v2") == place
    assert read_wish_list_document(f"git+file://{tmp_path}/wishes.git//lists/a.yaml@v2", SETTINGS)
    with pytest.raises(WishListError, match="not appear to be a git"):
        read_wish_list_document(f"git+file://{tmp_path}/none.git//a", SETTINGS)


def test_a_list_is_read_over_ssh_with_the_programs_that_git_is_configured_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program here runs the command of the other host on this one."""
    commit(tmp_path / "wishes.git", {"lists/a.yaml": "main"})
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n'
        'if [ "$1" = -G ]; then exit 1; fi\nfor last; do :; done\nexec sh -c "$last"\n'
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    place = f"git+ssh://git@lists.example.org:2222{tmp_path}/wishes.git//lists/a.yaml"
    assert read_wish_list_document(f"{place}@main", SETTINGS) == b"main"
    assert "-p 2222 git@lists.example.org" in (tmp_path / "called").read_text()
    assert list_identity(f"{place}@main") == place


def test_git_never_prompts_for_a_password(tmp_path: Path) -> None:
    """A prompt would be waited for until the end of git's time."""
    with (
        git_server(tmp_path) as url,
        pytest.raises(WishListError, match=r"askpass|prompts disabled"),
    ):
        read_wish_list_document(f"git+{url}/private.git//a.yaml", SETTINGS)


@pytest.mark.parametrize(
    "location",
    [
        "git+https://host/repository.git",
        "git+https://host//path",
        "git+ssh://host//path",
        "git+ssh://-oProxyCommand=touch/x.git//path",
        "git+ssh://-l@host/x.git//path",
        "git+ssh://a b/x.git//path",
        "git+file://host/srv/x.git//path",
        "git+git://host/x.git//path",
        "git+ext::sh -c true//path",
        "git+https://host/x.git//../../etc/passwd",
        "git+https://host/x.git//path@--upload-pack=x",
        "git+https://host/x.git//path@a:b",
    ],
)
def test_a_malformed_location_is_refused_before_git_runs(location: str) -> None:
    with pytest.raises(WishListError):
        read_wish_list_document(location, SETTINGS)


@pytest.mark.parametrize("scheme", ["https", "git+https", "git+ssh"])
def test_a_password_in_an_address_is_refused_and_not_repeated(scheme: str) -> None:
    with pytest.raises(WishListError) as caught:
        read_wish_list_document(f"{scheme}://me:geheim@host.invalid/x.git//list", SETTINGS)
    assert "geheim" not in str(caught.value)


def test_the_identity_of_a_list_does_not_depend_on_how_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {
        list_identity(path)
        for path in ("a.yaml", "./a.yaml", "x/../a.yaml", os.path.abspath("a.yaml"))
    }
    assert names == {str(tmp_path / "a.yaml")}
    git = "git+https://host/x.git//a.yaml"
    assert {list_identity(git), list_identity(f"{git}@main"), list_identity(f"{git}@v2")} == {git}
    assert list_identity("https://host/a.yaml#part") == "https://host/a.yaml"
    assert list_identity("-") == ""
