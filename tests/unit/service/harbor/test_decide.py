"""The actions that make Harbor match the configuration."""

from __future__ import annotations

from pathlib import Path

from publisher.service.harbor.decide import decide, wanted_projects
from publisher.service.harbor.model import (
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
from publisher.service.verbs import Role

USER, GROUP = MemberKind.USER, MemberKind.GROUP
FILE = Path("/c/astro.json")


def kinds(wanted: WantedProject, *found: FoundProject) -> list[tuple[str, str, str]]:
    actions = decide([wanted], found, "admin")
    return [(str(each.kind), each.project, each.subject) for each in actions]


def test_members_have_the_strongest_of_their_roles_and_claims_are_not_mapped() -> None:
    members = (
        Member(Role.VIEWER, user="alice"),
        Member(Role.MAINTAINER, user="alice"),
        Member(Role.EDITOR, group="staff"),
        Member(Role.EDITOR, claims={"department": "astronomy"}),
    )
    administrators = (Member(Role.ADMIN, group="operators"), Member(Role.VIEWER, group="staff"))
    configuration = HarborConfiguration("https://h", "admin", "p", storage={"astro": 5})
    projects = (Project("astro", members, FILE), Project("bio"))
    astro, bio = wanted_projects(configuration, projects, administrators, {"astro"})
    assert dict(astro.members) == {
        (USER, "alice"): HarborRole.MAINTAINER,
        (GROUP, "staff"): HarborRole.DEVELOPER,
        (GROUP, "operators"): HarborRole.PROJECT_ADMIN,
    }
    assert astro.unmapped == ("claims department=astronomy",)
    assert (astro.storage, astro.credentials, astro.has_login) == (5, FILE, True)
    assert (bio.storage, bio.credentials, bio.has_login) == (None, None, False)


def test_a_missing_project_is_created_with_all_of_its_parts() -> None:
    members = {(USER, "alice"): HarborRole.GUEST}
    wanted = WantedProject("astro", members, ("claims a=b",), 10**9, FILE)
    create, add, skip, robot = decide([wanted], [], "admin")
    assert (create.kind, create.storage) == (ActionKind.CREATE_PROJECT, 10**9)
    assert (add.kind, add.subject, add.role) == (ActionKind.ADD_MEMBER, "alice", HarborRole.GUEST)
    assert skip.kind is ActionKind.SKIP_MEMBER
    assert (robot.kind, robot.credentials) == (ActionKind.CREATE_ROBOT, FILE)


def test_a_project_that_matches_needs_no_action() -> None:
    members = {(USER, "alice"): HarborRole.GUEST, (GROUP, "staff"): HarborRole.DEVELOPER}
    wanted = WantedProject("astro", members, (), 5, FILE, has_login=True)
    found = FoundProject(
        1,
        "astro",
        (
            FoundMember(1, USER, "admin", 1),
            FoundMember(2, USER, "alice", 3),
            FoundMember(3, GROUP, "staff", 2),
        ),
        FoundQuota(1, 5),
        (FoundRobot(1, "robot$astro+publisher"),),
    )
    assert kinds(wanted, found) == []
    assert kinds(WantedProject("astro", members), FoundProject(1, "astro", found.members)) == []


def test_differences_are_changed_and_what_is_unknown_comes_last() -> None:
    members = {(USER, "alice"): HarborRole.MAINTAINER, (GROUP, "alice"): HarborRole.GUEST}
    wanted = WantedProject("astro", members, (), 5, FILE)
    found = FoundProject(
        1,
        "astro",
        (
            FoundMember(2, USER, "alice", 5),
            FoundMember(3, USER, "bob", 9),
            FoundMember(4, GROUP, "admin", 1),
        ),
        FoundQuota(1, -1),
        (
            FoundRobot(7, "robot$astro+ci"),
            FoundRobot(8, "robot$astro+publisher", is_disabled=True),
        ),
    )
    assert kinds(wanted, FoundProject(2, "library"), found) == [
        ("change-role", "astro", "alice"),
        ("add-member", "astro", "alice"),
        ("set-quota", "astro", ""),
        ("update-robot", "astro", "robot$astro+publisher"),
        ("renew-robot", "astro", "robot$astro+publisher"),
        ("remove-member", "astro", "bob"),
        ("remove-member", "astro", "admin"),
        ("remove-robot", "astro", "robot$astro+ci"),
        ("remove-project", "library", ""),
    ]
    [detail] = {a.detail for a in decide([wanted], [found], "admin") if a.subject == "bob"}
    assert detail == "role 9"
