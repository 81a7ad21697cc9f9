"""Read the configuration of the service, and report every mistake with its place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import yaml

from publisher.errors import presentable
from publisher.lazy import pattern
from publisher.repository.disk import open_file
from publisher.service.access import Access
from publisher.service.configuration import (
    History,
    InvalidServiceConfiguration,
    Limits,
    Listen,
    ServiceConfiguration,
)
from publisher.service.fields import (
    names_in,
    read_directory,
    read_duration,
    read_keys,
    read_number,
)
from publisher.service.harbor.parse import parse_harbor
from publisher.service.hooks.parse import parse_hooks
from publisher.service.kinds import JobKind
from publisher.service.parse_access import parse_anonymous, parse_tokens
from publisher.service.parse_database import parse_database
from publisher.service.parse_login import LoginReader
from publisher.service.parse_projects import parse_members, parse_projects
from publisher.service.parse_repositories import CheckArguments, RepositoryReader
from publisher.service.projects import Project
from publisher.service.secret_files import is_exposed
from publisher.yaml_nodes import (
    ExposedFile,
    Problems,
    load_mapping,
    read_mapping,
    read_texts,
)

MAX_BYTES = 4 * 1024 * 1024
"""The largest configuration, and the largest file with a secret, that is read."""

_KEYS = (
    "version", "listen", "database", "database-file", "state", "environment", "limits", "history",
    "repositories", "access", "tokens", "projects", "administrators", "hooks",
    "harbor", "url", "login", "proxy", "job-tokens",
)  # fmt: skip
_VARIABLE = pattern(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_LISTEN = pattern(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(?P<port>[0-9]{1,5})")


def _unchecked(kind: JobKind, arguments: Sequence[str]) -> str:
    return ""


def parse_configuration(
    data: bytes | str,
    name: str,
    read_file: Callable[[str], bytes],
    check_arguments: CheckArguments = _unchecked,
) -> ServiceConfiguration:
    """Read a configuration.

    Args:
        data: Its content, in YAML.
        name: Its path, for messages.
        read_file: Returns the first bytes of a file with a secret, or raises OSError.
        check_arguments: Checks the options that `arguments` of a repository has.

    Raises:
        InvalidServiceConfiguration: With all mistakes. No message has a password.
    """
    problems = Problems(name, "service configuration", InvalidServiceConfiguration)
    root = load_mapping(data, problems, MAX_BYTES, "a service configuration")
    configuration = _configuration(root, problems, read_file, check_arguments)
    if configuration is None or problems.found:
        raise problems.failure()
    content = data.encode() if isinstance(data, str) else data
    return replace(configuration, digest=hashlib.sha256(content).hexdigest())


def read_configuration(
    path: str, check_arguments: CheckArguments = _unchecked
) -> ServiceConfiguration:
    """Return the configuration in a file; raise InvalidServiceConfiguration."""

    def read_secret(path: str) -> bytes:
        return _read(path, is_secret=True)

    try:
        data = _read(path)
    except OSError as error:
        raise InvalidServiceConfiguration(
            f"cannot read {path}",
            why=error.strerror or str(error),
            hint="correct --config, or make the file readable for this user",
        ) from error
    return parse_configuration(data, path, read_secret, check_arguments)


def _read(path: str, *, is_secret: bool = False) -> bytes:
    with open_file(Path(path)) as file:  # a reload does not wait for the writer of a FIFO
        if is_secret and is_exposed(os.fstat(file.fileno())):
            raise ExposedFile
        return file.read(MAX_BYTES + 1)


def _configuration(
    root: yaml.MappingNode,
    problems: Problems,
    read_file: Callable[[str], bytes],
    check_arguments: CheckArguments,
) -> ServiceConfiguration | None:
    """Return the configuration; None after a mistake without which there would be none."""
    found = read_mapping(root, problems, "in the configuration", _KEYS, {})
    version = found.get("version")
    if version is None:
        problems.error(root, "no version is given", "add the line 'version: 1'")
    elif not (isinstance(version, yaml.ScalarNode) and version.value == "1"):
        problems.error(version, "the configuration has version 1 only", "version: 1")
    state = _state(root, found.get("state"), problems)
    database = parse_database(found, state, problems, read_file)
    listen = _listen(found.get("listen"), problems)
    projects = parse_projects(found.get("projects"), problems)
    known_projects = names_in(found.get("projects"))
    reader = RepositoryReader(problems, check_arguments, known_projects)
    repositories = reader.repositories(root, found.get("repositories"))
    limits = _limits(found.get("limits"), problems)
    history = _history(found.get("history"), problems)
    environment = _environment(found.get("environment"), problems)
    access = _access(found, problems, read_file, projects, known_projects)
    names = [each.name for each in repositories]
    hooks = parse_hooks(found.get("hooks"), problems, read_file, names)
    harbor = parse_harbor(found.get("harbor"), problems, read_file, known_projects)
    if state is None or database is None:
        return None
    return ServiceConfiguration(
        name=problems.name,
        state=state,
        database=database,
        repositories=repositories,
        listen=listen,
        limits=limits,
        history=history,
        environment=environment,
        access=access,
        hooks=hooks,
        harbor=harbor,
    )


def _access(
    found: Mapping[str, yaml.Node],
    problems: Problems,
    read_file: Callable[[str], bytes],
    projects: tuple[Project, ...],
    known_projects: Sequence[str],
) -> Access:
    """Return the rules of access; `known_projects` also names projects with mistakes."""
    reader = LoginReader(problems, read_file)
    url = reader.url(found.get("url"))
    return Access(
        anonymous=parse_anonymous(found.get("access"), problems),
        tokens=parse_tokens(found.get("tokens"), problems, known_projects),
        projects=projects,
        administrators=parse_members(found.get("administrators"), problems),
        url=url,
        login=reader.login(found.get("login"), url),
        job_tokens=reader.job_tokens(found.get("job-tokens"), known_projects),
        proxy=reader.proxy(found.get("proxy"), url),
    )


def _state(root: yaml.Node, node: yaml.Node | None, problems: Problems) -> Path | None:
    if node is None:
        message = "no directory for the state of this host is named"
        problems.error(root, message, "add state: /var/lib/publisher/service")
        return None
    return read_directory(node, problems, "state")


def _listen(node: yaml.Node | None, problems: Problems) -> Listen:
    if node is None:
        return Listen()
    text = node.value if isinstance(node, yaml.ScalarNode) else ""
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        message = "listen must be an address and a port"
        problems.error(node, message, "such as listen: '127.0.0.1:8080'")
        return Listen()
    return Listen(match["host"].strip("[]"), int(match["port"]))


def _limits(node: yaml.Node | None, problems: Problems) -> Limits:
    keys = ("jobs", "queued", "events", "job-time", "host-timeout", "writes", "requests")
    found = read_keys(node, problems, "limits", keys)
    default = Limits()

    def number(key: str, least: int, most: int, default: int) -> int:
        return read_number(found.get(key), problems, key, least, most, default)

    def duration(
        key: str, default: timedelta, least: timedelta = timedelta(minutes=1)
    ) -> timedelta:
        return read_duration(found.get(key), problems, key, default, least)

    return Limits(
        number("jobs", 1, 64, default.jobs),
        number("queued", 1, 1_000_000, default.queued),
        number("events", 100, 1_000_000, default.events),
        duration("job-time", default.job_time),
        duration("host-timeout", default.host_timeout, timedelta(seconds=3)),
        number("writes", 1, 1_000_000, default.writes),
        number("requests", 60, 10_000_000, default.requests),
    )


def _history(node: yaml.Node | None, problems: Problems) -> History:
    found = read_keys(node, problems, "history", ("jobs", "age"))
    default = History()
    return History(
        read_number(found.get("jobs"), problems, "jobs", 1, 10_000_000, default.jobs),
        read_duration(found.get("age"), problems, "age", default.age),
    )


def _environment(node: yaml.Node | None, problems: Problems) -> tuple[str, ...]:
    if node is None:
        return ()
    names = read_texts(node, problems, "environment")
    for name, item in names:
        if not _VARIABLE.fullmatch(name):
            message = f"{presentable(name)!r} is not the name of a variable"
            problems.error(item, message, "write the name only, such as HTTPS_PROXY")
    return tuple(name for name, _ in names)
