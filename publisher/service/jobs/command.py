"""The command of a job, and its environment. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from publisher.errors import PublisherError, presentable
from publisher.oci.reference import parse_reference
from publisher.service.configuration import RepositoryConfiguration, ServiceConfiguration
from publisher.service.jobs.credentials import OF_THE_HOST
from publisher.service.jobs.model import JobKind, JobRequest
from publisher.service.projects import Project

_NEEDED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR")
RETRY_FAILED = "--retry-failed"
"""The option by which an ingest tries images that failed shortly before."""
ONLY = "--only="
"""The option, before a pattern, by which an ingest is one of the matching images of a list."""
ONLY_REGISTRIES = "PUBLISHER_REGISTRIES"
"""The variable with the hosts of the only registries to which a command sends requests."""


class CannotRun(PublisherError):
    """A job names what the configuration does not have."""


def job_arguments(
    repositories: Sequence[RepositoryConfiguration],
    request: JobRequest,
    options: Sequence[str] = (),
) -> list[str]:
    """Return the arguments of `publisher` for a job on one of `repositories`; raise CannotRun.

    `options` are those of the project of the job. They are the last ones: each replaces an option
    of the same name that the configuration of the repository or the request has.
    What a user has chosen, such as an image, follows "--": it is never taken for an option.
    """
    repository = next((each for each in repositories if each.name == request.repository), None)
    if repository is None:
        name = presentable(request.repository)
        raise _missing(request, f"the configuration has no repository {name}")
    _check_project(repository, request)
    # Layers that begin and end are events of the level debug.
    level = "debug" if request.kind.is_ingest else "info"
    return [
        request.kind.command,
        f"--repository={repository.url}",
        f"--log-level={level}",
        "--log-format=json",
        *repository.arguments.get(request.kind, ()),
        *request.arguments,
        *options,
        "--",
        *_subjects(repository, request),
    ]


def check_registry(projects: Sequence[Project], request: JobRequest) -> None:
    """Raise CannotRun for a single image of a registry that its project may not use."""
    known = next((each for each in projects if each.name == request.project), None)
    if request.kind is not JobKind.INGEST_IMAGE or known is None:
        return
    registry = parse_reference(request.subject).registry
    if not known.may_ask(registry):
        raise CannotRun(
            f"cannot run {request.kind}",
            why=f"the project {known.name} may not use the registry {presentable(registry)}",
            hint="ask an administrator of the service to add it to registries of the project",
        )


def _check_project(repository: RepositoryConfiguration, request: JobRequest) -> None:
    """Raise CannotRun if the job is not one of its project any more: it has its credentials."""
    project = presentable(request.project)
    if request.kind.has_list:
        wish_list = repository.list_named(request.subject)
        if wish_list is not None and wish_list.project != request.project:
            subject = presentable(request.subject)
            why = f"the list {subject} is not one of the project {project}"
            raise _missing(request, why if project else f"the list {subject} has a project")
    elif request.project and not repository.may_publish(request.project):
        why = f"the project {project} may not publish to the repository {repository.name}"
        raise _missing(request, why)


def _subjects(repository: RepositoryConfiguration, request: JobRequest) -> list[str]:
    kind = request.kind
    if kind.has_list:
        wish_list = repository.list_named(request.subject)
        if wish_list is None:
            name = presentable(request.subject)
            raise _missing(request, f"repository {repository.name} has no list {name}")
        return [wish_list.source]
    if kind is JobKind.INGEST_IMAGE:
        return [request.subject]
    if kind is JobKind.PRUNE:
        if not repository.lists:
            raise _missing(request, f"repository {repository.name} has no lists")
        return [each.source for each in repository.lists]
    if kind is JobKind.SITE:
        if repository.site is None:
            raise _missing(request, f"repository {repository.name} has no directory for a site")
        return [str(repository.site)]
    return []


def _missing(request: JobRequest, why: str) -> CannotRun:
    return CannotRun(
        f"cannot run {request.kind}",
        why=why,
        hint="correct the name, or the configuration of the service",
    )


def job_environment(
    configuration: ServiceConfiguration, environment: Mapping[str, str], project: str = ""
) -> dict[str, str]:
    """Return the environment of a job: what every command needs, and what the configuration names.

    A job of a project does not have the variables that name credentials of the host, and sends
    requests to the registries of the project only. The state of wishes and runs is in the directory
    of this host, unless PUBLISHER_STATE is named.
    """
    withheld = OF_THE_HOST if project else ()
    names = (each for each in (*_NEEDED, *configuration.environment) if each not in withheld)
    found = {name: environment[name] for name in names if name in environment}
    known = configuration.project(project)
    if known is not None and known.registries:
        found[ONLY_REGISTRIES] = " ".join(known.registries)
    return {"PUBLISHER_STATE": str(configuration.state / "wishes"), **found}
