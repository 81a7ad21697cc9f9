"""The repositories in the configuration of the service, with their mistakes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import yaml

from publisher.errors import PublisherError, printable, shorten
from publisher.lazy import pattern
from publisher.service.configuration import (
    SCHEDULED,
    ListConfiguration,
    RepositoryConfiguration,
)
from publisher.service.fields import (
    read_directory,
    read_keys,
    read_known_name,
    read_known_names,
    read_named,
    read_number,
)
from publisher.service.kinds import JobKind
from publisher.tree.layout import RepositoryURL
from publisher.yaml_nodes import Problems, describe, read_mapping, read_text, read_texts

_CRON = pattern(r"@(?:hourly|daily|weekly|monthly)|\S+(?: +\S+){4}")
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}
_LEAP_YEAR = datetime(2024, 12, 31, tzinfo=UTC)

CheckArguments = Callable[[JobKind, Sequence[str]], str]
"""Returns what is wrong with the options for the command of a job, or ""."""


class RepositoryReader:
    """Reads the repositories, their lists, schedules and arguments.

    Args:
        problems: Collects the mistakes.
        check_arguments: Checks the options that `arguments` of a repository has.
        projects: The names of the projects that repositories and lists may be for.
    """

    def __init__(
        self, problems: Problems, check_arguments: CheckArguments, projects: Sequence[str]
    ) -> None:
        self._problems = problems
        self._check_arguments = check_arguments
        self._projects = projects

    def repositories(
        self, root: yaml.Node, node: yaml.Node | None
    ) -> tuple[RepositoryConfiguration, ...]:
        """Return the repositories; `root` is the whole configuration, for its place."""
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
            expression = _parse_schedule(value, f"the schedule of {kind}", self._problems)
            if expression:
                schedules[kind] = expression
        arguments = {
            kind: self._arguments(kind, value)
            for kind, value in self._by_kind(found.get("arguments"), "arguments", JobKind).items()
        }
        site = read_directory(found["site"], self._problems, "site") if "site" in found else None
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
        return RepositoryConfiguration(
            name=name,
            url=url,
            lists=lists,
            schedules=schedules,
            arguments=arguments,
            site=site,
            projects=projects,
            jobs=jobs,
        )

    def _parallel(self, node: yaml.Node | None, url: str | None) -> int | None:
        """Return how many ingests of a repository run at the same time; None if not stated."""
        if node is None:
            return None
        jobs = read_number(node, self._problems, "jobs", 1, 16, 1)
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
            schedule = _parse_schedule(found["schedule"], "the schedule", self._problems)
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


def _parse_schedule(node: yaml.Node, what: str, problems: Problems) -> str:
    """Return a cron expression, or "" after reporting a mistake."""
    from croniter import CroniterBadDateError, croniter

    text = read_text(node, problems, what)
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
        problems.error(node, message, write)
        return ""
    try:
        croniter(expression, _LEAP_YEAR).get_prev()
    except CroniterBadDateError:
        message = f"{what} is at no time: {shorten(printable(text))!r}"
        problems.error(node, message, "correct the day or the month")
        return ""
    return expression
