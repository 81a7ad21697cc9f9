"""Requests to Harbor's API, version 2.0.

Source: the description of the API, api/v2.0/swagger.yaml of https://github.com/goharbor/harbor,
which each Harbor serves at /devcenter-api-2.0. Paths, queries and bodies are those of the
operations that the methods name; errors are its `Errors`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from publisher.codec import Codec, Malformed
from publisher.errors import PublisherError, printable, shorten
from publisher.lazy import dataclass
from publisher.service.harbor.model import (
    ROBOT,
    FoundMember,
    FoundProject,
    FoundQuota,
    FoundRobot,
    HarborConfiguration,
    HarborRole,
    MemberKind,
)
from publisher.sources.http.answer import Answer, BrokenBody
from publisher.sources.http.exchange import Exchange

_PAGE = 100
"""How many items a page has; Harbor allows no more."""
_MOST_PAGES = 1000
_MOST_BYTES = 4 * 1024 * 1024
_SECONDS = 120.0
"""The time-out of one request in seconds, over all tries."""
_PULL = ({"resource": "repository", "action": "pull"},)
_T = TypeVar("_T")


class HarborError(PublisherError):
    """Harbor refuses a request, or its answer is not what its API describes.

    `status` is the HTTP status of the answer.
    """

    def __init__(self, what: str, *, why: str, hint: str, status: int) -> None:
        super().__init__(what, why=why, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Secret:
    """The name and the secret of a robot account."""

    name: str
    secret: str


@dataclass(frozen=True, slots=True)
class _Project:
    project_id: int
    name: str


@dataclass(frozen=True, slots=True)
class _Member:
    id: int
    entity_name: str
    role_id: int
    entity_type: str


@dataclass(frozen=True, slots=True)
class _Quota:
    id: int
    hard: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Access:
    resource: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class _Permission:
    kind: str = ""
    namespace: str = ""
    access: tuple[_Access, ...] = ()


@dataclass(frozen=True, slots=True)
class _Robot:
    id: int
    name: str
    disable: bool = False
    permissions: tuple[_Permission, ...] = ()


@dataclass(frozen=True, slots=True)
class _Created:
    name: str
    secret: str


@dataclass(frozen=True, slots=True)
class _Secret:
    secret: str


class HarborClient:
    """The requests, as an administrator. Methods raise HarborError, or SourceError without an
    answer."""

    def __init__(self, exchange: Exchange, configuration: HarborConfiguration) -> None:
        self._exchange = exchange
        self._base = f"{configuration.url}/api/v2.0"
        self._groups = configuration.groups
        login = f"{configuration.user}:{configuration.password}".encode()
        self._headers = {
            "Authorization": f"Basic {base64.b64encode(login).decode()}",
            "Accept": "application/json",
        }

    # --- reading ---------------------------------------------------------------------------

    def projects(self) -> tuple[FoundProject, ...]:
        """Return all projects, without their parts (listProjects)."""
        found = self._pages(_Project, "/projects", {"with_detail": "false"})
        return tuple(FoundProject(each.project_id, each.name) for each in found)

    def members(self, project: str) -> tuple[FoundMember, ...]:
        """Return the members of a project (listProjectMembers)."""
        found = self._pages(_Member, f"/projects/{_part(project)}/members")
        return tuple(
            FoundMember(
                each.id,
                MemberKind.GROUP if each.entity_type == "g" else MemberKind.USER,
                each.entity_name,
                each.role_id,
            )
            for each in found
        )

    def quota(self, project: int) -> FoundQuota | None:
        """Return the quota of a project (listQuotas), or None if it has none."""
        query = {"reference": "project", "reference_id": str(project)}
        found = next(iter(self._pages(_Quota, "/quotas", query)), None)
        return None if found is None else FoundQuota(found.id, found.hard.get("storage", -1))

    def robots(self, project: int) -> tuple[FoundRobot, ...]:
        """Return the robot accounts of a project (ListRobot)."""
        found = self._pages(_Robot, "/robots", {"q": f"Level=project,ProjectID={project}"})
        return tuple(
            FoundRobot(each.id, each.name, each.disable, _can_pull(each.permissions))
            for each in found
        )

    # --- changing --------------------------------------------------------------------------

    def create_project(self, name: str, storage: int | None) -> None:
        """Create a private project (createProject)."""
        body: dict[str, object] = {"project_name": name, "metadata": {"public": "false"}}
        if storage is not None:
            body["storage_limit"] = storage
        self._change("POST", "/projects", body)

    def delete_project(self, name: str) -> None:
        """Delete a project without images (deleteProject)."""
        self._change("DELETE", f"/projects/{_part(name)}")

    def add_member(self, project: str, kind: MemberKind, name: str, role: HarborRole) -> None:
        """Add a member to a project (createProjectMember)."""
        member: dict[str, object] = (
            {"member_user": {"username": name}}
            if kind is MemberKind.USER
            else {"member_group": {"group_name": name, "group_type": int(self._groups)}}
        )
        path = f"/projects/{_part(project)}/members"
        self._change("POST", path, {"role_id": int(role), **member})

    def change_role(self, project: str, member: int, role: HarborRole) -> None:
        """Change the role of a member (updateProjectMember)."""
        path = f"/projects/{_part(project)}/members/{member}"
        self._change("PUT", path, {"role_id": int(role)})

    def remove_member(self, project: str, member: int) -> None:
        """Remove a member from a project (deleteProjectMember)."""
        self._change("DELETE", f"/projects/{_part(project)}/members/{member}")

    def set_quota(self, quota: int, storage: int) -> None:
        """Change a quota (updateQuota)."""
        self._change("PUT", f"/quotas/{quota}", {"hard": {"storage": storage}})

    def create_robot(self, project: str) -> Secret:
        """Create the robot account of a project (CreateRobot); return its full name and secret."""
        created = self._change("POST", "/robots", _robot(project, ROBOT))
        found = self._read(_Created, created, "the new robot account")
        return Secret(found.name, found.secret)

    def update_robot(self, project: str, robot: int, name: str) -> None:
        """Make a robot account enabled, with the permission to pull (UpdateRobot)."""
        self._change("PUT", f"/robots/{robot}", {"id": robot, **_robot(project, name)})

    def renew_robot(self, robot: int) -> str:
        """Give a robot account a new secret, and return it (RefreshSec)."""
        changed = self._change("PATCH", f"/robots/{robot}", {"secret": ""})
        return self._read(_Secret, changed, "the new secret").secret

    def delete_robot(self, robot: int) -> None:
        """Delete a robot account (DeleteRobot)."""
        self._change("DELETE", f"/robots/{robot}")

    # --- requests --------------------------------------------------------------------------

    def _pages(
        self, kind: type[_T], path: str, query: Mapping[str, str] | None = None
    ) -> Iterator[_T]:
        for page in range(1, _MOST_PAGES + 1):
            paged = {**(query or {}), "page": str(page), "page_size": str(_PAGE)}
            value = self._request("GET", f"{path}?{urlencode(paged)}", None)
            if value is None:
                return  # Harbor writes an empty list as null in some releases
            if not isinstance(value, list):
                raise self._malformed(path, "the answer is not a list")
            if len(value) > _PAGE:
                raise self._malformed(path, f"a page has more than {_PAGE} items")
            for item in value:
                yield self._read(kind, item, path)
            if len(value) < _PAGE:
                return
        raise self._malformed(path, f"the list has more than {_MOST_PAGES} pages")

    def _change(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        return self._request(method, path, data)

    def _request(self, method: str, path: str, data: bytes | None) -> Any:
        headers = dict(self._headers)
        if path.startswith("/projects/"):
            headers["X-Is-Resource-Name"] = "true"  # a name may have digits only
        if data is not None:
            headers["Content-Type"] = "application/json"
        deadline = self._exchange.deadline_after(_SECONDS)
        what = f"cannot {method} {path.partition('?')[0]} of Harbor"
        url = self._base + path
        with self._exchange.request(
            method, url, deadline=deadline, headers=headers, data=data
        ) as answer:
            try:
                content = answer.document(what, _MOST_BYTES)
            except BrokenBody as error:
                raise self._error(what, str(error), answer) from error
        value = _json(content)
        if answer.status not in (200, 201):
            raise self._error(what, _reason(answer, value), answer)
        if content.strip() and value is _NOT_JSON:
            raise self._error(what, "the answer is not JSON", answer)
        return None if value is _NOT_JSON else value

    def _error(self, what: str, why: str, answer: Answer) -> HarborError:
        hint = _HINTS.get(answer.status, "run the command again, and look at the log of Harbor")
        return HarborError(what, why=why, hint=hint, status=answer.status)

    def _malformed(self, path: str, why: str) -> HarborError:
        what = f"cannot read {path} of Harbor"
        return HarborError(what, why=why, hint=_HINTS[404], status=200)

    def _read(self, kind: type[_T], value: object, path: str) -> _T:
        if not isinstance(value, dict):
            raise self._malformed(path, "an item is not an object")
        try:
            return Codec(kind, naming=str).from_value(value)
        except Malformed as error:
            raise self._malformed(path, str(error)) from error


_HINTS = {
    401: "correct user and password-file of harbor in the configuration",
    403: "give the user the permissions of an administrator in Harbor",
    404: "make sure that url names a Harbor with the API 2.0, and run the command again",
    409: "Harbor was changed meanwhile: run the command again",
    412: "delete its images in Harbor first",
}
_NOT_JSON = object()


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _reason(answer: Answer, value: Any) -> str:
    """Return the message of an error of Harbor, and its status."""
    errors = value.get("errors") if isinstance(value, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    message = first.get("message") if isinstance(first, dict) else None
    text = f": {shorten(printable(message))}" if isinstance(message, str) and message else ""
    return f"it answers with status {answer.status}{text}"


def _part(name: str) -> str:
    return quote(name, safe="")


def _robot(project: str, name: str) -> dict[str, object]:
    permission = {"kind": "project", "namespace": project, "access": list(_PULL)}
    return {
        "name": name,
        "description": "pulls the images that wish lists request",
        "level": "project",
        "disable": False,
        "duration": -1,
        "permissions": [permission],
    }


def _can_pull(permissions: Sequence[_Permission]) -> bool:
    return any(
        access.resource == "repository" and access.action == "pull"
        for permission in permissions
        for access in permission.access
    )
