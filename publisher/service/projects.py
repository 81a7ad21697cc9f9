"""Projects: groups of people with wish lists of their own. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from publisher.lazy import dataclass
from publisher.oci.reference import canonical_name
from publisher.service.verbs import ROLES, Role, Verb
from publisher.wishlist.quota import Quota

SERVICE = ""
"""In place of the name of a project: the service itself, and with it every project."""

Grants = Mapping[str, frozenset[Verb]]
"""Verbs by the name of the project in which they are allowed; those of SERVICE in all."""


@dataclass(frozen=True, slots=True)
class Person:
    """A user, as an identity provider or a proxy describes one.

    `claims` are further statements about the user, with text values.
    """

    name: str
    groups: frozenset[str] = frozenset()
    claims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Member:
    """The role of one user, of a group, or of all users with certain claims.

    One of `user`, `group` and `claims` is not empty. All claims have to be present.
    """

    role: Role
    user: str = ""
    group: str = ""
    claims: Mapping[str, str] = field(default_factory=dict)

    def includes(self, person: Person) -> bool:
        """Return whether the person is meant."""
        if self.user:
            return self.user == person.name
        if self.group:
            return self.group in person.groups
        return bool(self.claims) and all(
            person.claims.get(name) == value for name, value in self.claims.items()
        )


@dataclass(frozen=True, slots=True)
class Project:
    """A project of the configuration.

    Attributes:
        name: Its name.
        members: The users with a role in it.
        credentials: The file with its credentials for registries, as docker and podman have them.
        settings: The file with its settings of registries, as the option --config names it.
        prefix: The directory of the published tree in which its images have their public names;
            "" for any.
        quota: How much its images may use in each repository.
        registries: The canonical names of those that it may use; () for all.
    """

    name: str
    members: tuple[Member, ...] = ()
    credentials: Path | None = None
    settings: Path | None = None
    prefix: str = ""
    quota: Quota = Quota()
    registries: tuple[str, ...] = ()

    def may_ask(self, registry: str) -> bool:
        """Return whether jobs of the project may send requests to a registry."""
        return not self.registries or canonical_name(registry) in self.registries


def verbs_of(person: Person, members: tuple[Member, ...]) -> frozenset[Verb]:
    """Return what the person may do as one of `members`, by all of their roles together."""
    found = [ROLES[each.role] for each in members if each.includes(person)]
    return frozenset[Verb]().union(*found)


def limited_to(grants: Grants, others: Grants) -> Grants:
    """Return what of `grants` is allowed by `others` as well."""
    everywhere = others.get(SERVICE, frozenset())
    found = {
        name: verbs & (everywhere | others.get(name, frozenset())) for name, verbs in grants.items()
    }
    return {name: verbs for name, verbs in found.items() if verbs}


def grants_of(
    person: Person, projects: tuple[Project, ...], administrators: tuple[Member, ...]
) -> Grants:
    """Return what the person may do, in each project and in the service itself."""
    parts = ((SERVICE, administrators), *((each.name, each.members) for each in projects))
    grants = {name: verbs_of(person, members) for name, members in parts}
    return {name: verbs for name, verbs in grants.items() if verbs}
