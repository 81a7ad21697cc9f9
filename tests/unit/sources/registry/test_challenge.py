from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.sources.registry.challenge import parse_challenges

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


def read(header: str) -> list[tuple[str, dict[str, str]]]:
    return [(each.scheme, dict(each.parameters)) for each in parse_challenges(header)]


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="a b"', [("basic", {"realm": "a b"})]),
        (
            'Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"',
            [
                (
                    "bearer",
                    {"realm": "https://a/t", "service": "s", "scope": "repository:x:pull,push"},
                )
            ],
        ),
        (
            "Bearer realm=https://a/t,service=s, scope=repository:x:pull",
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:x:pull"})],
        ),
        (
            'Negotiate, Basic realm="x", Bearer realm="y"',
            [("negotiate", {}), ("basic", {"realm": "x"}), ("bearer", {"realm": "y"})],
        ),
        ("Negotiate YWJj==, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('BEARER Realm = "y"', [("bearer", {"realm": "y"})]),
        (r'Basic realm="say \"hi\", now"', [("basic", {"realm": 'say "hi", now'})]),
        ('Basic realm="x",,  ,charset="UTF-8"', [("basic", {"realm": "x", "charset": "UTF-8"})]),
        ('Basic realm="x", realm="y"', [("basic", {"realm": "x"})]),
    ],
)
def test_challenges_are_read(header: str, challenges: list[tuple[str, dict[str, str]]]) -> None:
    assert read(header) == challenges


def test_an_unterminated_quote_does_not_hide_the_scheme() -> None:
    assert read('Basic realm="never ends')[0][0] == "basic"


def test_several_scopes_are_separated() -> None:
    (challenge,) = parse_challenges('Bearer scope="repository:a:pull repository:b:pull,push"')
    assert challenge.scopes == ("repository:a:pull", "repository:b:pull,push")


@given(st.lists(st.tuples(TOKEN, st.dictionaries(TOKEN, VALUE, min_size=1)), max_size=4))
def test_a_well_formed_challenge_is_parsed_to_its_parts(
    challenges: list[tuple[str, dict[str, str]]],
) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert read(header) == challenges


@given(st.text())
def test_any_challenge_header_is_parsed_without_an_error(header: str) -> None:
    parse_challenges(header)


def test_a_hostile_header_takes_no_time() -> None:
    for text in (
        "a" * 10**6,
        ' "' * 10**6,
        "a=" * 10**6,
        "\\" * 10**6,
        'a="' + "\\" * 10**6,
        "," * 10**6,
    ):
        parse_challenges(text)
