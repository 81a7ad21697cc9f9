"""Which requests are answered: the decision alone."""

from __future__ import annotations

import hashlib
import itertools
from datetime import UTC, date, datetime

import pytest

from publisher.service.access import (
    Access,
    Anonymous,
    Forbidden,
    Identity,
    Token,
    Unauthorized,
    Verb,
    check,
    identify,
    may,
)

NOW = datetime(2026, 11, 26, 23, 59, tzinfo=UTC)


def token(name: str, *verbs: Verb, expires: date | None = None) -> Token:
    hashed = hashlib.sha256(f"secret-{name}".encode()).hexdigest()
    return Token(name, hashed, frozenset(verbs), expires)


def test_a_verb_is_allowed_where_it_is_granted_and_reading_includes_browsing() -> None:
    for count in range(4):
        for verbs in itertools.combinations((Verb.READ, Verb.SUBMIT, Verb.CANCEL), count):
            identity = Identity("a", frozenset(verbs))
            allowed = {verb for verb in Verb if may(identity, verb)}
            browse = {Verb.BROWSE} if Verb.READ in verbs else set()
            assert allowed == {Verb.PROBE, *verbs} | browse


def test_anonymous_requests_read_what_the_configuration_states() -> None:
    for anonymous, verbs in (
        (Anonymous.NOTHING, set()),
        (Anonymous.PUBLISHED, {Verb.BROWSE}),
        (Anonymous.EVERYTHING, {Verb.BROWSE, Verb.READ}),
    ):
        access = Access(anonymous, (token("ci", Verb.SUBMIT),))
        identity = identify(access, [], NOW)
        assert {verb for verb in Verb if may(identity, verb)} == {Verb.PROBE} | verbs
        identity = identify(access, ["Bearer secret-ci"], NOW)
        assert identity.name == "ci"
        allowed = {Verb.PROBE, Verb.SUBMIT} | verbs
        assert {verb for verb in Verb if may(identity, verb)} == allowed
    with pytest.raises(Unauthorized) as caught:
        check(identify(Access(), [], NOW), Verb.READ)
    assert not caught.value.is_invalid
    with pytest.raises(Forbidden) as refused:
        check(identity, Verb.CANCEL)
    assert (refused.value.name, refused.value.verb) == ("ci", "cancel")


def test_only_valid_tokens_are_accepted() -> None:
    tokens = (
        token("old", Verb.READ, expires=date(2026, 11, 26)),
        token("new", Verb.READ, expires=date(2026, 11, 27)),
    )
    access = Access(Anonymous.EVERYTHING, tokens)
    for header in ("Bearer secret-new", "bearer  secret-new "):
        assert identify(access, [header], NOW).name == "new"
    for headers in (
        ["Bearer secret-old"],
        ["Bearer secret-other"],
        ["Bearer"],
        ["Bearer "],
        ["Bearer secret-new extra"],
        ["Bearer é"],
        ["Bearer " + "a" * 5000],
        ["Basic c2VjcmV0LW5ldw=="],
        [f"Bearer {tokens[1].sha256}"],  # the hash is not the token
        ["secret-new"],
        [""],
        ["Bearer secret-new", "Bearer secret-new"],
    ):
        with pytest.raises(Unauthorized) as caught:
            identify(access, headers, NOW)
        assert caught.value.is_invalid and "secret" not in str(caught.value)
    with pytest.raises(Unauthorized, match="the token old has expired"):
        identify(access, ["Bearer secret-old"], NOW)
