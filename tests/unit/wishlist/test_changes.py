"""Two versions of a wish list are compared by the meaning of their wishes."""

from __future__ import annotations

from publisher.wishlist import parse_wish_list
from publisher.wishlist.changes import Change, Changes, ListVersion, compare_versions


def version(text: str) -> ListVersion:
    wish_list = parse_wish_list(text, "l")
    return ListVersion.of(text.encode(), wish_list.wishes, wish_list.problems)


def compare(old: str, new: str) -> Changes:
    return compare_versions(version(new), version(old))


def changes(old: str, new: str) -> list[tuple[int, str]]:
    return [(wish.line, str(change)) for wish, change in compare(old, new).wishes]


OLD = """\
version: 2
images:
  - docker.io/library/debian:stable
  - {image: quay.io/a/b:1, owner: astro}
  - {image: quay.io/a/c, tags: ['1.*']}
"""


def test_the_same_wishes_in_another_form_are_no_change() -> None:
    other = """\
# a comment
version: 2
images:
  - image: quay.io/a/c
    tags: ['1.*']
  - quay.io/a/new:1
  - image: quay.io/a/b:1
    owner: astro
  - debian:stable
"""
    assert changes(OLD, other) == [(4, "kept"), (6, "added"), (7, "kept"), (9, "kept")]
    first = "version: 1\ninput: [debian:stable, quay.io/a/b:1]\n"
    second = "version: 2\nimages: [debian:stable, quay.io/a/b:1, quay.io/a/b:2]\n"
    assert [change for _, change in changes(first, second)] == ["kept", "kept", "added"]


def test_a_wish_with_other_settings_is_altered_and_a_note_changes_its_terms_only() -> None:
    new = OLD.replace("owner: astro", "owner: bio").replace("['1.*']}", "['1.*'], note: x}")
    assert changes(OLD, new) == [(3, "kept"), (4, "altered"), (5, "terms")]
    defaults = OLD.replace("images:", "defaults: {platforms: [linux/arm64]}\nimages:")
    assert {change for _, change in changes(OLD, defaults)} == {"altered"}


def test_of_two_equal_wishes_the_one_whose_line_is_new_is_the_added_one() -> None:
    new = OLD.replace("images:\n", "images:\n  - debian:stable\n")
    assert changes(OLD, new)[:2] == [(3, "added"), (4, "kept")]
    assert changes(OLD, OLD + "  - debian:stable\n")[-1] == (6, "added")


def test_removed_wishes_are_those_that_no_new_wish_continues() -> None:
    result = compare(OLD, OLD.replace("  - docker.io/library/debian:stable\n", ""))
    assert [str(wish) for wish in result.removed] == ["docker.io/library/debian:stable"]
    assert result.count(Change.KEPT) == 2


def test_problems_are_earlier_ones_if_the_old_version_had_them_at_another_line() -> None:
    old = OLD + "  - A B\n  - debian:stable\n"
    new = old.replace("images:\n", "images:\n  - alpine:3\n") + "  - C D\n"
    result = compare(old, new)
    assert [(p.line, p.severity) for p in result.earlier] == [(7, "error"), (8, "warning")]
    assert [p.line for p in result.introduced] == [9]
    assert compare(old, old + "  - A B\n").introduced[0].line == 8
