"""Lists of other programs become wish lists of version 2 with the same images and comments."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.errors import PublisherError
from publisher.wishlist import WishList, WishListError, parse_wish_list
from publisher.wishlist.conversion import convert_list
from tests.command import publisher, succeed

LISTS = Path(__file__).parents[2] / "lists"

OSG_RULES = r"""
/^[ \t]*(#|$)/ { next }
{
  gsub(/^[ \t]+|[ \t]+$/, "")
  parts = split($0, part, "/")
  if (parts == 1) { host = "registry.hub.docker.com"; space = "library"; image = part[1] }
  if (parts == 2) { host = "registry.hub.docker.com"; space = part[1]; image = part[2] }
  if (parts > 2) {
    host = part[1]; space = part[2]; image = part[3]
    for (i = 4; i <= parts; i++) image = image "/" part[i]
  }
  fields = split(image, field, ":")
  print host "/" space "/" field[1] ":" (fields == 2 ? field[2] : "latest")
}
"""
"""What `parse_image` of cvmfs-singularity-sync does with each line, in awk."""


def images(wish_list: WishList) -> list[str]:
    """The images of a list as registry/path:tag, with Docker Hub as OSG's program names it."""
    assert not wish_list.unusable
    return [
        f"{re.sub('^docker.io$', 'registry.hub.docker.com', wish.image.registry)}/"
        f"{wish.image.repository}:{wish.tags[0] if wish.tags else wish.image.tag}"
        for wish in wish_list.wishes
    ]


def by_osg_rules(path: Path) -> list[str]:
    done = subprocess.run(["awk", OSG_RULES, path], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def comments(text: str) -> list[str]:
    return re.findall(r"^\s*(#.*)$", text, re.MULTILINE)


def test_the_list_of_osg_requests_the_same_images() -> None:
    path = LISTS / "osg_excerpt.txt"
    converted = convert_list(path.read_bytes(), "l")
    assert converted.problems == ()
    expected = by_osg_rules(path)
    assert images(parse_wish_list(converted.text, "l")) == expected
    assert len(expected) > 15
    assert comments(converted.text) == comments(path.read_text())
    assert converted.text.startswith("# This file is a list of Docker images")
    assert "\n  # First, some generic CentOS images:\n  - docker.io/library/" in converted.text


def test_the_recipe_of_unpacked_requests_the_same_images() -> None:
    path = LISTS / "unpacked_excerpt.yaml"
    wish_list = parse_wish_list(convert_list(path.read_bytes(), "l").text, "l")
    expected = re.findall(r"^ *- 'https://(.*)'$", path.read_text(), re.MULTILINE)
    assert images(wish_list) == expected
    assert (wish_list.version, wish_list.repository) == (2, "cvmfs:unpacked.cern.ch")
    assert {(wish.outputs, wish.thin) for wish in wish_list.wishes} == {
        (("flat", "layers", "thin"), "https://gitlab-registry.cern.ch/unpacked/sync/$(image)")
    }


def test_each_form_of_a_text_list_is_read_as_osg_does(tmp_path: Path) -> None:
    lines = (
        """\
\tdebian
a/b:1.*
registry/x/y:1
quay.io:5000/x/y/z
localhost/x/y:v[0-9]*

   # indented comment
x/y@sha256:"""
        + "0" * 64
        + "\n"
    )
    text = f"\ufeff{lines}last:1   # beside\n# the end\n\n"
    converted = convert_list(text.encode(), "l").text
    assert converted == (
        "version: 2\nimages:\n"
        "  - docker.io/library/debian:latest\n  - 'docker.io/a/b:1.*'\n  - https://registry/x/y:1\n"
        "  - quay.io:5000/x/y/z:latest\n  - 'localhost/x/y:v[0-9]*'\n\n  # indented comment\n"
        f"  - docker.io/x/y@sha256:{'0' * 64}\n  - docker.io/library/last:1  # beside\n"
        "  # the end\n"
    )
    plain = tmp_path / "list"
    plain.write_text("\n".join(lines.splitlines()[:4]))
    assert images(parse_wish_list(convert_list(plain.read_bytes(), "l").text, "l")) == (
        by_osg_rules(plain)
    )


def test_version_1_keeps_its_comments_and_loses_what_has_no_effect() -> None:
    text = """\
# The list of the robot.
version: 1
# ask the robot's owner
user: robot  # not a person
cvmfs_repo: images.example.org # where
ignoreErrors: [x]
input: # all of them
  # base
  - 'https://registry.hub.docker.com/library/redis:7.*' # cache

  - A/b # in upper case
  # pinned
  - "debian"
"""
    converted = convert_list(text.encode(), "l")
    assert (
        converted.text
        == """\
# The list of the robot.
version: 2
# ask the robot's owner
# not a person
repository: cvmfs:images.example.org  # where
images:  # all of them
  # base
  - 'registry.hub.docker.com/library/redis:7.*'  # cache

  # not converted: A/b
  # in upper case
  # pinned
  - docker.io/library/debian:latest
"""
    )
    assert [(problem.line, problem.column) for problem in converted.problems] == [(11, 5)]


@pytest.mark.parametrize("line_break", ["\r", "\x85", "\u2028"])
def test_an_unusable_entry_is_left_out_whatever_ends_the_lines(line_break: str) -> None:
    lines = ("version: 1", "input:", "- &a {image: x}", "- A/b", "- debian", "")
    converted = convert_list(line_break.join(lines).encode(), "l")
    assert converted.text == (
        "version: 2\nimages:\n  # not converted: &a {image: x}\n  # not converted: A/b\n"
        "  - docker.io/library/debian:latest\n"
    )
    assert [(each.line, each.column) for each in converted.problems] == [(3, 3), (4, 3)]


def test_what_is_no_list_of_another_form_is_refused() -> None:
    with pytest.raises(PublisherError) as caught:
        convert_list(b"version: 2\nimages: [debian]\n", "l")
    assert caught.value.hint == "publisher fmt l"
    for text, reported in (
        (b"version: 1\ninputs: [debian]\n", "did you mean 'input'?"),
        (b"version: 1\ninput: [A/b]\n", "l:2:9: error: 'A/b' is not an image reference"),
        (b"# nothing\n\n", "it names no image"),
        (b"A/b\n", "l:1:1: error: 'A/b' is not an image reference"),
    ):
        with pytest.raises(WishListError) as failed:
            convert_list(text, "l")
        assert reported in failed.value.why


PIECES = (
    "version: 1|\n|input:|- |debian|a/b/c:*|[|]|'|\"|: | # c|#x\n|user: x\n|cvmfs_repo: x\n|\t"
    "|\r\n|*|&a "
)
WORDS = st.lists(st.sampled_from(PIECES.split("|")), max_size=20).map("".join)


@given(st.one_of(st.binary(max_size=60), WORDS.map(str.encode)))
def test_any_bytes_are_converted_or_refused(data: bytes) -> None:
    try:
        converted = convert_list(data, "l")
    except PublisherError:
        return
    assert parse_wish_list(converted.text, "l").wishes


# --- the command ----------------------------------------------------------------------------


def test_the_command_prints_a_list_and_names_what_it_left_out(tmp_path: Path) -> None:
    source, target = tmp_path / "images.txt", tmp_path / "l.yaml"
    one = convert_list(b"debian\n", "l").text
    assert one == "version: 2\nimages:\n  - docker.io/library/debian:latest\n"
    source.write_text("# base\ndebian:stable\n\n Upper/Case:1\nx:a:b\nimages:latest\nx:[1*\n")
    result = publisher("import", "images.txt", cwd=tmp_path)
    assert result.code == 1
    assert result.out == (
        "version: 2\nimages:\n  # base\n  - docker.io/library/debian:stable\n\n"
        "  # not converted: Upper/Case:1\n  # not converted: x:a:b\n"
        "  - docker.io/library/images:latest\n  # not converted: x:[1*\n"
    )
    assert [line.split(": ")[0] for line in result.err.splitlines()] == [
        f"images.txt:{place}" for place in ("4:2", "5:1", "7:1")
    ]
    target.write_text(result.out)
    succeed("check", "--offline", target)
    succeed("fmt", "--check", target)
