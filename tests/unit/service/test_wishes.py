"""A new wish for a list: its lines, its registry, and where the list is edited."""

from __future__ import annotations

import pytest

from publisher.oci.reference import parse_reference
from publisher.service.wishes import (
    InvalidWish,
    edit_address,
    is_permitted,
    read_wish,
    same_wish,
)
from publisher.wishlist import parse_wish_list

LIST = b"""\
version: 2
images:
  - docker.io/library/debian:12
  - quay.io/astro/app:1.*
  - http://127.0.0.1:5000/app:1
  - oci:/srv/app:1
"""
WISHES = parse_wish_list(LIST, "list.yaml", allow_local=True).wishes


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({"image": " quay.io/astro/tools:2 "}, "  - quay.io/astro/tools:2\n"),
        (
            {
                "image": "debian",
                "platforms": "linux/arm64, linux/amd64 linux/arm64",
                "note": "a: b",
            },
            "  - image: docker.io/library/debian:latest\n    platforms:\n    - linux/arm64\n"
            "    - linux/amd64\n    note: 'a: b'\n",
        ),
        ({"image": "quay.io/a/b:1", "note": "# no - [comment"}, None),
    ],
)
def test_the_lines_are_those_of_the_same_wish_in_a_list(
    fields: dict[str, str], lines: str | None
) -> None:
    wish = read_wish(fields)
    assert lines is None or wish.lines == lines
    found = parse_wish_list(wish.document.encode(), "new.yaml", allow_local=False)
    [parsed] = found.wishes
    assert not found.problems
    assert (parsed.image, parsed.note) == (wish.image, fields.get("note", ""))
    assert tuple(map(str, parsed.platforms)) == (wish.platforms or ("linux/amd64",))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "image"),
        ({"image": "user:password@evil.example.org/app:1"}, "image"),
        ({"image": "oci:/etc:1"}, "image"),
        ({"image": "docker-daemon:app:1"}, "image"),
        ({"image": "quay.io/a/b:1.*"}, "image"),
        ({"image": "quay.io/a/b:1\n  - quay.io/c/d:1"}, "image"),
        ({"image": "quay.io/a/b:1", "platforms": "../x"}, "platforms"),
        ({"image": "quay.io/a/b:1", "note": "a\nimages: []"}, "note"),
        ({"image": "quay.io/a/b:1", "note": "a" * 201}, "note"),
    ],
)
def test_mistakes_name_their_field(fields: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidWish) as caught:
        read_wish(fields)
    assert caught.value.field == field and caught.value.hint


def test_only_registries_that_the_list_names_are_asked() -> None:
    for text, permitted in (
        ("index.docker.io/other/app:1", True),
        ("quay.io/a/b:1", True),
        ("http://127.0.0.1:5000/b:1", True),
        ("127.0.0.1:5000/b:1", False),
        ("http://quay.io/a/b:1", False),
        ("http://127.0.0.1:22/b:1", False),
        ("169.254.169.254/latest/meta-data:1", False),
        ("localhost/app:1", False),
    ):
        assert is_permitted(parse_reference(text), WISHES) is permitted, text


def test_a_wish_that_the_list_has_is_found() -> None:
    for text, line in (
        ("debian:12", 3),
        ("docker.io/library/debian:13", 0),
        ("quay.io/astro/app:1.5", 4),
        ("quay.io/astro/app:2", 0),
        (f"quay.io/astro/app@sha256:{'ab' * 32}", 0),
    ):
        found = same_wish(parse_reference(text), WISHES)
        assert (found.line if found else 0) == line, text


def test_a_list_is_edited_at_its_forge() -> None:
    for url, expected in (
        ("https://github.com/a/w.git", "https://github.com/a/w/edit/main/lists/a%20b.yaml"),
        ("https://gitlab.example.org/a/b/w", "https://gitlab.example.org/a/b/w/-/edit/main/lists"),
        ("https://codeberg.org/a/w.git", "https://codeberg.org/a/w/_edit/main/lists/"),
        ("https://gitea.example.org:8443/a/w", "https://gitea.example.org:8443/a/w/_edit/main/"),
        ("https://user:password@github.com/a/w", "https://github.com/a/w/edit/main/"),
        ("https://git.example.org/a/w", ""),
        ("ssh://git@github.com/a/w.git", ""),
        ("https://notgithub.com/a/w", ""),
    ):
        found = edit_address(url, "lists/a b.yaml", "main")
        assert found.startswith(expected) and bool(found) == bool(expected), found
