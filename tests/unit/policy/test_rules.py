"""The rules of a policy are applied to facts about wishes and images."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from publisher.oci.reference import parse_pattern
from publisher.policy import Violation, parse_policy
from publisher.policy.rules import ImageFacts, PolicyCheck


def check_of(text: str, owner: str = "") -> PolicyCheck:
    return PolicyCheck(parse_policy(f"version: 1\n{text}\n", "p.yaml"), owner)


def rules(found: Iterable[Violation]) -> list[tuple[str, int]]:
    violations = list(found)
    assert all(each.hint and each.message for each in violations)
    return [(each.rule, each.line) for each in violations]


def of_wish(text: str, image: str, owner: str = "") -> list[tuple[str, int]]:
    reference, pattern = parse_pattern(image)
    return rules(check_of(text, owner).wish(reference, has_patterns=pattern is not None))


HUB_ONLY = "registries: {allow: [docker.io, local]}"
ASTRO = "owners:\n  astro: {images: {allow: ['quay.io/astro/*']}}\nknown-owners-only: true"


@pytest.mark.parametrize(
    ("text", "image", "owner", "expected"),
    [
        (HUB_ONLY, "debian", "", []),
        (HUB_ONLY, "https://index.docker.io/library/debian:1", "", []),
        (HUB_ONLY, "oci:/srv/layout:1", "", []),
        (HUB_ONLY, "quay.io/a/b:1", "", [("registries", 2)]),
        ("registries: {deny: ['*.example.org']}", "reg.example.org/a:1", "", [("registries", 2)]),
        ("registries: {deny: [docker.io]}", "hub.docker.com/library/a:1", "", [("registries", 2)]),
        ("registries: {deny: [docker.io]}", "docker.io:443/library/a:1", "", [("registries", 2)]),
        ("registries: {deny: [quay.io]}", "QUAY.io:443/a/b:1", "", [("registries", 2)]),
        ("registries: {deny: [quay.io]}", "http://quay.io:80/a/b:1", "", [("registries", 2)]),
        ("registries: {deny: [quay.io]}", "quay.io:444/a/b:1", "", []),
        ("registries: {allow: ['quay.io:443']}", "quay.io:443/a/b:1", "", []),
        ("images: {deny: ['quay.io/a/*']}", "quay.io:443/a/b:1", "", [("images", 2)]),
        ("images: {allow: ['quay.io:443/a/*']}", "quay.io:443/a/b:1", "", []),
        ("images: {deny: ['docker.io/*-dev']}", "a/b/c-dev:1", "", [("images", 2)]),
        ("images: {deny: ['docker.io/*-dev']}", "a/b/c:1-dev", "", []),
        ("forbid-tags: [latest, 'n*']", "debian", "", [("forbid-tags", 2)]),
        ("forbid-tags: [latest]", f"debian:latest@sha256:{'1' * 64}", "", []),
        ("forbid-tags: [latest]", "debian:*", "", []),
        ("pinned: true", "debian:1", "", [("pinned", 2)]),
        ("pinned: true", "debian:1.*", "", [("pinned", 2)]),
        ("pinned: true", f"debian@sha256:{'1' * 64}", "", []),
        ("pinned: false", "debian:1", "", []),
        (ASTRO, "quay.io/astro/a:1", "astro", []),
        (ASTRO, "quay.io/bio/a:1", "astro", [("images", 3)]),
        (ASTRO, "quay.io/astro/a:1", "", [("known-owners-only", 4)]),
        (ASTRO, "quay.io/astro/a:1", "bio", [("known-owners-only", 4)]),
    ],
)
def test_a_wish_is_judged_by_its_names_its_tag_and_its_owner(
    text: str, image: str, owner: str, expected: list[tuple[str, int]]
) -> None:
    assert of_wish(text, image, owner) == expected


def test_a_signature_is_required_whatever_the_spelling_of_the_registry() -> None:
    check = check_of("signatures: [{images: ['quay.io/a/*'], keys: [k.pub]}]")
    for image in ("quay.io/a/b:1", "quay.io:443/a/b:1", "http://quay.io:80/a/b:1"):
        assert list(check.signatures(parse_pattern(image)[0])), image


def test_sizes_entries_labels_and_counts_have_limits() -> None:
    text = (
        "max-size: 1 kB\nmax-entries: 10\nmax-tags: 2\nmax-images: 5\n"
        "labels: {a: 'x*'}\nowners: {astro: {max-images: 3, max-size: 2 kB}}"
    )
    check, astro = check_of(text), check_of(text, "astro")
    good = ImageFacts(1000, 10, ({"a": "xy"},))
    assert rules(check.image(good)) == []
    assert rules(check.image(ImageFacts(1001, 11, ({"a": "xy"}, {"b": "x"})))) == [
        ("max-size", 2),
        ("max-entries", 3),
        ("labels", 6),
    ]
    assert rules(astro.image(ImageFacts(2000, 0, ({"a": "x"},)))) == []
    assert (rules(check.width(2)), rules(check.width(3))) == ([], [("max-tags", 4)])
    assert rules(check.count(5, 5)) == []
    assert rules(check.count(1, 6)) == [("max-images", 5)]
    assert rules(astro.count(4, 6)) == [("max-images", 7), ("max-images", 5)]


def test_users_may_change_the_wishes_of_their_owners_only() -> None:
    text = "owners: {astro: {users: [alice, 'astro-*']}, free: {}}"
    assert rules(check_of(text, "astro").change("alice")) == []
    assert rules(check_of(text, "astro").change("astro-bot")) == []
    assert rules(check_of(text, "astro").change("bob")) == [("users", 2)]
    assert rules(check_of(text, "free").change("bob")) == []
    assert rules(check_of(text).change("bob")) == []
    [violation] = check_of(text, "astro").change("bob")
    assert violation.why == "bob may not change wishes of astro (rule users, p.yaml:2)"
