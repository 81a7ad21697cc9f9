"""A wish list that comes over the network names nothing of the publishing host, unless allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.wishlist import WishListError, parse_wish_list
from tests.command import publisher, succeed
from tests.git_server import commit, git_server

LOCAL_IMAGES = (
    *("oci:/srv/secret:1", "oci-archive:/srv/secret.tar:1", "docker-archive:/srv/secret.tar"),
    *("docker-daemon:secret:1", "OCI:/srv/secret"),
)


@pytest.mark.parametrize("image", LOCAL_IMAGES)
@pytest.mark.parametrize("version", [1, 2])
def test_an_image_of_the_host_is_refused_and_the_other_wishes_stay(
    image: str, version: int
) -> None:
    key = "input" if version == 1 else "images"
    text = f"version: {version}\n{key}:\n- debian\n- '{image}'\n"
    found = parse_wish_list(text, "l", allow_local=False)
    assert [str(wish.image) for wish in found.wishes] == ["docker.io/library/debian:latest"]
    [problem] = found.unusable
    assert (problem.line, problem.column) == (4, 3)
    assert "belongs to the publishing host" in problem.message
    assert "--allow-local" in problem.suggestion
    assert len(parse_wish_list(text, "l").wishes) == 2


@pytest.mark.parametrize(
    "text",
    [
        "version: 2\nrepository: dir:/etc\nimages: [debian]\n",
        "version: 2\nrepository: /etc\nimages: [debian]\n",
        "version: 1\ncvmfs_repo: dir:/etc\ninput: [debian]\n",
        "version: 1\ncvmfs_repo: /etc\ninput: [debian]\n",
    ],
)
def test_a_directory_of_the_host_is_refused_as_the_repository(text: str) -> None:
    with pytest.raises(WishListError) as caught:
        parse_wish_list(text, "l", allow_local=False)
    [problem] = caught.value.problems
    assert (problem.line, problem.subject) == (2, "")
    assert "directory of the publishing host" in problem.message
    assert parse_wish_list(text, "l").repository == "dir:/etc"


@pytest.mark.parametrize("verb", ["plan", "ingest", "prune"])
@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_directory_of_the_host_that_another_repository_replaces_is_harmless(
    tmp_path: Path, verb: str, how: str
) -> None:
    (tmp_path / "git").mkdir()
    succeed("init", tree := tmp_path / "images")
    wishes = f"version: 2\nrepository: dir:{tmp_path}/other\nimages: ['127.0.0.1:1/x:1']\n"
    commit(tmp_path / "git/wishes.git", {"list.yaml": wishes})
    option = ("--repository", tree) if how == "option" else ()
    environment = {} if how == "option" else {"PUBLISHER_REPOSITORY": str(tree)}
    with git_server(tmp_path / "git") as url:
        address = f"git+{url}/wishes.git//list.yaml"
        refused = publisher(verb, address)
        assert (refused.code, "directory of the publishing host" in refused.err) == (2, True)
        accepted = publisher(verb, address, *option, env=environment)
        assert "of the publishing host" not in accepted.out + accepted.err
        assert accepted.code in (0, 1)
    assert not (tmp_path / "other").exists()


def test_a_cvmfs_repository_and_registries_are_allowed() -> None:
    text = (
        "version: 2\nrepository: cvmfs:images.example.org\nthin: 'quay.io/thin/$(image)'\n"
        "images: [{image: debian, outputs: [thin, layers]}]\n"
    )
    assert parse_wish_list(text, "l", allow_local=False) == parse_wish_list(text, "l")


@pytest.mark.parametrize("thin", ["docker-daemon:x/$(image)", "oci:/srv/thin:$(tag)"])
def test_a_thin_image_for_the_host_is_refused(thin: str) -> None:
    text = f"version: 2\nthin: '{thin}'\nimages: [{{image: debian, outputs: [thin, layers]}}]\n"
    found = parse_wish_list(text, "l", allow_local=False)
    assert found.wishes == ()
    assert "belongs to the publishing host" in found.unusable[0].message


@pytest.mark.parametrize("verb", ["check", "plan", "ingest", "prune"])
def test_every_command_that_reads_lists_refuses_and_allows(tmp_path: Path, verb: str) -> None:
    (tmp_path / "git").mkdir()
    tree = tmp_path / "images"
    (tree / ".metadata").mkdir(parents=True)
    wishes = f"version: 2\nimages: ['oci:{tmp_path}/none:1']\n"
    commit(tmp_path / "git/wishes.git", {"list.yaml": wishes})
    with git_server(tmp_path / "git") as url:
        address = f"git+{url}/wishes.git//list.yaml"
        repository = () if verb == "check" else ("--repository", tree)
        refused = publisher(verb, address, *repository)
        assert refused.code != 0
        assert "belongs to the publishing host" in refused.out + refused.err
        allowed = publisher(verb, address, *repository, "--allow-local")
        assert "belongs to the publishing host" not in allowed.out + allowed.err
