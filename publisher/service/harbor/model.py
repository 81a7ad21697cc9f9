"""What the configuration wants of Harbor, what it has, and the actions between them. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from publisher.lazy import dataclass
from publisher.service.verbs import Role

ROBOT = "publisher"
"""The name of the robot account in each project, after its prefix."""


class GroupType(enum.IntEnum):
    """Where the groups of Harbor are from, as its API numbers that."""

    LDAP = 1
    HTTP = 2
    OIDC = 3


class HarborRole(enum.IntEnum):
    """The roles of Harbor, as its API numbers them."""

    PROJECT_ADMIN = 1
    DEVELOPER = 2
    GUEST = 3
    MAINTAINER = 4
    LIMITED_GUEST = 5


ROLES: Mapping[Role, HarborRole] = {
    Role.VIEWER: HarborRole.GUEST,
    Role.EDITOR: HarborRole.DEVELOPER,
    Role.MAINTAINER: HarborRole.MAINTAINER,
    Role.ADMIN: HarborRole.PROJECT_ADMIN,
}
"""The role in Harbor of a member of a project."""


@dataclass(frozen=True, slots=True)
class HarborConfiguration:
    """The key `harbor` of the configuration.

    Attributes:
        url: The address of Harbor, without a path.
        user: The user who changes it, an administrator.
        password: The password of the user.
        groups: Where groups are from.
        storage: The quota of projects in bytes, by name. Those of other projects are not changed.
    """

    url: str
    user: str
    password: str = field(repr=False)
    groups: GroupType = GroupType.OIDC
    storage: Mapping[str, int] = field(default_factory=dict)


class MemberKind(enum.StrEnum):
    """What a member of a project is."""

    USER = "user"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class WantedProject:
    """A project as it should be in Harbor.

    Attributes:
        name: Its name.
        members: The roles of its members.
        unmapped: Members that Harbor cannot have, for people to read.
        storage: Its quota in bytes; None to leave it as it is.
        credentials: The file that the robot account is stored in; None for no robot account.
        has_login: Whether the file has a credential for Harbor.
    """

    name: str
    members: Mapping[tuple[MemberKind, str], HarborRole] = field(default_factory=dict)
    unmapped: tuple[str, ...] = ()
    storage: int | None = None
    credentials: Path | None = None
    has_login: bool = False


@dataclass(frozen=True, slots=True)
class FoundMember:
    """A member of a project in Harbor; `identifier` is that of the membership."""

    identifier: int
    kind: MemberKind
    name: str
    role: int


@dataclass(frozen=True, slots=True)
class FoundQuota:
    """The quota of a project in Harbor in bytes; -1 for none."""

    identifier: int
    storage: int


@dataclass(frozen=True, slots=True)
class FoundRobot:
    """A robot account of a project in Harbor. `can_pull` is whether it may pull images."""

    identifier: int
    name: str
    is_disabled: bool = False
    can_pull: bool = True


@dataclass(frozen=True, slots=True)
class FoundProject:
    """A project in Harbor, with what belongs to it."""

    identifier: int
    name: str
    members: tuple[FoundMember, ...] = ()
    quota: FoundQuota | None = None
    robots: tuple[FoundRobot, ...] = ()


class ActionKind(enum.StrEnum):
    """What an action does."""

    READ_PROJECT = "read-project"
    CREATE_PROJECT = "create-project"
    ADD_MEMBER = "add-member"
    CHANGE_ROLE = "change-role"
    SET_QUOTA = "set-quota"
    CREATE_ROBOT = "create-robot"
    UPDATE_ROBOT = "update-robot"
    RENEW_ROBOT = "renew-robot"
    REMOVE_PROJECT = "remove-project"
    REMOVE_MEMBER = "remove-member"
    REMOVE_ROBOT = "remove-robot"
    SKIP_MEMBER = "skip-member"

    @property
    def removes(self) -> bool:
        """Whether it removes something that the configuration does not have."""
        return self in (self.REMOVE_PROJECT, self.REMOVE_MEMBER, self.REMOVE_ROBOT)


@dataclass(frozen=True, slots=True)
class Action:
    """One change of Harbor.

    Attributes:
        kind: What it does.
        project: The project.
        subject: The member or robot account, or "".
        detail: More of it, for people to read.
        identifier: That of the changed object in Harbor, 0 for a new one.
        member: The kind of the member, if it is about one.
        role: The new role of a member.
        storage: The new quota in bytes.
        credentials: The file that a robot account is stored in.
    """

    kind: ActionKind
    project: str
    subject: str = ""
    detail: str = ""
    identifier: int = 0
    member: MemberKind = MemberKind.USER
    role: HarborRole = HarborRole.GUEST
    storage: int | None = None
    credentials: Path | None = None


class Status(enum.StrEnum):
    """What became of an action."""

    DONE = "done"
    PLANNED = "planned"
    REPORTED = "reported"
    """It removes something, or cannot be mapped, and is for people to decide."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """An action, and what became of it; `error` is why it failed."""

    action: Action
    status: Status
    error: str = ""
