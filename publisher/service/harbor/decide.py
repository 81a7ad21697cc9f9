"""The actions that make Harbor match the configuration. Pure.

Actions that remove something come last, and projects after their parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from publisher.service.harbor.model import (
    ROBOT,
    ROLES,
    Action,
    ActionKind,
    FoundMember,
    FoundProject,
    FoundQuota,
    FoundRobot,
    HarborConfiguration,
    HarborRole,
    MemberKind,
    WantedProject,
)
from publisher.service.projects import Member, Project
from publisher.sizes import human_size


def wanted_projects(
    configuration: HarborConfiguration,
    projects: Sequence[Project],
    administrators: Sequence[Member],
    logins: Collection[str],
) -> tuple[WantedProject, ...]:
    """Return the projects as they should be in Harbor.

    Args:
        configuration: The key `harbor`.
        projects: Those of the configuration.
        administrators: The members of all projects.
        logins: The names of the projects whose credentials include those for Harbor.
    """
    found = []
    for project in projects:
        roles: dict[tuple[MemberKind, str], HarborRole] = {}
        unmapped = []
        for member in (*project.members, *administrators):
            role = ROLES[member.role]
            if member.user:
                key = MemberKind.USER, member.user
            elif member.group:
                key = MemberKind.GROUP, member.group
            else:
                claims = ", ".join(f"{name}={text}" for name, text in member.claims.items())
                unmapped.append(f"claims {claims}")
                continue
            roles[key] = _stronger(role, roles.get(key, role))
        found.append(
            WantedProject(
                project.name,
                roles,
                tuple(dict.fromkeys(unmapped)),
                configuration.storage.get(project.name),
                project.credentials,
                project.name in logins,
            )
        )
    return tuple(found)


_STRENGTH = (
    HarborRole.LIMITED_GUEST,
    HarborRole.GUEST,
    HarborRole.DEVELOPER,
    HarborRole.MAINTAINER,
    HarborRole.PROJECT_ADMIN,
)


def _stronger(one: HarborRole, other: HarborRole) -> HarborRole:
    return max(one, other, key=_STRENGTH.index)


def decide(
    wanted: Iterable[WantedProject], found: Iterable[FoundProject], user: str
) -> tuple[Action, ...]:
    """Return the actions; none if Harbor matches.

    Args:
        wanted: The projects as they should be.
        found: The projects of Harbor, with the parts of those that are wanted.
        user: The user who changes Harbor, and is a member of all projects that it creates.
    """
    by_name = {project.name: project for project in found}
    changes: list[Action] = []
    removals: list[Action] = []
    for project in wanted:
        present = by_name.pop(project.name, None)
        changes += _changes(project, present)
        if present is not None:
            removals += _removals(project, present, user)
    kind = ActionKind.REMOVE_PROJECT
    removals += [Action(kind, each.name, identifier=each.identifier) for each in by_name.values()]
    return (*changes, *removals)


def _changes(wanted: WantedProject, found: FoundProject | None) -> Iterator[Action]:
    name = wanted.name
    if found is None:
        size = wanted.storage
        detail = "" if size is None else f"quota {human_size(size)}"
        yield Action(ActionKind.CREATE_PROJECT, name, detail=detail, storage=size)
    members = {(each.kind, each.name): each for each in found.members} if found else {}
    for (kind, member), role in wanted.members.items():
        yield from _member_changes(name, kind, member, role, members.get((kind, member)))
    for text in wanted.unmapped:
        yield Action(ActionKind.SKIP_MEMBER, name, text, "Harbor has users and groups only")
    if found is not None and wanted.storage is not None:
        yield from _quota_changes(name, wanted.storage, found.quota)
    if wanted.credentials is not None:
        yield from _robot_changes(wanted, own_robot(found.robots) if found else None)


def _quota_changes(project: str, storage: int, found: FoundQuota | None) -> Iterator[Action]:
    if found is None or found.storage == storage:
        return
    before = "none" if found.storage < 0 else human_size(found.storage)
    detail = f"{before} -> {human_size(storage)}"
    kind, identifier = ActionKind.SET_QUOTA, found.identifier
    yield Action(kind, project, detail=detail, identifier=identifier, storage=storage)


def _member_changes(
    project: str, kind: MemberKind, member: str, role: HarborRole, found: FoundMember | None
) -> Iterator[Action]:
    text = role_text(role)
    if found is None:
        yield Action(ActionKind.ADD_MEMBER, project, member, text, member=kind, role=role)
    elif found.role != role:
        detail = f"{role_text(found.role)} -> {text}"
        identifier = found.identifier
        yield Action(ActionKind.CHANGE_ROLE, project, member, detail, identifier, kind, role)


def _robot_changes(wanted: WantedProject, found: FoundRobot | None) -> Iterator[Action]:
    name, credentials = wanted.name, wanted.credentials
    if found is None:
        detail = "may pull"
        yield Action(ActionKind.CREATE_ROBOT, name, ROBOT, detail, credentials=credentials)
        return
    identifier = found.identifier
    if found.is_disabled or not found.can_pull:
        detail = "enabled, may pull"
        yield Action(ActionKind.UPDATE_ROBOT, name, found.name, detail, identifier)
    if not wanted.has_login:
        detail = "new secret: the credentials of the project do not have it"
        kind = ActionKind.RENEW_ROBOT
        yield Action(kind, name, found.name, detail, identifier, credentials=credentials)


def _removals(wanted: WantedProject, found: FoundProject, user: str) -> Iterator[Action]:
    for member in found.members:
        is_own = member.kind is MemberKind.USER and member.name == user
        if (member.kind, member.name) not in wanted.members and not is_own:
            detail, kind = role_text(member.role), ActionKind.REMOVE_MEMBER
            identifier = member.identifier
            yield Action(kind, found.name, member.name, detail, identifier, member.kind)
    own = own_robot(found.robots) if wanted.credentials is not None else None
    for robot in found.robots:
        if robot is not own:
            identifier = robot.identifier
            yield Action(ActionKind.REMOVE_ROBOT, found.name, robot.name, identifier=identifier)


def own_robot(robots: Iterable[FoundRobot]) -> FoundRobot | None:
    """Return the robot account of the publisher: Harbor puts "robot$PROJECT+" before its name."""
    return next((each for each in robots if each.name.rpartition("+")[2] == ROBOT), None)


def role_text(role: int) -> str:
    """Return a role of Harbor as a word; others as numbers."""
    known = tuple(HarborRole)
    return HarborRole(role).name.lower().replace("_", " ") if role in known else f"role {role}"
