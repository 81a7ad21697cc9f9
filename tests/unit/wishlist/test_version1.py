"""Version 1 is read as earlier tools read it."""

from __future__ import annotations

import pytest

from publisher.oci.reference import parse_reference
from publisher.wishlist import Wish, WishListError, parse_wish_list

FIELD_LIST = """\
version: 1
user: cvmfsunpacker
cvmfs_repo: 'unpacked.example.org'
output_format: '$(scheme)://registry.example.org/thin/$(image)'
input:
        - 'https://registry.hub.docker.com/library/fedora:latest'
        - 'https://gitlab.example.org:5005/team/stacks/wn:v1'
        - 'https://registry.hub.docker.com/library/redis:7.*'
"""


def problems_of(text: str) -> list[str]:
    """Return all problems of a list, without the file's name."""
    try:
        problems = parse_wish_list(text, "list.yaml").problems
    except WishListError as error:
        problems = error.problems
    return [str(problem).removeprefix("list.yaml:") for problem in problems]


def test_a_list_of_an_earlier_tool_is_read() -> None:
    wish_list = parse_wish_list(FIELD_LIST.encode(), "list.yaml")
    assert wish_list.problems == ()
    assert wish_list.version == 1
    assert wish_list.user == "cvmfsunpacker"
    assert wish_list.repository == "cvmfs:unpacked.example.org"
    fedora, stacks, redis = wish_list.wishes
    assert fedora == Wish(
        parse_reference("registry.hub.docker.com/library/fedora:latest"),
        outputs=("flat", "layers", "thin"),
        thin="$(scheme)://registry.example.org/thin/$(image)",
        line=6,
        column=11,
    )
    assert str(stacks.image) == "gitlab.example.org:5005/team/stacks/wn:v1"
    assert (str(redis), redis.tags, redis.image.tag) == (
        "registry.hub.docker.com/library/redis:latest:7.*".replace(":latest", ""),
        ("7.*",),
        None,
    )


def test_without_an_output_format_no_thin_image_is_requested() -> None:
    wish_list = parse_wish_list("version: 1\ninput: [debian]\n", "list.yaml")
    assert wish_list.wishes[0].outputs == ("flat", "layers")
    assert wish_list.wishes[0].thin is None
    assert wish_list.repository is None


@pytest.mark.parametrize("url", ["dir:/srv/images", "cvmfs:images.example.org"])
def test_a_repository_url_is_accepted_as_well(url: str) -> None:
    text = f"version: 1\ncvmfs_repo: {url}\ninput: [debian]\n"
    assert parse_wish_list(text, "list.yaml").repository == url


def test_every_mistake_is_reported_with_its_place_and_what_to_write() -> None:
    assert problems_of(
        """\
version: 1
users: me
cvmfs_repo: [a]
output_format: 'https://example.org/$(images)'
images: []
input:
  - https://example.org/a/B:1
  - https://example.org/a/b: 1
  - 1.10
  - {image: debian}
  - https://example.org/a/b@sha256:abc
"""
    ) == [
        "2:1: error: unknown key 'users' in a wish list of version 1 (did you mean 'user'?)",
        "3:13: error: cvmfs_repo must be a string, but this is a list (write one string)",
        "4:16: error: unknown variable $(images) (known are $(scheme), $(registry), "
        "$(repository), $(reference), $(tag), $(digest), $(image))",
        "5:1: error: unknown key 'images' in a wish list of version 1 (version 1 calls it 'input')",
        "7:5: error: 'https://example.org/a/B:1' is not an image reference: 'B' has upper-case "
        "letters, which only tags may have (write https://example.org/a/b:1)",
        "8:5: error: an image must be one string, but a space follows its ':' "
        "(write 'https://example.org/a/b:1')",
        "9:5: error: an image must be a string, but YAML reads 1.10 as a number "
        "(write it in quotes: '1.10')",
        "10:5: error: a wish must be a string, but this is a mapping (key: value) "
        "(write for example docker.io/library/debian:stable)",
        "11:5: error: 'https://example.org/a/b@sha256:abc' is not an image reference: its sha256 "
        "digest has 3 characters instead of 64 (copy the whole digest, as the registry shows it)",
    ]


def test_a_malformed_wish_does_not_affect_the_others() -> None:
    wish_list = parse_wish_list(
        "version: 1\ninput:\n  - debian:stable\n  - Debian:a b\n  - alpine:3\n", "list.yaml"
    )
    assert [str(wish) for wish in wish_list.wishes] == [
        "docker.io/library/debian:stable",
        "docker.io/library/alpine:3",
    ]
    (problem,) = wish_list.unusable
    assert (problem.line, problem.column, problem.subject) == (4, 5, "Debian:a b")


def test_an_image_listed_twice_is_a_warning() -> None:
    wish_list = parse_wish_list(
        "version: 1\ninput:\n  - debian\n  - https://docker.io/library/debian:latest\n", "l"
    )
    assert len(wish_list.wishes) == 2
    assert wish_list.unusable == ()
    (warning,) = wish_list.warnings
    assert str(warning) == (
        "l:4:5: warning: docker.io/library/debian:latest is already listed on line 3 "
        "(remove one of the two)"
    )


def test_ignored_errors_are_a_warning_since_failures_are_never_hidden() -> None:
    wish_list = parse_wish_list("version: 1\nignoreErrors: [x]\ninput: [debian]\n", "l")
    assert "every image that fails is reported" in wish_list.warnings[0].message


def test_an_output_format_that_gives_two_images_one_name_is_a_warning() -> None:
    listed = "version: 1\noutput_format: https://example.org/{}\ninput:\n  - debian\n  - alpine\n"
    (message,) = problems_of(listed.format("thin"))
    assert message == (
        "2:16: warning: the name of thin images has no variables: all of them would have the same "
        "name (write 'https://example.org/thin/$(image)')"
    )
    messages = problems_of(listed.format("$(registry)"))
    assert len(messages) == 1
    assert (
        "5:5: warning: the thin image of docker.io/library/alpine:latest would have the name"
        in (messages[0])
    )


def test_an_output_format_that_cannot_be_a_name_makes_the_wishes_unusable() -> None:
    messages = problems_of(
        "version: 1\noutput_format: https://example.org/Thin/$(image)\ninput: [debian]\n"
    )
    assert len(messages) == 1
    assert "'Thin' has upper-case letters" in messages[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 1\n", "1:1: error: the list of images is missing: there is no key 'input'"),
        ("version: 1\ninput: []\n", "2:8: error: 'input' is an empty list"),
        ("version: 1\ninput: debian\n", "2:8: error: 'input' must be a list of images"),
        ("version: 1\ninput:\n", "2:7: error: 'input' must be a list of images"),
    ],
)
def test_a_list_without_images_is_refused(text: str, expected: str) -> None:
    (problem,) = problems_of(text)
    assert problem.startswith(expected)
