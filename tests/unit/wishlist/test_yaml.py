"""Mistakes that YAML accepts or explains badly are reported with their place."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from publisher.wishlist import MAX_BYTES, WishListError, parse_wish_list


def refused(data: str | bytes) -> str:
    with pytest.raises(WishListError) as caught:
        parse_wish_list(data, "l")
    assert caught.value.problems
    assert "\n".join(map(str, caught.value.problems)) == caught.value.why
    return caught.value.why


@pytest.mark.parametrize(
    ("text", "place", "message", "suggestion"),
    [
        ("", "l:1:1", "the file is empty", "version: 2"),
        ("# nothing\n", "l:1:1", "the file is empty", "version: 2"),
        ("- debian\n", "l:1:1", "must be a mapping, but this is a list", "version: 2"),
        ("debian\n", "l:1:1", "must be a mapping, but this is a string", "version: 2"),
        ("images: [debian]\n", "l:1:1", "has no version", "version: 2"),
        (
            "version: 3\nimages: []\n",
            "l:1:10",
            "version '3' are not supported",
            "version: 2 (or 1)",
        ),
        ("version: '2'\nimages: []\n", "l:1:10", "must be a number", "write version: 2,"),
        ("version: [2]\n", "l:1:10", "wish lists of version are not supported", "version: 2"),
        ("version: 2\nimages:\n\t- a\n", "l:3:1", "not valid YAML", "not with tabs"),
        ("version: 2\nimages:\n  - *a\n", "l:3:5", "not valid YAML", "'*' needs quotes"),
        ("version: 2\nimages: [*-rc*]\n", "l:2:10", "not valid YAML", "'*' needs quotes"),
        ("version: 2\nimages:\n  - >=1.8\n", "l:3:6", "not valid YAML", "'>' or '|' needs quotes"),
        ("version: 2\nimages: [>1]\n", "l:2:10", "not valid YAML", "'>' or '|' needs quotes"),
        ("version: 2\nimages: [@a]\n", "l:2:10", "not valid YAML", "needs quotes"),
        ("version: 2\nimages: ['a]\n", "l:2:10", "not valid YAML", "close the quotes"),
        ("version: 2\nimages: [a\n", "l:2:9", "not valid YAML", "close the bracket"),
        ("version: 2\n images: [a]\n", "l:2:8", "not valid YAML", "check the indentation"),
        ("version: 2\nimages:\n  - a\n - b\n", "l:4:2", "not valid YAML", "check the indentation"),
        ("version: 2\n---\nversion: 2\n", "l:2:1", "not valid YAML", "'---'"),
        ("version: 2\nimages: [a\x00]\n", "l:2:11", "not valid YAML", "remove the character"),
    ],
)
def test_a_file_that_is_not_a_wish_list_is_refused_with_place_and_suggestion(
    text: str, place: str, message: str, suggestion: str
) -> None:
    why = refused(text)
    assert why.startswith(f"{place}: error: ")
    assert message in why
    assert suggestion in why


def test_bytes_that_are_not_utf_8_are_placed() -> None:
    why = refused("version: 2\n# für\nimages: [débian]\n".encode("latin-1"))
    assert why.startswith("l:2:4: error: the byte 0xfc is not UTF-8")
    assert refused("version: 2".encode("utf-16")).startswith("l:1:1: error: the byte 0xff")


def test_a_byte_order_mark_is_ignored() -> None:
    text = "version: 2\nimages: [debian]\n"
    assert parse_wish_list(text.encode("utf-8-sig"), "l").problems == ()


def test_a_key_given_twice_is_an_error_although_yaml_keeps_the_last() -> None:
    why = refused("version: 2\nimages: [debian]\nimages: [alpine]\n")
    assert (
        why == "l:3:1: error: 'images' is given twice; line 2 has it already (keep one of the two)"
    )


def test_a_file_of_absurd_size_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(yaml, "compose")
    why = refused(b"version: 2\nimages:\n" + b"- a\n" * (MAX_BYTES // 4))
    assert "larger than 4 MiB" in why


def test_aliases_that_expand_to_gigabytes_are_refused() -> None:
    lines = ["version: 2", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "with its aliases expanded it has" in refused("\n".join([*lines, "images: *a11"]))


def test_a_list_that_contains_itself_is_refused() -> None:
    assert "aliases" in refused("version: 2\nimages: &a [*a]\n")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_a_hundred_thousand_levels_are_refused_without_a_crash(opening: str) -> None:
    assert "nested too deeply" in refused("version: 2\nimages: \n  " + opening * 100_000)


def test_an_alias_may_save_typing() -> None:
    wish_list = parse_wish_list(
        "version: 2\nimages:\n"
        "  - {image: debian, platforms: &both [linux/amd64, linux/arm64]}\n"
        "  - {image: alpine, platforms: *both}\n",
        "l",
    )
    assert wish_list.problems == ()
    assert wish_list.wishes[0].platforms == wish_list.wishes[1].platforms


def test_a_python_object_is_never_made() -> None:
    why = refused("version: 2\nrepository: !!python/object/apply:os.getcwd []\nimages: [debian]\n")
    assert "repository must be a string, but this is a list" in why


@given(st.one_of(st.text(max_size=80), st.binary(max_size=80)))
def test_any_bytes_are_read_or_refused(data: str | bytes) -> None:
    try:
        wish_list = parse_wish_list(data, "l")
    except WishListError as error:
        assert error.problems
    else:
        assert wish_list.wishes or wish_list.unusable


PIECES = (
    "version:| 2|\n|images:|  - |debian|image:|tags:|[|]|{|}|'|\"|*|&a|*a|:| |>=1|!!|---|#|<<:"
    "|? |,|\\"
)
WORDS = st.lists(st.sampled_from(PIECES.split("|")), max_size=30).map("".join)


@given(WORDS)
def test_any_sequence_of_yaml_tokens_is_read_or_refused(text: str) -> None:
    try:
        wish_list = parse_wish_list("version: 2\nimages:\n  - debian\n" + text, "l")
    except WishListError as error:
        assert all(problem.line >= 1 and problem.column >= 1 for problem in error.problems)
    else:
        assert wish_list.wishes or wish_list.unusable
