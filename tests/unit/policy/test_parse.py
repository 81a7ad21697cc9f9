"""A policy file is read with the places of its rules, and every mistake is reported."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
import yaml

from publisher.policy import InvalidPolicy, parse_policy
from publisher.policy.model import Setting, SignatureRule, Signer
from tests.schemas import ROOT

SCHEMA = json.loads(files("publisher").joinpath("schemas/policy-1.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

EXAMPLE = """\
version: 1
registries: {allow: [docker.io, '*.example.org'], deny: [old.example.org]}
images:
  deny:
    - docker.io/*/*-dev
forbid-tags: [latest, 'nightly*']
max-size: 20 GB
max-entries: 500000
max-images: 2000
max-tags: 20
labels:
  org.opencontainers.image.source: 'https://*'
signatures:
  - images: [docker.io/secure/*]
    keys: [keys/cosign.pub]
    trusted-root: root.json
    identities:
      - {issuer: 'https://login.example.org', subject: '*@example.org'}
known-owners-only: true
owners:
  astro:
    users: [alice, 'astro-*']
    max-size: 1.5 GiB
    images: {allow: ['quay.io/astro/*'], deny: ['*/old']}
    pinned: true
"""


def test_the_rules_of_an_owner_replace_general_ones_but_not_what_those_forbid() -> None:
    policy = parse_policy(EXAMPLE, "lists/policy.yaml")
    VALIDATOR.validate(yaml.safe_load(EXAMPLE))
    general, astro = policy.rules_for("other"), policy.rules_for("astro")
    assert general.max_size == Setting(20 * 10**9, 7)
    assert astro.max_size == Setting(3 * 2**29, 23)
    assert (astro.max_entries, astro.max_images, policy.general.max_images) == (
        Setting(500000, 8),
        None,
        Setting(2000, 9),
    )
    assert [setting.line for setting in astro.deny_images] == [5, 24]
    assert astro.allow_images == Setting(("quay.io/astro/*",), 24)
    assert general.allow_images is None
    assert (general.pinned, astro.pinned) == (None, Setting(True, 25))
    rule = SignatureRule(
        ("docker.io/secure/*",),
        ("lists/keys/cosign.pub",),
        (Signer("https://login.example.org", "*@example.org"),),
        "lists/root.json",
    )
    assert astro.signatures == (Setting(rule, 14),)
    assert [each.keys for each in policy.signature_rules()] == [("lists/keys/cosign.pub",)]
    assert astro.users == Setting(("alice", "astro-*"), 22)
    assert policy.only_known_owners == Setting(True, 19)


BAD: dict[str, Any] = {
    "no version": {},
    "another version": {"version": 2},
    "unknown key": {"version": 1, "max-sizes": "1 GB"},
    "no unit": {"version": 1, "max-size": "20"},
    "unknown unit": {"version": 1, "max-size": "20 kiB"},
    "unlimited digits": {"version": 1, "max-size": "9" * 400 + " TB"},
    "negative": {"version": 1, "max-tags": -1},
    "text for a number": {"version": 1, "max-tags": "many"},
    "text for a flag": {"version": 1, "pinned": "maybe"},
    "list for a mapping": {"version": 1, "registries": ["docker.io"]},
    "unknown key in registries": {"version": 1, "registries": {"forbid": ["x"]}},
    "white space in a pattern": {"version": 1, "images": {"deny": ["a b"]}},
    "bracket that is not closed": {"version": 1, "forbid-tags": ["1.[0-9"]},
    "empty list": {"version": 1, "images": {"allow": []}},
    "signature without a key": {"version": 1, "signatures": [{"images": ["*"]}]},
    "identity without a subject": {"version": 1, "signatures": [{"identities": [{"issuer": "x"}]}]},
    "identities as a mapping": {"version": 1, "signatures": [{"identities": {"issuer": "x"}}]},
    "identity as text": {"version": 1, "signatures": [{"identities": ["x"]}]},
    "no identities": {"version": 1, "signatures": [{"identities": []}]},
    "signatures without a list": {"version": 1, "signatures": {"keys": ["a"]}},
    "signature as text": {"version": 1, "signatures": ["a"]},
    "users in general": {"version": 1, "users": ["a"]},
    "owner without rules": {"version": 1, "owners": {"astro": None}},
    "owners as a list": {"version": 1, "owners": ["astro"]},
    "known owners for one owner": {"version": 1, "owners": {"a": {"known-owners-only": True}}},
    "label without a value": {"version": 1, "labels": {"a": None}},
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_a_mistake_is_refused_with_its_place_by_the_parser_and_by_the_schema(value: Any) -> None:
    assert not VALIDATOR.is_valid(value)
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy(json.dumps(value), "p.yaml")
    for problem in caught.value.problems:
        assert problem.line == 1
        assert problem.suggestion


def test_the_policy_in_the_documentation_is_valid() -> None:
    text = (ROOT / "docs/pull-requests.md").read_text()
    [block] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    VALIDATOR.validate(yaml.safe_load(block))
    policy = parse_policy(block, "p.yaml")
    section = text.split("## Policy")[1].split("\n## ")[0]
    rules = re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)
    assert set(rules) == {*SCHEMA["properties"], "users"} - {"version", "owners"}
    assert set(policy.owners) == {"astro", "bio"}


def test_all_mistakes_are_reported_at_once_and_other_documents_are_refused() -> None:
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy("version: 1\nmax-size: 5\npinned: x\nowner: {}\n", "p.yaml")
    assert sorted(problem.line for problem in caught.value.problems) == [2, 3, 4]
    assert "did you mean 'owners'?" in str(caught.value)
    for text in ("", "- a\n", "a: [\n", "x" * 2**21):
        with pytest.raises(InvalidPolicy):
            parse_policy(text, "p.yaml")
