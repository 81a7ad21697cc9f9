"""Which requests the service answers: identities, and what each of them may do. Pure."""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import UTC, date, datetime

from publisher.errors import PublisherError
from publisher.lazy import dataclass, pattern
from publisher.service.projects import SERVICE, Grants, Member, Person, Project
from publisher.service.providers import JobTokens, Login, Proxy
from publisher.service.verbs import OPEN
from publisher.service.verbs import Verb as Verb

_HEADER = pattern(r"[Bb][Ee][Aa][Rr][Ee][Rr] +(?P<token>[A-Za-z0-9._~+/-]{1,16384}=*) *")


class Anonymous(enum.StrEnum):
    """What requests without a token may read."""

    NOTHING = "nothing"
    PUBLISHED = "published"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the configuration, of which only the hash is known.

    Attributes:
        name: Which program or person has it, for people to read.
        sha256: The SHA-256 of the token, in hexadecimal digits.
        allows: What requests with it may do.
        expires: The first day (UTC) on which it is not valid, or None.
        projects: The projects in which they may do it; () for the service itself and all projects.
    """

    name: str
    sha256: str = field(repr=False)
    allows: frozenset[Verb]
    expires: date | None = None
    projects: tuple[str, ...] = ()

    @property
    def grants(self) -> Grants:
        """What the token allows, by project."""
        return dict.fromkeys(self.projects or (SERVICE,), self.allows)


@dataclass(frozen=True, slots=True)
class Access:
    """Everything that decides about requests.

    Attributes:
        anonymous: What requests without a token may read.
        tokens: The tokens of the configuration.
        projects: The projects.
        administrators: The members of all projects, and of what belongs to no project.
        url: The address of the service as browsers know it, without a path; "" if it is not known.
        login: Where people log in, or None.
        job_tokens: The tokens of jobs of forges.
        proxy: The proxy that identifies users, or None.
    """

    anonymous: Anonymous = Anonymous.NOTHING
    tokens: tuple[Token, ...] = ()
    projects: tuple[Project, ...] = ()
    administrators: tuple[Member, ...] = ()
    url: str = ""
    login: Login | None = None
    job_tokens: tuple[JobTokens, ...] = ()
    proxy: Proxy | None = None


class Means(enum.StrEnum):
    """How the sender of a request is known."""

    ANONYMOUS = "anonymous"
    TOKEN = "token"
    SESSION = "user"
    PROXY = "user of the proxy"
    JOB = "job"


@dataclass(frozen=True, slots=True)
class Identity:
    """The sender of a request: a name, "" if it is not known, and what is allowed where.

    `token` is the identifier of a token that a request has created: several may have one name.
    `person` is the user, or the user who has created that token; None without one. `has_ended` is
    whether that user has no role any more that the token could have.
    """

    name: str
    grants: Grants = field(default_factory=dict)
    means: Means = Means.ANONYMOUS
    token: str = ""
    person: Person | None = None
    has_ended: bool = False

    @property
    def label(self) -> str:
        """The name for records and limits, which no created token shares with others."""
        return f"{self.name} ({self.token})" if self.token else self.name

    @property
    def is_person(self) -> bool:
        """Whether the sender is a user, whose roles the configuration states."""
        return self.means in (Means.SESSION, Means.PROXY)

    @property
    def verbs(self) -> frozenset[Verb]:
        """Everything that is allowed in at least one project."""
        return frozenset[Verb]().union(*self.grants.values())

    def projects(self, verb: Verb) -> frozenset[str] | None:
        """Return the projects in which the verb is allowed; None for all of them."""
        if may(self, verb):
            return None
        return frozenset(name for name, verbs in self.grants.items() if verb in verbs)


class Unauthorized(PublisherError):
    """A request has no token, or not one that is valid; `is_invalid` tells the two apart."""

    def __init__(self, what: str, *, why: str, hint: str, is_invalid: bool) -> None:
        super().__init__(what, why=why, hint=hint)
        self.is_invalid = is_invalid


class Forbidden(PublisherError):
    """The sender of a request is known, and may not do what it does in `project`."""

    def __init__(self, identity: Identity, verb: Verb, project: str = SERVICE) -> None:
        where = f" in the project {project}" if project else " outside of its projects"
        is_nowhere = not project and verb not in identity.verbs
        if is_nowhere or not identity.verbs or set(identity.grants) == {SERVICE}:
            where = ""
        why = f"the {identity.means} {identity.name} does not allow to {verb}{where}"
        if identity.is_person:
            why = f"{identity.name} has no role that allows to {_PHRASES[verb]}{where}"
        super().__init__(
            "cannot answer the request",
            why=why,
            hint=_hint(identity, verb, project),
        )
        self.name = identity.label
        self.verb = str(verb)
        self.project = project


def _hint(identity: Identity, verb: Verb, project: str) -> str:
    """Return what helps a sender that may not do this in a project."""
    if verb is Verb.SUBMIT and not project and verb in identity.verbs:
        return "for a single image, add project to the request; other jobs need another sender"
    if identity.has_ended:
        return "use another token: this one ended with the roles of the user who created it"
    if identity.means is Means.TOKEN:
        return f"use a token that allows {verb}" + (f" in the project {project}" if project else "")
    if identity.means is Means.JOB:
        return f"add {verb} to allows of a rule of job-tokens in the configuration"
    if not project and not any(identity.grants):
        return "ask an administrator of the service to add the user to members of a project"
    return "ask an administrator of the project for a role that allows it"


_ANONYMOUS: Mapping[Anonymous, Grants] = {
    Anonymous.NOTHING: {},
    Anonymous.PUBLISHED: {SERVICE: frozenset({Verb.BROWSE})},
    Anonymous.EVERYTHING: {SERVICE: frozenset({Verb.READ})},
}


ANONYMOUS = (Verb.BROWSE, Verb.READ)
"""The verbs that requests without a sender may be allowed."""


def may(identity: Identity, verb: Verb, project: str = SERVICE) -> bool:
    """Return whether a request of `identity` may do this in a project.

    What belongs to no project, SERVICE, needs the verb for the service itself. What is published
    has no project: reading anything includes browsing.
    """
    if verb in OPEN:
        return True
    if verb is Verb.BROWSE:
        return bool(identity.verbs & {Verb.BROWSE, Verb.READ})
    return any(verb in identity.grants.get(name, ()) for name in (SERVICE, project))


def anonymous(access: Access) -> Identity:
    """Return the sender of a request that does not state one."""
    return Identity("", _ANONYMOUS[access.anonymous])


def bearer(headers: Sequence[str]) -> str:
    """Return the token in the Authorization headers of a request.

    Raises:
        Unauthorized: They have another form. Such a request is not taken as anonymous, so that a
            mistake is noticed where anonymous requests are answered as well.
    """
    match = _HEADER.fullmatch(headers[0]) if len(headers) == 1 else None
    if match is None:
        raise _invalid("Authorization is not one header of the form 'Bearer TOKEN'")
    return match["token"]


def find_token(access: Access, given: str, now: datetime) -> Identity | None:
    """Return the identity of a token of the configuration; None if it is not one of these.

    A token also allows what requests without a token may read.

    Raises:
        Unauthorized: The token has expired.
    """
    digest = hashlib.sha256(given.encode()).hexdigest()
    # All tokens are compared, so that the time does not depend on which of them matches.
    found = [each for each in access.tokens if hmac.compare_digest(each.sha256, digest)]
    if not found:
        return None
    [token] = found[:1]
    if token.expires is not None and token.expires <= now.astimezone(UTC).date():
        raise _invalid(f"the token {token.name} has expired")
    return identity_with(access, token.name, token.grants, Means.TOKEN)


def unknown_token() -> Unauthorized:
    """Return the error of a request with a token that is not known."""
    return _invalid("the service does not know this token")


def identity_with(
    access: Access,
    name: str,
    grants: Grants,
    means: Means,
    token: str = "",
    person: Person | None = None,
) -> Identity:
    """Return an identity that may do this, and what anonymous requests may read."""
    parts = (_ANONYMOUS[access.anonymous], grants)
    names = dict.fromkeys(each for part in parts for each in part)
    joined = {
        each: frozenset[Verb]().union(*(part.get(each, ()) for part in parts)) for each in names
    }
    has_ended = means is Means.TOKEN and person is not None and not any(grants.values())
    return Identity(name, joined, means, token, person, has_ended)


def check(identity: Identity, verb: Verb, project: str = SERVICE) -> None:
    """Raise Unauthorized or Forbidden if a request of `identity` may not do this in a project."""
    if not may(identity, verb, project):
        raise refusal(identity, verb, project)


def refusal(identity: Identity, verb: Verb, project: str = SERVICE) -> Unauthorized | Forbidden:
    """Return why a request may not do this: its sender is not known, or not allowed to."""
    if identity.name:
        return Forbidden(identity, verb, project)
    return Unauthorized(
        "cannot answer the request",
        why=f"requests without a token may not {_PHRASES[verb]}",
        hint="send the header 'Authorization: Bearer TOKEN'",
        is_invalid=False,
    )


_PHRASES = {
    Verb.PROBE: "probe the service",
    Verb.NOTIFY: "send notifications",
    Verb.LOGIN: "log in",
    Verb.BROWSE: "read what is published",
    Verb.READ: "read jobs, their logs, and the states of wishes",
    Verb.SUBMIT: "queue jobs",
    Verb.CANCEL: "cancel jobs",
    Verb.REMOVE: "remove images",
    Verb.ADMINISTER: "manage tokens",
}


def _invalid(why: str) -> Unauthorized:
    hint = "use a valid token, of the configuration or created at /api/v1/tokens"
    return Unauthorized("cannot answer the request", why=why, hint=hint, is_invalid=True)
