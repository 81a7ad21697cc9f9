"""The routes that queue and cancel jobs."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from publisher.browse.status import Condition, StatusLine
from publisher.errors import presentable, printable
from publisher.oci.reference import Transport, parse_reference
from publisher.service.access import Verb, may
from publisher.service.configuration import RepositoryConfiguration
from publisher.service.jobs.command import (
    ONLY,
    RETRY_FAILED,
    CannotRun,
    check_registry,
    job_arguments,
)
from publisher.service.jobs.model import (
    CannotRetry,
    Job,
    JobEnded,
    JobKind,
    JobRequest,
    Jobs,
    JobState,
    Submission,
)
from publisher.service.lists import identity_of as identity_of_list
from publisher.service.lists import projects_by_list
from publisher.service.projects import SERVICE
from publisher.service.verbs import Reach, verb_for
from publisher.service.web.answers import JSON, encode
from publisher.service.web.bodies import read_body
from publisher.service.web.clients import address_of
from publisher.service.web.context import Context
from publisher.service.web.guard import allow, identity_of
from publisher.service.web.identifiers import check_job
from publisher.service.web.jobs import BASE, job_value
from publisher.service.web.problems import BadRequest, NotFound
from publisher.service.web.routes import Parameter, Route
from publisher.service.web.threads import in_database
from publisher.service.web.trees import ONE, Trees
from publisher.sources.wish_lists import project_identity

_LONGEST_KEY = 255


class JobBody(msgspec.Struct, forbid_unknown_fields=True):
    """A requested job, as docs/schemas/job-request-1.schema.json describes it."""

    kind: JobKind
    repository: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    wish_list: Annotated[str, msgspec.Meta(max_length=64)] = msgspec.field(name="list", default="")
    image: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=200)] = ""
    project: Annotated[str, msgspec.Meta(max_length=64)] = ""


def registry_image(text: str) -> str:
    """Return the image reference `text`; raise InvalidReference or BadRequest.

    Images of registries only: other references name files and engines of the host of a job, to
    which the sender of a request need not have access.
    """
    reference = parse_reference(text)
    if reference.transport is not Transport.REGISTRY:
        raise BadRequest(
            f"cannot queue an ingest of {presentable(text)}",
            why=f"{reference.transport}: names something on the host of the service",
            hint="name an image in a registry",
            parameter="image",
        )
    return text


class Submissions:
    """Queues and cancels jobs on request."""

    def __init__(self, context: Context, jobs: Jobs, trees: Trees) -> None:
        self._context = context
        self._jobs = jobs
        self._trees = trees

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        retry_wish = ONE + "/wishes/{name:path}/retry"
        return (
            Route(
                BASE,
                "submitJob",
                "Queue a job. 202 if it is new; 200 with the queued job that does the same. "
                "The same Idempotency-Key again returns the job of the first request.",
                "job-1",
                Verb.SUBMIT,
                self.submit,
                method="POST",
                reach=Reach.OBJECT,
                body="job-request-1",
            ),
            Route(
                BASE + "/{job}/cancel",
                "cancelJob",
                "Remove a job from the queue, or end its command in order.",
                "job-1",
                Verb.CANCEL,
                self.cancel,
                method="POST",
                reach=Reach.OBJECT,
            ),
            Route(
                BASE + "/{job}/retry",
                "retryJob",
                "Queue the work of a job again that failed or was cancelled.",
                "job-1",
                Verb.SUBMIT,
                self.retry,
                method="POST",
                reach=Reach.OBJECT,
            ),
            Route(
                retry_wish,
                "retryWish",
                "Queue an ingest of one wish, also if it failed a short time ago.",
                "job-1",
                Verb.SUBMIT,
                self.retry_wish,
                (Parameter("wishList", "The `wishList` of the wish, if several have it."),),
                method="POST",
                reach=Reach.OBJECT,
            ),
        )

    async def submit(self, request: Request) -> Response:
        """Queue the job that the body describes."""
        body = await read_body(request, JobBody)
        kind, image = body.kind, ""
        _check_fields(body)
        if body.image:
            image = registry_image(body.image)
        subject = body.wish_list if kind.has_list else image
        arguments = _only(image) if kind.has_list and image else ()
        work = kind, body.repository, subject, arguments
        return _queued(await self._submit(request, *work, body.reason, body.project))

    async def retry(self, request: Request, job: str) -> Response:
        """Queue the work of a job again."""
        return _queued(await self.retry_job(request, job))

    async def retry_job(self, request: Request, job: str) -> Submission:
        """Queue the work of a job again, and return the new one; raise CannotRetry."""
        known = await self._job(job)
        allow(request, known.request.project)
        if known.state not in (JobState.FAILED, JobState.CANCELLED):
            raise CannotRetry(known)
        wanted = known.request
        arguments = wanted.arguments
        if wanted.kind is JobKind.INGEST_LIST and RETRY_FAILED not in arguments:
            arguments = (*arguments, RETRY_FAILED)  # else its failed images wait for their next try
        reason = f"retry of job {known.id}"
        subject, repository = wanted.subject, wanted.repository
        work = wanted.kind, repository, subject, arguments
        return await self._submit(request, *work, reason, wanted.project)

    async def retry_wish(
        self, request: Request, repository: str, name: str, **values: Any
    ) -> Response:
        """Queue an ingest of one wish."""
        wish = await self.wish(request, repository, name, values["wishList"])
        return _queued(await self.submit_wish(request, repository, wish))

    async def submit_wish(self, request: Request, repository: str, wish: StatusLine) -> Submission:
        """Queue an ingest of one wish, and return the job; raise CannotRun."""
        kind, subject, arguments = self.work_of(repository, wish)
        project = self._project_of(repository, wish) if kind is JobKind.INGEST_IMAGE else SERVICE
        work = kind, repository, subject, arguments
        return await self._submit(request, *work, "retry of a wish", project)

    async def wish(
        self, request: Request, repository: str, name: str, wish_list: str | None
    ) -> StatusLine:
        """Return the state of a wish; raise NotFound.

        If several lists have it, it is one that the sender may retry, and of these one that fails.
        One that the sender may neither read nor retry is answered like a missing one.
        """
        snapshot = await self._trees.snapshot(repository)
        identity = identity_of(request)

        def is_known(wish: StatusLine) -> bool:
            project = self._project_of(repository, wish)
            return any(may(identity, verb, project) for verb in (Verb.READ, Verb.SUBMIT))

        found = [
            each
            for each in snapshot.survey.wishes
            if each.name == name and wish_list in (None, each.wish_list) and is_known(each)
        ]
        found.sort(
            key=lambda each: (
                not may(identity, Verb.SUBMIT, self._project_of(repository, each)),
                each.condition is not Condition.FAILING,
            )
        )
        if not found:
            raise NotFound(
                f"cannot find the wish {presentable(name)}",
                why=f"no wish of {presentable(repository)} has this name",
                hint=f"list the wishes: /api/v1/repositories/{presentable(repository)}/wishes",
            )
        return found[0]

    def _project_of(self, repository: str, wish: StatusLine) -> str:
        configured = self._configured(repository)
        if configured is None:
            return SERVICE
        projects = self._context.access().projects
        return projects_by_list(configured, projects).get(wish.wish_list, SERVICE)

    def work_of(self, repository: str, wish: StatusLine) -> tuple[JobKind, str, tuple[str, ...]]:
        """Return the job that publishes a wish: kind, subject and arguments; raise CannotRun."""
        configured = self._configured(repository)
        projects = [each.name for each in self._context.access().projects]
        if wish.wish_list in ("", *map(project_identity, projects)):
            reference = wish.tries.reference if wish.tries is not None else wish.name
            return JobKind.INGEST_IMAGE, registry_image(reference), ()
        for each in configured.lists if configured is not None else ():
            if identity_of_list(each) == wish.wish_list:
                return JobKind.INGEST_LIST, each.name, _only(wish.name)
        raise CannotRun(
            f"cannot retry {wish.name}",
            why="its wish list is not one of the configuration of the service",
            hint="add the list to the configuration of the service",
        )

    async def cancel(self, request: Request, job: str) -> Response:
        """Cancel a job; a job that is cancelled already is answered as it is."""
        return _accepted(await self.cancel_job(request, job))

    async def cancel_job(self, request: Request, job: str) -> Job:
        """Cancel a job, and return it; raise JobEnded unless it is cancelled already."""
        known = await self._job(job)
        allow(request, known.request.project)
        try:
            return await in_database(self._jobs.cancel, job, _sender(request))
        except JobEnded:
            known = await self._job(job)
            if known.state is not JobState.CANCELLED:
                raise
        return known

    async def _submit(
        self,
        request: Request,
        kind: JobKind,
        repository: str,
        subject: str,
        arguments: Sequence[str],
        reason: str,
        project: str = "",
    ) -> Submission:
        """Queue a job; `project` is that of a single image; lists have their own."""
        if kind.has_list:
            configured = self._configured(repository)
            wish_list = configured.list_named(subject) if configured is not None else None
            project = wish_list.project if wish_list is not None else ""
        allow(request, project, verb_for(kind))
        wanted = JobRequest(
            kind,
            repository,
            subject,
            tuple(arguments),
            requested_by=_sender(request),
            reason=printable(reason),
            requested_from=address_of(request),
            project=project,
        )
        job_arguments(self._context.repositories(), wanted)  # raises CannotRun
        check_registry(self._context.access().projects, wanted)
        return await in_database(self._jobs.submit, wanted, _idempotency(request))

    def _configured(self, name: str) -> RepositoryConfiguration | None:
        return next((each for each in self._context.repositories() if each.name == name), None)

    async def _job(self, job_id: str) -> Job:
        check_job(job_id)
        return await in_database(self._jobs.get, job_id)


def _check_fields(body: JobBody) -> None:
    """Raise BadRequest if the body has what its kind of job does not have, or lacks something."""
    kind = body.kind
    has_image = kind in (JobKind.INGEST_IMAGE, JobKind.INGEST_LIST)
    for name, value, is_needed, is_allowed in (
        ("list", body.wish_list, kind.has_list, kind.has_list),
        ("image", body.image, kind is JobKind.INGEST_IMAGE, has_image),
        ("project", body.project, False, kind is JobKind.INGEST_IMAGE),
    ):
        if value and not is_allowed:
            why, hint = f"a job of the kind {kind} has no {name}", f"omit {name}"
        elif is_needed and not value:
            why, hint = f"a job of the kind {kind} needs {name}", f"add {name}"
        else:
            continue
        raise BadRequest("cannot use the body of the request", why=why, hint=hint, parameter=name)


def _only(image: str) -> tuple[str, ...]:
    """Return the arguments for one image of a list, also if it failed a short time ago."""
    return RETRY_FAILED, ONLY + glob.escape(image)


def _sender(request: Request) -> str:
    return identity_of(request).label


def _idempotency(request: Request) -> str:
    """Return the Idempotency-Key of a request, with its sender; "" without one."""
    key = request.headers.get("idempotency-key", "")
    if not key:
        return ""
    if not (key.isascii() and key.isprintable() and len(key) <= _LONGEST_KEY):
        raise BadRequest(
            "cannot queue the job",
            why=f"the Idempotency-Key is not a text of at most {_LONGEST_KEY} ASCII characters",
            hint="send a random UUID",
            parameter="Idempotency-Key",
        )
    return f"{identity_of(request).means}\0{_sender(request)}\0{key}"


def _queued(found: Submission) -> Response:
    return _accepted(found.job, 202 if found.is_new else 200)


def _accepted(job: Job, status: int = 202) -> Response:
    location = f"{BASE}/{job.id}"
    headers = {"Location": location, "Cache-Control": "no-store"}
    return Response(encode("job/1", job_value(job, with_address=True)), status, headers, JSON)
