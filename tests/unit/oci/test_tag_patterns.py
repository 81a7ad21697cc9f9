"""One grammar for the patterns of wish lists and of commands."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from publisher.oci.tag_patterns import InvalidPattern, TagPatterns, check_pattern, natural
from publisher.wishlist import parse_wish_list
from tests.command import publisher

TAGS = [
    "latest",
    "1.7.0",
    "1.7.12",
    "1.8",
    "1.8.1",
    "1.8.2-rc1",
    "1.10.0",
    "2.0",
    "v1.9",
    "nightly-20260101",
]
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
TEXTS = st.text(alphabet="<>=!~[]*?.,-019abv ", min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("patterns", "exclude", "chosen"),
    [
        (["1.7.*"], [], ["1.7.0", "1.7.12"]),
        (
            ["*"],
            ["*-rc*", "nightly-*"],
            ["1.7.0", "1.7.12", "1.8", "1.8.1", "1.10.0", "2.0", "latest", "v1.9"],
        ),
        ([">=1.8,<2"], [], ["1.8", "1.8.1", "1.10.0", "v1.9"]),
        ([">=1.8", "latest"], [">=2"], ["1.8", "1.8.1", "1.10.0", "latest", "v1.9"]),
        ([">=1.8.2rc1,<1.9"], [], ["1.8.2-rc1"]),
        (["*"], [">=1.8", "*[a-z]"], ["1.7.0", "1.7.12", "nightly-20260101"]),
        (["~=1.7.0"], [], ["1.7.0", "1.7.12"]),
        (["==1.8.*"], [], ["1.8", "1.8.1"]),
        (["1.8.[12]*"], [], ["1.8.1", "1.8.2-rc1"]),
        (["1.8", "1.?"], [], ["1.8"]),
    ],
)
def test_tags_are_chosen_by_globs_and_version_ranges(
    patterns: list[str], exclude: list[str], chosen: list[str]
) -> None:
    assert TagPatterns(patterns, exclude).among(TAGS) == chosen


def test_globs_are_case_sensitive() -> None:
    assert TagPatterns(["rc*"]).among(["RC1", "rc1"]) == ["rc1"]


@given(st.lists(st.text(alphabet="abc019.-_", min_size=1, max_size=8)))
def test_a_star_chooses_every_tag_once_in_natural_order(tags: list[str]) -> None:
    chosen = TagPatterns(["*"]).among(tags)
    assert sorted(chosen) == sorted(set(tags))
    assert chosen == sorted(chosen, key=natural)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_numbers_in_tags_are_ordered_by_value(one: int, other: int) -> None:
    assert (natural(f"1.{one}-x") < natural(f"1.{other}-x")) == (one < other)


@pytest.mark.parametrize(
    ("text", "why", "hint"),
    [
        ("=1.2", "is not a version range", ">=1.8,<2"),
        ("=>1", "is not a version range", ">=1.8,<2"),
        ("~1.2", "is not a version range", ">=1.8,<2"),
        (">=1 <2", "is not a version range", ">=1.8,<2"),
        ("1.[0", "is not closed", r"1\.\[0-9\]"),
        ("^1.2", "can match no tag", "a glob such as"),
        ("1 2", "can match no tag", "a glob such as"),
        ("a/b", "can match no tag", "a glob such as"),
        ("", "can match no tag", "a glob such as"),
        ("a" * 129, "can match no tag", "a glob such as"),
    ],
)
def test_a_malformed_pattern_is_refused_with_what_to_write(text: str, why: str, hint: str) -> None:
    with pytest.raises(InvalidPattern, match=f"{why}.*{hint}"):
        check_pattern(text)


@given(TEXTS, TAG)
@example("[z-a]", "z")
@example("[]-a]", "a")
@example("!=", "1")
def test_an_accepted_pattern_can_be_matched(text: str, tag: str) -> None:
    try:
        check_pattern(text)
    except InvalidPattern:
        with pytest.raises(InvalidPattern):
            TagPatterns(["*"], [text])
    else:
        wanted, unwanted = TagPatterns([text]), TagPatterns(["*"], [text])
        if wanted.among([tag]) and not text.lstrip().startswith(("<", ">", "=", "!", "~")):
            assert unwanted.among([tag]) == []


@given(TAG)
def test_a_tag_matches_itself_alone(tag: str) -> None:
    assert TagPatterns([tag]).among([tag, tag + "x", "x" + tag]) == [tag]


@pytest.mark.parametrize("text", ["=1.2", "^1", "1.[0"])
def test_wish_lists_and_commands_refuse_the_same_in_the_same_words(text: str) -> None:
    with pytest.raises(InvalidPattern) as caught:
        check_pattern(text)
    wishes = f"version: 2\nimages: [{{image: r.example.org/x, tags: ['{text}']}}]\n"
    (problem,) = parse_wish_list(wishes.encode(), "list.yaml").unusable
    assert (problem.message, problem.suggestion) == (caught.value.what, caught.value.hint)
    result = publisher("tags", "http://127.0.0.1:9/x", "--match", text)
    assert result.code != 0
    assert caught.value.what in result.err
