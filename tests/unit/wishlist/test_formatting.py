"""`publisher fmt` writes a list in one form, and changes neither its wishes nor its comments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.wishlist import Wish, WishListError, parse_wish_list
from publisher.wishlist.formatting import format_wish_list
from tests.command import publisher, succeed
from tests.schemas import output_schema

ROOT = Path(__file__).parents[3]

UGLY = """\
# The wishes of the astronomy group.
version: 2 # do not change


# What to publish.
images: # in no order

# distributions
- debian   # the base
-   # two platforms
    # and two comments
    platforms:   &both
         - linux/x86_64   # main
         # second
         - linux/arm64
         # no other
    image: 'https://docker.io/library/alpine:3'  # small
    # riscv64 is missing
# analysis
- {image: quay.io/a/b, tags: ["1.10", '>=1.8,<2', 1.7.*], exclude: [a,
     # of 2019
     b]} # for the survey
- image: "https://quay.io/x/y:1"
-
  owner: 'astro'
  image: oci:./x:1
  note: |  # as agreed
     two

     lines
  expires: 2027-01-01
  platforms: [linux/amd64]
  # - quay.io/old/tool:1
# the settings
defaults: {grace: 30d} # a month
# the end
"""

FORMATTED = """\
# The wishes of the astronomy group.
version: 2  # do not change
# the settings
defaults:  # a month
  grace: 30d

# What to publish.
images:  # in no order
  # distributions
  - docker.io/library/debian:latest   # the base
  # two platforms
  - image: docker.io/library/alpine:3  # small
    # and two comments
    platforms: &both
      - linux/amd64   # main
      # second
      - linux/arm64
      # no other
    # riscv64 is missing
  # analysis
  - image: quay.io/a/b  # for the survey
    tags: ['1.10', '>=1.8,<2', 1.7.*]
    exclude:
      - a
      # of 2019
      - b
  - quay.io/x/y:1
  - image: oci:x:1
    platforms: [linux/amd64]
    owner: astro
    note: |  # as agreed
      two

      lines
    expires: 2027-01-01
    # - quay.io/old/tool:1
# the end
"""


def formatted(text: str) -> str:
    return format_wish_list(text.encode(), "l")


def test_a_list_is_written_in_one_form_with_all_its_comments() -> None:
    assert formatted(UGLY) == FORMATTED
    assert formatted(FORMATTED) == FORMATTED
    assert formatted(UGLY.replace("\n", "\r\n")) == FORMATTED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Version 1 has other keys.
        (
            "version: 1\ninput: ['https://registry.hub.docker.com/library/redis:7.*']\n"
            "cvmfs_repo: 'x.org' # where\n",
            "version: 1\ncvmfs_repo: x.org  # where\n"
            "input:\n  - 'registry.hub.docker.com/library/redis:7.*'\n",
        ),
        # An anchor precedes its aliases, so that the order stays.
        (
            "images:\n- {platforms: &p [linux/amd64], image: a}\n- {image: b, platforms: *p}\n"
            "version: 2\n",
            "images:\n  - platforms: &p [linux/amd64]\n    image: docker.io/library/a:latest\n"
            "  - image: docker.io/library/b:latest\n    platforms: *p\nversion: 2\n",
        ),
        # Quotes are kept where a value would have another type without them.
        (
            'version: 2\nimages:\n- {image: a, owner: "no", note: "2027-01-01"}\n',
            "version: 2\nimages:\n  - image: docker.io/library/a:latest\n    owner: 'no'\n"
            "    note: '2027-01-01'\n",
        ),
        (
            "---\n# c\nversion: 2\nimages: [{image: a, note: 'it''s: x # y'}, {image: b}]\n...\n",
            "---\n# c\nversion: 2\nimages:\n  - image: docker.io/library/a:latest\n"
            "    note: 'it''s: x # y'\n  - docker.io/library/b:latest\n",
        ),
        # A long list of tags has one line for each.
        (
            f"version: 2\nimages: [{{image: a, tags: [{', '.join(['x' * 30] * 2 + ['y' * 30])}]}}]",
            "version: 2\nimages:\n  - image: docker.io/library/a\n    tags:\n"
            f"      - {'x' * 30}\n      - {'x' * 30}\n      - {'y' * 30}\n",
        ),
    ],
)
def test_values_keys_and_anchors_keep_their_meaning(text: str, expected: str) -> None:
    assert formatted(text) == expected
    assert formatted(expected) == expected


def test_the_example_of_the_repository_is_in_normal_form() -> None:
    text = (ROOT / "wishlist.yaml").read_text()
    assert formatted(text) == text


def test_a_list_with_an_error_is_not_formatted() -> None:
    with pytest.raises(WishListError) as caught:
        formatted("version: 2\nimages: [A/b, debian]\n")
    assert "publisher check --offline l" in caught.value.hint
    assert [problem.line for problem in caught.value.problems] == [2]


COMMENT = st.sampled_from(["", "  # c", " # d: [x]", "\n# alone", "\n      # deep", "\n\n# gap\n"])
TEXT = st.sampled_from(["x", "'a # b'", '"a\\tb"', "'1'", "|\n      two\n      lines", "a: b"])


@st.composite
def lists(draw: st.DrawFn) -> str:
    """A wish list with comments in all places, in block and flow style."""

    def pairs() -> list[str]:
        owner, note = draw(TEXT), draw(TEXT)
        owner = "'a: b'" if owner == "a: b" else owner
        note = "'a: b'" if note == "a: b" else note
        chosen = [
            "image: a" + draw(COMMENT),
            f"owner: {owner}" + draw(COMMENT),
            f"note: {note}" + draw(COMMENT),
            f"tags:{draw(COMMENT)}\n      - '1'{draw(COMMENT)}\n      - '2'{draw(COMMENT)}",
            f"exclude: [x,{draw(COMMENT)}\n      y]{draw(COMMENT)}",
        ]
        return draw(st.permutations(chosen))

    items = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            items.append(f"  - debian{draw(COMMENT)}")
        else:
            items.append("  - " + "\n    ".join(pairs()))
    parts = [
        f"version: 2{draw(COMMENT)}",
        f"images:{draw(COMMENT)}\n" + "\n".join(items),
        f"defaults:{draw(COMMENT)}\n  grace: 3d{draw(COMMENT)}\n  outputs: [flat]{draw(COMMENT)}",
    ]
    return "\n".join(draw(st.permutations(parts))) + draw(COMMENT)


@given(lists())
def test_any_list_keeps_its_wishes_and_comments_and_is_formatted_once(text: str) -> None:
    def wishes(text: str) -> list[Wish]:
        return [replace(wish, line=0, column=0) for wish in parse_wish_list(text, "l").wishes]

    def comments(text: str) -> list[str]:
        return sorted(
            line[line.index(mark) :].strip()
            for line in text.splitlines()
            for mark in ("# c", "# d: [x]", "# alone", "# deep", "# gap")
            if mark in line
        )

    try:
        before = parse_wish_list(text, "l")
    except WishListError:
        return  # a comment within a text of several lines
    if before.unusable:
        return
    after = formatted(text)
    assert wishes(after) == wishes(text)
    assert comments(after) == comments(text)
    assert formatted(after) == after


# --- the command ----------------------------------------------------------------------------


def test_the_command_checks_shows_and_writes(tmp_path: Path) -> None:
    ugly, pretty = tmp_path / "ugly.yaml", tmp_path / "pretty.yaml"
    ugly.write_text(UGLY)
    ugly.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to("ugly.yaml")
    pretty.write_text(FORMATTED)
    both = ("ugly.yaml", "pretty.yaml")
    checked = publisher("fmt", "--check", *both, cwd=tmp_path)
    assert (checked.code, checked.out) == (4, "")
    assert "not in normal form: ugly.yaml\n" in checked.err
    assert "pretty" not in checked.err
    assert "try: publisher fmt ugly.yaml\n" in checked.err
    shown = succeed("fmt", "--diff", *both, cwd=tmp_path).out
    assert shown.startswith("--- ugly.yaml\n+++ ugly.yaml\n")
    assert "\n-- debian   # the base\n" in shown
    assert "\n+  - docker.io/library/debian:latest   # the base\n" in shown
    result = publisher("fmt", "--check", *both, "--output", "json", cwd=tmp_path)
    output_schema("fmt/1").validate(result.json)
    assert result.code == 4
    assert [each["changed"] for each in result.json["wishLists"]] == [True, False]
    assert ugly.read_text() == UGLY
    assert succeed("fmt", "-", input=UGLY).out == FORMATTED
    succeed("fmt", "link.yaml", "pretty.yaml", cwd=tmp_path)
    assert (ugly.read_text(), ugly.stat().st_mode & 0o777) == (FORMATTED, 0o640)
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "link.yaml",
        "pretty.yaml",
        "ugly.yaml",
    ]
    assert succeed("fmt", "--check", *both, cwd=tmp_path).err == ""


def test_the_command_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    remote = publisher("fmt", "https://example.org/list.yaml")
    assert (remote.code, "clone the repository" in remote.err) == (2, True)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 2\nimages: [A/b]\n")
    result = publisher("fmt", wrong)
    assert result.code == 2
    assert f"{wrong}:2:10: error: " in result.err
    assert wrong.read_text() == "version: 2\nimages: [A/b]\n"
