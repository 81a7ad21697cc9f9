"""A stand-in for Harbor: it answers as the description of its API 2.0 states, and checks requests.

Source: api/v2.0/swagger.yaml of https://github.com/goharbor/harbor. A request whose method, path,
query, headers or body is not one of the description is a failure of the test.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

USER, PASSWORD = "admin", "topsecret-harbor"
_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_Answer = tuple[int, Any]


@dataclass(slots=True)
class Harbor:
    """Its content, and the requests that changed something. `url` is its address.

    `fail` maps "METHOD PATH" to a status with which such requests are answered.
    """

    projects: dict[str, dict[str, Any]] = field(default_factory=dict)
    members: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    quotas: dict[int, dict[str, Any]] = field(default_factory=dict)
    robots: dict[int, dict[str, Any]] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    """The projects that have images."""
    changes: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    fail: dict[str, int] = field(default_factory=dict)
    secrets: int = 0
    _number: int = 0
    _server: Any = None
    _thread: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if kind is None:
            assert self.mistakes == []

    def number(self) -> int:
        """A new identifier."""
        self._number += 1
        return self._number

    def add_project(self, name: str, storage: int = -1) -> int:
        """Add a project, of which the user is an administrator, as Harbor does."""
        identifier = self.number()
        self.projects[name] = {"project_id": identifier, "name": name, "owner_name": USER}
        self.members[name] = []
        self.add_member(name, USER, 1)
        quota = self.number()
        ref = {"id": identifier, "name": name, "owner_name": USER}
        self.quotas[quota] = {"id": quota, "ref": ref, "hard": {"storage": storage}, "used": {}}
        return identifier

    def add_member(self, project: str, name: str, role: int, kind: str = "u") -> int:
        """Add a member to a project."""
        identifier = self.number()
        member = {"id": identifier, "project_id": self.projects[project]["project_id"]}
        names = {"entity_name": name, "entity_id": 1, "entity_type": kind, "role_name": "x"}
        self.members[project].append({**member, **names, "role_id": role})
        return identifier

    def add_robot(self, project: str, name: str, **more: Any) -> int:
        """Add a robot account to a project."""
        identifier = self.number()
        access = [{"resource": "repository", "action": "pull"}]
        permission = {"kind": "project", "namespace": project, "access": access}
        robot = {"name": f"robot${project}+{name}", "level": "project", "disable": False}
        self.robots[identifier] = {
            "id": identifier, **robot, "permissions": [permission], **more
        }  # fmt: skip
        return identifier

    def secret(self) -> str:
        """A new secret of a robot account."""
        self.secrets += 1
        return f"topsecret-robot-{self.secrets}"

    # --- answers ---------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any) -> _Answer:
        """Answer a request of an administrator."""
        for pattern, methods in _ROUTES.items():
            found = re.fullmatch(pattern, path)
            if found is not None and method in methods:
                names = [unquote(part) for part in found.groups()]
                return methods[method](self, names, query, body)
        self.mistakes.append(f"{method} {path} is not in the description of the API")
        return _error(404, "NOT_FOUND", "unknown path")

    def page(self, items: list[Any], query: Mapping[str, str], *known: str) -> _Answer:
        """A page of a list."""
        for name in query:
            if name not in ("page", "page_size", *known):
                self.mistakes.append(f"the list has no parameter {name}")
        size, page = int(query.get("page_size", "10")), int(query.get("page", "1"))
        if not (1 <= size <= 100 and page >= 1):
            self.mistakes.append("page or page_size is out of range")
        return 200, items[(page - 1) * size : page * size]

    def check(self, body: Any, form: Mapping[str, Any]) -> None:
        """Record a mistake unless a body has the fields of `form`, with values of these types."""
        if not isinstance(body, dict):
            self.mistakes.append(f"the body {body!r} is not an object")
            return
        for key, value in body.items():
            kind = form.get(key)
            if isinstance(kind, dict):
                self.check(value, kind)
            elif isinstance(kind, list):
                for each in value:
                    self.check(each, kind[0])
            elif kind is None or not isinstance(value, kind) or (kind is int and value is True):
                self.mistakes.append(f"the body has {key}: {value!r}")


def _error(status: int, code: str, message: str) -> _Answer:
    return status, {"errors": [{"code": code, "message": message}]}


_Names = list[str]
_Query = Mapping[str, str]


def _list_projects(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    found = list(harbor.projects.values())
    return harbor.page(found, query, "with_detail", "name", "public", "owner", "q", "sort")


def _create_project(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    form = {"project_name": str, "metadata": {"public": str}, "storage_limit": int}
    harbor.check(body, form)
    name = body["project_name"]
    if not _NAME.fullmatch(name):
        return _error(400, "BAD_REQUEST", f"invalid project name {name}")
    if name in harbor.projects:
        return _error(409, "CONFLICT", f"The project named {name} already exists")
    harbor.add_project(name, body.get("storage_limit", -1))
    return 201, None


def _delete_project(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    [name] = names
    if name not in harbor.projects:
        return _error(404, "NOT_FOUND", f"project {name} not found")
    if name in harbor.images:
        return _error(412, "PRECONDITION", "the project contains repositories")
    del harbor.projects[name], harbor.members[name]
    return 200, None


def _list_members(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    [name] = names
    if name not in harbor.members:
        return _error(404, "NOT_FOUND", f"project {name} not found")
    return harbor.page(harbor.members[name], query, "entityname")


def _add_member(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    group = {"group_name": str, "group_type": int}
    form = {"role_id": int, "member_user": {"username": str}, "member_group": group}
    harbor.check(body, form)
    [project] = names
    kind, part = ("u", body.get("member_user")) if "member_user" in body else ("g", None)
    name = part["username"] if part else body["member_group"]["group_name"]
    if project not in harbor.projects:
        return _error(404, "NOT_FOUND", f"project {project} not found")
    if name.startswith("missing"):
        return _error(404, "NOT_FOUND", f"user {name} not found")
    if any(each["entity_name"] == name for each in harbor.members[project]):
        return _error(409, "CONFLICT", "the member exists already")
    harbor.add_member(project, name, body["role_id"], kind)
    return 201, None


def _member(harbor: Harbor, names: _Names) -> dict[str, Any] | None:
    project, identifier = names
    found = harbor.members.get(project, [])
    return next((each for each in found if each["id"] == int(identifier)), None)


def _change_role(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    harbor.check(body, {"role_id": int})
    found = _member(harbor, names)
    if found is None:
        return _error(404, "NOT_FOUND", "the member does not exist")
    found["role_id"] = body["role_id"]
    return 200, None


def _remove_member(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    found = _member(harbor, names)
    if found is None:
        return _error(404, "NOT_FOUND", "the member does not exist")
    harbor.members[names[0]].remove(found)
    return 200, None


def _list_quotas(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    wanted = query.get("reference_id")
    found = [q for q in harbor.quotas.values() if wanted in (None, str(q["ref"]["id"]))]
    return harbor.page(found, query, "reference", "reference_id", "sort")


def _set_quota(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    harbor.check(body, {"hard": {"storage": int}})
    harbor.quotas[int(names[0])]["hard"] = body["hard"]
    return 200, None


def _list_robots(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    chosen = re.fullmatch(r"Level=project,ProjectID=(\d+)", query.get("q", ""))
    if chosen is None:
        harbor.mistakes.append(f"q is {query.get('q')!r}")
        return _error(400, "BAD_REQUEST", "q")
    name = next(n for n, p in harbor.projects.items() if p["project_id"] == int(chosen[1]))
    found = [r for r in harbor.robots.values() if r["permissions"][0]["namespace"] == name]
    return harbor.page(found, query, "q", "sort") if found else (200, None)  # as Go writes it


_ROBOT: Mapping[str, Any] = {
    "id": int,
    "name": str,
    "description": str,
    "level": str,
    "disable": bool,
    "duration": int,
    "permissions": [
        {"kind": str, "namespace": str, "access": [{"resource": str, "action": str}]},
    ],
}


def _create_robot(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    harbor.check(body, {k: v for k, v in _ROBOT.items() if k != "id"})
    [permission] = body["permissions"]
    name = f"robot${permission['namespace']}+{body['name']}"
    if any(each["name"] == name for each in harbor.robots.values()):
        return _error(409, "CONFLICT", f"robot account {name} exists")
    identifier = harbor.add_robot(permission["namespace"], body["name"])
    created = {"id": identifier, "name": name, "secret": harbor.secret(), "expires_at": -1}
    return 201, created


def _update_robot(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    harbor.check(body, _ROBOT)
    robot = harbor.robots[int(names[0])]
    if body["name"] != robot["name"]:
        return _error(400, "BAD_REQUEST", "cannot update the name of robot")
    robot |= body
    return 200, None


def _renew_robot(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    harbor.check(body, {"secret": str})
    if int(names[0]) not in harbor.robots:
        return _error(404, "NOT_FOUND", "robot account not found")
    return 200, {"secret": harbor.secret()}


def _delete_robot(harbor: Harbor, names: _Names, query: _Query, body: Any) -> _Answer:
    if harbor.robots.pop(int(names[0]), None) is None:
        return _error(404, "NOT_FOUND", "robot account not found")
    return 200, None


_Method = Callable[[Harbor, _Names, _Query, Any], _Answer]
_ROUTES: Mapping[str, Mapping[str, _Method]] = {
    r"/projects": {"GET": _list_projects, "POST": _create_project},
    r"/projects/([^/]+)": {"DELETE": _delete_project},
    r"/projects/([^/]+)/members": {"GET": _list_members, "POST": _add_member},
    r"/projects/([^/]+)/members/(\d+)": {"PUT": _change_role, "DELETE": _remove_member},
    r"/quotas": {"GET": _list_quotas},
    r"/quotas/(\d+)": {"PUT": _set_quota},
    r"/robots": {"GET": _list_robots, "POST": _create_robot},
    r"/robots/(\d+)": {"PUT": _update_robot, "PATCH": _renew_robot, "DELETE": _delete_robot},
}


def _handler(harbor: Harbor) -> type[BaseHTTPRequestHandler]:
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            path = parts.path.removeprefix("/api/v2.0")
            status, value = self._status(path, parts.query, body)
            data = b"" if value is None and self.command != "GET" else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _status(self, path: str, query: str, body: Any) -> _Answer:
            if self.headers.get("Authorization") != f"Basic {login}":
                return _error(401, "UNAUTHORIZED", "unauthorized")
            is_named = path.startswith("/projects/")
            if is_named and self.headers.get("X-Is-Resource-Name") != "true":
                harbor.mistakes.append(f"{path} without X-Is-Resource-Name")
            if body is not None and self.headers.get("Content-Type") != "application/json":
                harbor.mistakes.append(f"{path} without Content-Type")
            if self.command != "GET":
                harbor.changes.append(f"{self.command} {path}")
            status = harbor.fail.get(f"{self.command} {path}")
            if status is not None:
                return _error(status, "INTERNAL", "out of order \x1b[31m")
            values = {name: texts[0] for name, texts in parse_qs(query).items()}
            return harbor.answer(self.command, path, values, body)

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler._serve)
    return Handler
