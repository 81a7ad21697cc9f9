"""What requests do, and which roles may do it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from publisher.service.kinds import JobKind


class Verb(enum.StrEnum):
    """What a request does; each route has one."""

    PROBE = "probe"
    """Whether the service is alive, for service managers."""
    NOTIFY = "notify"
    """A webhook, which has a secret of its own in place of a token."""
    LOGIN = "login"
    """Logs in or out."""
    BROWSE = "browse"
    """Reads what is published."""
    READ = "read"
    """Reads everything, such as jobs, their logs, and the states of wishes."""
    SUBMIT = "submit"
    """Queues jobs that publish or check."""
    CANCEL = "cancel"
    """Ends jobs."""
    REMOVE = "remove"
    """Queues jobs that remove images, and changes what keeps images from being removed."""
    ADMINISTER = "administer"
    """Creates and revokes tokens."""


UNKNOWN = (Verb.PROBE, Verb.NOTIFY)
"""The verbs whose requests have no sender."""

OPEN = (*UNKNOWN, Verb.LOGIN)
"""The verbs that each sender is allowed."""

GRANTED = (Verb.READ, Verb.SUBMIT, Verb.CANCEL, Verb.REMOVE, Verb.ADMINISTER)
"""The verbs that a token may have."""


class Reach(enum.StrEnum):
    """Where the sender of a request has to be allowed the verb of its route."""

    SERVICE = "service"
    """In the service itself: the guard alone decides."""
    OBJECT = "object"
    """In the project of what the request is about: the endpoint names it by `guard.allow`, or
    shows only what `guard.visible` states. The guard refuses requests that are allowed the verb in
    no project."""


class Role(enum.StrEnum):
    """What a member may do in a project; each role includes those before it."""

    VIEWER = "viewer"
    EDITOR = "editor"
    MAINTAINER = "maintainer"
    ADMIN = "admin"


ROLES: Mapping[Role, frozenset[Verb]] = {
    Role.VIEWER: frozenset({Verb.READ}),
    Role.EDITOR: frozenset({Verb.READ, Verb.SUBMIT, Verb.CANCEL}),
    Role.MAINTAINER: frozenset({Verb.READ, Verb.SUBMIT, Verb.CANCEL, Verb.REMOVE}),
    Role.ADMIN: frozenset(GRANTED),
}


def role_of(verbs: frozenset[Verb]) -> Role | None:
    """Return the strongest role of which these verbs allow everything; None for none."""
    found = [role for role, allowed in ROLES.items() if allowed <= verbs]
    return found[-1] if found else None


_REMOVING = (JobKind.PRUNE, JobKind.GC, JobKind.RECONCILE)


def verb_for(kind: JobKind) -> Verb:
    """Return what a request does that queues a job of this kind."""
    return Verb.REMOVE if kind in _REMOVING else Verb.SUBMIT
