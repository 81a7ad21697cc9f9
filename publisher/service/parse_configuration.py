"""Read the configuration of the service, and report every mistake with its place."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from publisher.durations import duration_text, parse_duration
from publisher.errors import PublisherError, presentable, printable, shorten
from publisher.lazy import pattern
from publisher.repository.disk import open_file
from publisher.service.access import Access
from publisher.service.configuration import (
    SCHEDULED,
    History,
    InvalidServiceConfiguration,
    Limits,
    ListConfiguration,
    Listen,
    RepositoryConfiguration,
    ServiceConfiguration,
)
from publisher.service.harbor.parse import read_harbor
from publisher.service.hooks.parse import read_hooks
from publisher.service.kinds import JobKind
from publisher.service.names import (
    names_in,
    read_directory,
    read_keys,
    read_known_name,
    read_known_names,
    read_named,
)
from publisher.service.parse_access import parse_anonymous, parse_tokens
from publisher.service.parse_login import LoginReader
from publisher.service.parse_projects import parse_members, parse_projects
from publisher.service.secret_files import is_exposed
from publisher.tree.layout import RepositoryURL
from publisher.yaml_nodes import (
    ExposedFile,
    Problems,
    describe,
    load_mapping,
    read_mapping,
    read_named_file,
    read_text,
    read_texts,
)

MAX_BYTES = 4 * 1024 * 1024
"""The largest configuration, and the largest file with a database URL, that is read."""

_KEYS = (
    "version", "listen", "database", "database-file", "state", "environment", "limits", "history",
    "repositories", "access", "tokens", "projects", "administrators", "hooks",
    "harbor", "url", "login", "proxy", "job-tokens",
)  # fmt: skip
_VARIABLE = pattern(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_LISTEN = pattern(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(?P<port>[0-9]{1,5})")
_CRON = pattern(r"@(?:hourly|daily|weekly|monthly)|\S+(?: +\S+){4}")
_SCHEMES = ("postgresql", "sqlite")
_EMBEDDED = "jobs.sqlite"
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}
_LEAP_YEAR = datetime(2024, 12, 31, tzinfo=UTC)


CheckArguments = Callable[[JobKind, Sequence[str]], str]
"""Returns what is wrong with the options for the command of a job, or ""."""


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
    configuration = _Reader(problems, read_file, check_arguments).configuration(root)
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


class _Reader:
    def __init__(
        self,
        problems: Problems,
        read_file: Callable[[str], bytes],
        check_arguments: CheckArguments,
    ) -> None:
        self._problems = problems
        self._read_file = read_file
        self._check_arguments = check_arguments
        self._projects: tuple[str, ...] = ()

    def configuration(self, root: yaml.MappingNode) -> ServiceConfiguration | None:
        found = read_mapping(root, self._problems, "in the configuration", _KEYS, {})
        version = found.get("version")
        if version is None:
            self._problems.error(root, "no version is given", "add the line 'version: 1'")
        elif not (isinstance(version, yaml.ScalarNode) and version.value == "1"):
            self._problems.error(version, "the configuration has version 1 only", "version: 1")
        state = self._state(root, found.get("state"))
        database = self._database(found, state)
        listen = self._listen(found.get("listen"))
        projects = parse_projects(found.get("projects"), self._problems)
        self._projects = names_in(found.get("projects"))
        repositories = self._repositories(root, found.get("repositories"))
        limits = self._limits(found.get("limits"))
        history = self._history(found.get("history"))
        environment = self._environment(found.get("environment"))
        reader = LoginReader(self._problems, self._read_file)
        url = reader.url(found.get("url"))
        access = Access(
            parse_anonymous(found.get("access"), self._problems),
            parse_tokens(found.get("tokens"), self._problems, self._projects),
            projects,
            parse_members(found.get("administrators"), self._problems),
            url,
            reader.login(found.get("login"), url),
            reader.job_tokens(found.get("job-tokens"), self._projects),
            reader.proxy(found.get("proxy"), url),
        )
        names = [each.name for each in repositories]
        hooks = read_hooks(found.get("hooks"), self._problems, self._read_file, names)
        harbor = read_harbor(found.get("harbor"), self._problems, self._read_file, self._projects)
        if state is None or database is None:
            return None
        return ServiceConfiguration(
            self._problems.name,
            state,
            database,
            repositories,
            listen,
            limits,
            history,
            environment,
            access,
            hooks,
            harbor,
        )

    def _state(self, root: yaml.Node, node: yaml.Node | None) -> Path | None:
        if node is None:
            message = "no directory for the state of this host is named"
            self._problems.error(root, message, "add state: /var/lib/publisher/service")
            return None
        return self._path(node, "state")

    def _path(self, node: yaml.Node, what: str) -> Path | None:
        return read_directory(node, self._problems, what)

    def _database(self, found: Mapping[str, yaml.Node], state: Path | None) -> str | None:
        node = found.get("database")
        in_file = found.get("database-file")
        if in_file is not None:
            if node is not None:
                message = "the database is given twice"
                self._problems.error(in_file, message, "keep one of database, database-file")
                return None
            text = self._content(in_file)
            return None if text is None else self._database_url(in_file, text)
        if node is None:
            return None if state is None else f"sqlite:///{state / _EMBEDDED}"
        text = read_text(node, self._problems, "database")
        if text is not None and re.match(r"[^/]*//[^/]*:[^/]*@|.*[?&]password=", text):
            message = "the database URL has a password"
            self._problems.error(node, message, "write the URL to a file; name it: database-file")
            return None
        return None if text is None else self._database_url(node, text)

    def _content(self, node: yaml.Node) -> str | None:
        path = read_text(node, self._problems, "database-file")
        if path is None:
            return None
        return read_named_file(node, path, self._problems, self._read_file, MAX_BYTES)

    def _database_url(self, node: yaml.Node, text: str) -> str | None:
        """Return a URL of SQLAlchemy; messages do not quote `text`, which may have a password."""
        if text.isprintable() and text.startswith("/"):
            return f"sqlite:///{os.path.normpath(text)}"
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        scheme, separator, rest = text.partition("://")
        if not (separator and rest and text.isprintable() and scheme in _SCHEMES):
            message = "the database is neither a path nor a URL of PostgreSQL"
            write = "write /PATH/jobs.sqlite, or postgresql://USER@HOST/NAME"
            self._problems.error(node, message, write)
            return None
        try:
            make_url(text)
        except (ValueError, ArgumentError):
            message = "the URL of the database is malformed"
            write = "correct the port; write special characters of a password as %XX"
            self._problems.error(node, message, write)
            return None
        if scheme == "sqlite" and not rest.startswith("//"):
            message = "the path of the SQLite database is not absolute"
            self._problems.error(node, message, "write only the path, such as /PATH/jobs.sqlite")
            return None
        return text

    def _listen(self, node: yaml.Node | None) -> Listen:
        if node is None:
            return Listen()
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        match = _LISTEN.fullmatch(text)
        if match is None or int(match["port"]) > 65535:
            message = "listen must be an address and a port"
            self._problems.error(node, message, "such as listen: '127.0.0.1:8080'")
            return Listen()
        return Listen(match["host"].strip("[]"), int(match["port"]))

    def _limits(self, node: yaml.Node | None) -> Limits:
        keys = ("jobs", "queued", "events", "job-time", "host-timeout", "writes", "requests")
        found = read_keys(node, self._problems, "limits", keys)
        default = Limits()
        return Limits(
            self._number(found.get("jobs"), "jobs", 1, 64, default.jobs),
            self._number(found.get("queued"), "queued", 1, 1_000_000, default.queued),
            self._number(found.get("events"), "events", 100, 1_000_000, default.events),
            self._duration(found.get("job-time"), "job-time", default.job_time),
            self._duration(
                found.get("host-timeout"),
                "host-timeout",
                default.host_timeout,
                least=timedelta(seconds=3),
            ),
            self._number(found.get("writes"), "writes", 1, 1_000_000, default.writes),
            self._number(found.get("requests"), "requests", 60, 10_000_000, default.requests),
        )

    def _history(self, node: yaml.Node | None) -> History:
        found = read_keys(node, self._problems, "history", ("jobs", "age"))
        default = History()
        return History(
            self._number(found.get("jobs"), "jobs", 1, 10_000_000, default.jobs),
            self._duration(found.get("age"), "age", default.age),
        )

    def _environment(self, node: yaml.Node | None) -> tuple[str, ...]:
        if node is None:
            return ()
        names = read_texts(node, self._problems, "environment")
        for name, item in names:
            if not _VARIABLE.fullmatch(name):
                message = f"{presentable(name)!r} is not the name of a variable"
                self._problems.error(item, message, "write the name only, such as HTTPS_PROXY")
        return tuple(name for name, _ in names)

    def _repositories(
        self, root: yaml.Node, node: yaml.Node | None
    ) -> tuple[RepositoryConfiguration, ...]:
        write = "write repositories: {NAME: {url: 'dir:/srv/images'}}"
        if node is None:
            self._problems.error(root, "no repositories are named", write)
            return ()
        found = read_named(node, self._problems, "repositories", write, self._repository)
        seen: dict[str, str] = {}
        for each in found:
            if seen.setdefault(each.url, each.name) != each.name:
                message = f"{each.name} and {seen[each.url]} are the same repository"
                self._problems.error(node, message, "keep one, with the lists of both")
        return found

    def _repository(self, name: str, node: yaml.Node) -> RepositoryConfiguration | None:
        known = ("url", "lists", "schedules", "arguments", "site", "projects", "jobs")
        if not isinstance(node, yaml.MappingNode):
            message = f"a repository must be a mapping, but this is {describe(node)}"
            self._problems.error(node, message, "write url: 'dir:/srv/images'")
            return None
        found = read_mapping(node, self._problems, f"in the repository {name}", known, {})
        url = self._repository_url(node, found.get("url"))
        lists: tuple[ListConfiguration, ...] = ()
        if "lists" in found:
            write = "write lists: {NAME: {source: /srv/wishes/NAME.yaml}}"
            lists = read_named(found["lists"], self._problems, "lists", write, self._list)
            self._check_sources(found["lists"], lists)
        schedules = {}
        for kind, value in self._by_kind(found.get("schedules"), "schedules", SCHEDULED).items():
            expression = self._schedule(value, f"the schedule of {kind}")
            if expression:
                schedules[kind] = expression
        arguments = {
            kind: self._arguments(kind, value)
            for kind, value in self._by_kind(found.get("arguments"), "arguments", JobKind).items()
        }
        site = self._path(found["site"], "site") if "site" in found else None
        if JobKind.SITE in schedules and "site" not in found:
            message = "a site has a schedule, but no directory"
            self._problems.error(found["schedules"], message, "add site: /srv/www/images")
        projects: tuple[str, ...] = ()
        if "projects" in found:
            projects = read_known_names(
                found["projects"], self._problems, "projects", "project", self._projects
            )
        jobs = self._parallel(found.get("jobs"), url)
        if url is None:
            return None
        return RepositoryConfiguration(name, url, lists, schedules, arguments, site, projects, jobs)

    def _parallel(self, node: yaml.Node | None, url: str | None) -> int | None:
        """Return how many ingests of a repository run at the same time; None if not stated."""
        if node is None:
            return None
        jobs = self._number(node, "jobs", 1, 16, 1)
        if jobs > 1 and url is not None and RepositoryURL.parse(url).kind != "cvmfs":
            message = "a directory has one writer at a time"
            self._problems.error(node, message, "remove jobs: it is for CVMFS with a gateway")
        return jobs

    def _repository_url(self, repository: yaml.Node, node: yaml.Node | None) -> str | None:
        if node is None:
            self._problems.error(repository, "it has no url", "add url: 'dir:/srv/images'")
            return None
        text = read_text(node, self._problems, "url")
        if text is None:
            return None
        try:
            url = RepositoryURL.parse(text)
        except PublisherError as error:
            self._problems.error(node, f"{error.what}: {error.why}", error.hint)
            return None
        if url.kind == "dir" and not os.path.isabs(url.location):
            message = "the path of the repository is not absolute"
            self._problems.error(node, message, "begin it with '/', such as dir:/srv/images")
            return None
        return str(url)

    def _list(self, name: str, node: yaml.Node) -> ListConfiguration | None:
        write = "write source: /srv/wishes/NAME.yaml"
        if not isinstance(node, yaml.MappingNode):
            message = f"a list must be a mapping, but this is {describe(node)}"
            self._problems.error(node, message, write)
            return None
        known = ("source", "schedule", "project")
        found = read_mapping(node, self._problems, f"in the list {name}", known, {})
        schedule = ""
        if "schedule" in found:
            schedule = self._schedule(found["schedule"], "the schedule")
        project: str | None = ""
        if "project" in found:
            project = read_known_name(found["project"], self._problems, "project", self._projects)
        if "source" not in found:
            self._problems.error(node, "the list has no source", write)
            return None
        source = read_text(found["source"], self._problems, "source")
        if source is None:
            return None
        if not (os.path.isabs(source) or source.startswith(("https://", "http://", "git+"))):
            message = "the source is neither an absolute path nor an address"
            self._problems.error(
                found["source"], message, f"{write}, or https://…, or git+https://…"
            )
            return None
        return ListConfiguration(name, source, schedule, project or "")

    def _check_sources(self, node: yaml.Node, lists: Sequence[ListConfiguration]) -> None:
        """Report a source in two projects: its wishes would have the credentials of either."""
        projects: dict[str, ListConfiguration] = {}
        for each in lists:
            other = projects.setdefault(each.source, each)
            if other.project != each.project:
                message = f"{other.name} and {each.name} are the same list in different projects"
                self._problems.error(node, message, "keep one of them")

    def _arguments(self, kind: JobKind, node: yaml.Node) -> tuple[str, ...]:
        texts = tuple(text for text, _ in read_texts(node, self._problems, str(kind)))
        mistake = self._check_arguments(kind, texts)
        if mistake:
            message = f"the arguments of {kind} are wrong: {shorten(printable(mistake))}"
            self._problems.error(node, message, f"see publisher {kind.command} --help")
        return texts

    def _by_kind(
        self, node: yaml.Node | None, what: str, kinds: Sequence[JobKind] | type[JobKind]
    ) -> dict[JobKind, yaml.Node]:
        found = read_keys(node, self._problems, what, [str(kind) for kind in kinds])
        return {JobKind(key): value for key, value in found.items()}

    def _schedule(self, node: yaml.Node, what: str) -> str:
        from croniter import CroniterBadDateError, croniter

        text = read_text(node, self._problems, what)
        if text is None:
            return ""
        expression = _ALIASES.get(text, text)
        if not (_CRON.fullmatch(text) and croniter.is_valid(expression)):
            # Not `presentable`, which hides what is before an '@'.
            message = f"{what} is not a cron expression: {shorten(printable(text))!r}"
            write = (
                "write minute, hour, day, month and weekday, such as '*/15 * * * *', "
                f"or one of {', '.join(_ALIASES)}"
            )
            self._problems.error(node, message, write)
            return ""
        try:
            croniter(expression, _LEAP_YEAR).get_prev()
        except CroniterBadDateError:
            message = f"{what} is at no time: {shorten(printable(text))!r}"
            self._problems.error(node, message, "correct the day or the month")
            return ""
        return expression

    def _number(
        self, node: yaml.Node | None, what: str, least: int, most: int, default: int
    ) -> int:
        if node is None:
            return default
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if re.fullmatch(r"[0-9]{1,8}", text) and least <= int(text) <= most:
            return int(text)
        message = f"{what} must be a number from {least} to {most}"
        self._problems.error(node, message, f"write {what}: {default}")
        return default

    def _duration(
        self,
        node: yaml.Node | None,
        what: str,
        default: timedelta,
        least: timedelta = timedelta(minutes=1),
    ) -> timedelta:
        if node is None:
            return default
        text = read_text(node, self._problems, what)
        if text is None:
            return default
        try:
            duration = parse_duration(text)
        except ValueError as error:
            self._problems.error(
                node, f"{what}: {error}", f"write {what}: {duration_text(default)}"
            )
            return default
        if duration < least:
            message = f"{what} is shorter than {duration_text(least)}"
            self._problems.error(node, message, f"write {what}: {duration_text(default)}")
        return duration
