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
    Means,
    Token,
    Unauthorized,
    Verb,
    anonymous,
    bearer,
    check,
    find_token,
    may,
    unknown_token,
)
from publisher.service.kinds import JobKind
from publisher.service.projects import SERVICE, Member, Person, Project, grants_of
from publisher.service.verbs import OPEN, ROLES, Role, verb_for

NOW = datetime(2026, 11, 26, 23, 59, tzinfo=UTC)


def identify(access: Access, headers: list[str], now: datetime) -> Identity:
    """The sender of a request with these Authorization headers."""
    if not headers:
        return anonymous(access)
    found = find_token(access, bearer(headers), now)
    if found is None:
        raise unknown_token()
    return found


def token(name: str, *verbs: Verb, expires: date | None = None) -> Token:
    hashed = hashlib.sha256(f"secret-{name}".encode()).hexdigest()
    return Token(name, hashed, frozenset(verbs), expires)


def test_a_verb_is_allowed_where_it_is_granted_and_reading_includes_browsing() -> None:
    for count in range(4):
        for verbs in itertools.combinations((Verb.READ, Verb.SUBMIT, Verb.CANCEL), count):
            identity = Identity("a", {SERVICE: frozenset(verbs)})
            allowed = {verb for verb in Verb if may(identity, verb)}
            browse = {Verb.BROWSE} if Verb.READ in verbs else set()
            assert allowed == {*OPEN, *verbs} | browse


def test_anonymous_requests_read_what_the_configuration_states() -> None:
    for allowed_to_all, verbs in (
        (Anonymous.NOTHING, set()),
        (Anonymous.PUBLISHED, {Verb.BROWSE}),
        (Anonymous.EVERYTHING, {Verb.BROWSE, Verb.READ}),
    ):
        access = Access(allowed_to_all, (token("ci", Verb.SUBMIT),))
        identity = identify(access, [], NOW)
        assert {verb for verb in Verb if may(identity, verb)} == {*OPEN} | verbs
        identity = identify(access, ["Bearer secret-ci"], NOW)
        assert identity.name == "ci"
        allowed = {*OPEN, Verb.SUBMIT} | verbs
        assert {verb for verb in Verb if may(identity, verb)} == allowed
    with pytest.raises(Unauthorized) as caught:
        check(identify(Access(), [], NOW), Verb.READ)
    assert not caught.value.is_invalid
    with pytest.raises(Forbidden) as refused:
        check(identity, Verb.CANCEL)
    assert (refused.value.name, refused.value.verb) == ("ci", "cancel")
    # Only of what is allowed in some project, others are excluded.
    for verb, where in ((Verb.CANCEL, ""), (Verb.SUBMIT, " outside of its projects")):
        with pytest.raises(Forbidden) as refused:
            check(Identity("t", {"a": frozenset({Verb.SUBMIT})}, Means.TOKEN), verb)
        assert refused.value.why == f"the token t does not allow to {verb}{where}"


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
        ["Bearer " + "a" * 20_000],
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


def test_members_are_found_by_name_group_or_claims_and_have_all_of_their_roles() -> None:
    members = (
        Member(Role.EDITOR, user="alice"),
        Member(Role.VIEWER, group="staff"),
        Member(Role.MAINTAINER, claims={"unit": "astro", "active": "true"}),
    )
    projects = (Project("astro", members), Project("bio", members[:1]))
    claims = {"unit": "astro", "active": "true", "other": "x"}
    for person, roles in (
        (Person("alice"), {"astro": Role.EDITOR, "bio": Role.EDITOR}),
        (Person("Alice"), {}),
        (Person("bob", frozenset({"staff", "x"})), {"astro": Role.VIEWER}),
        (Person("staff"), {}),
        (Person("carol", frozenset({"alice"}), claims), {"astro": Role.MAINTAINER}),
        (Person("alice", claims=claims), {"astro": Role.MAINTAINER, "bio": Role.EDITOR}),
        (Person("dan", claims={"unit": "astro"}), {}),
        (Person(""), {}),
    ):
        expected = {name: ROLES[role] for name, role in roles.items()}
        assert grants_of(person, projects, ()) == expected, person
    administrators = (Member(Role.ADMIN, group="operators"),)
    operator = Person("olga", frozenset({"operators"}))
    grants = grants_of(operator, projects, administrators)
    assert grants == {SERVICE: ROLES[Role.ADMIN]}
    identity = Identity("olga", grants)
    assert all(may(identity, verb, "bio") for verb in ROLES[Role.ADMIN])
    assert not Member(Role.ADMIN).includes(Person("", frozenset({""}), {}))


def test_a_token_for_projects_allows_nothing_elsewhere() -> None:
    secret = hashlib.sha256(b"secret-ci").hexdigest()
    allowed = frozenset({Verb.READ, Verb.SUBMIT})
    access = Access(tokens=(Token("ci", secret, allowed, projects=("astro", "bio")),))
    identity = identify(access, ["Bearer secret-ci"], NOW)
    for project, expected in (("astro", allowed), ("bio", allowed), ("other", set()), ("", set())):
        found = {verb for verb in Verb if may(identity, verb, project)}
        assert found == {*OPEN, Verb.BROWSE, *expected}, project
    assert identity.projects(Verb.READ) == frozenset({"astro", "bio"})
    assert identity.projects(Verb.CANCEL) == frozenset()
    assert Identity("all", {SERVICE: allowed}).projects(Verb.READ) is None
    with pytest.raises(Forbidden, match="in the project other") as caught:
        check(identity, Verb.SUBMIT, "other")
    assert caught.value.project == "other"
    for verb, project, hint in (
        (Verb.SUBMIT, "other", "use a token that allows submit in the project other"),
        (Verb.SUBMIT, "", "for a single image, add project to the request"),
        (Verb.CANCEL, "", "use a token that allows cancel"),
    ):
        with pytest.raises(Forbidden) as caught:
            check(identity, verb, project)
        assert caught.value.hint.startswith(hint) and "configuration" not in caught.value.hint


def test_jobs_that_remove_images_need_a_verb_of_their_own() -> None:
    removing = {kind for kind in JobKind if verb_for(kind) is Verb.REMOVE}
    assert removing == {JobKind.PRUNE, JobKind.GC, JobKind.RECONCILE}
