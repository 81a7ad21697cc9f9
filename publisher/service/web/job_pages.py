"""The pages about jobs: the list, each job with its log, and forms that cancel and retry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from publisher.errors import printable
from publisher.lazy import dataclass
from publisher.service.access import Verb, may
from publisher.service.jobs.model import (
    MOST_PER_PAGE,
    Job,
    JobEvent,
    JobFilter,
    JobKind,
    Jobs,
    JobState,
)
from publisher.service.verbs import verb_for
from publisher.service.web.answers import HTML, Body, answer
from publisher.service.web.bodies import read_form
from publisher.service.web.context import Context
from publisher.service.web.forms import form_fields
from publisher.service.web.guard import Endpoint, allow, identity_of, visible
from publisher.service.web.identifiers import check_job, is_identifier
from publisher.service.web.jobs import BASE
from publisher.service.web.problems import BadRequest
from publisher.service.web.service_pages import service_page
from publisher.service.web.submissions import Submissions
from publisher.service.web.threads import in_database
from publisher.times import format_time

_Choice = TypeVar("_Choice", JobKind, JobState)
_LIST = "jobs"
_PER_PAGE = 100
_KEYS = ("repository", "kind", "state", "cursor")
RETRIED = (JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job as pages show it; times are texts, or "" if they are not known."""

    id: str
    kind: str
    repository: str
    subject: str
    state: str
    requested_by: str
    reason: str
    created: str
    started: str
    ended: str
    host: str
    exit_code: int | None
    error: str
    attempt: int


@dataclass(frozen=True, slots=True)
class JobsPage:
    """The list of jobs. `filters` are label, key, values and the chosen value of each
    filter; `following` is the query of the next page, or ""."""

    rows: tuple[JobRow, ...]
    filters: tuple[tuple[str, str, tuple[str, ...], str], ...]
    following: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a log."""

    time: str
    clock: str
    level: str
    image: str
    message: str


@dataclass(frozen=True, slots=True)
class JobPage:
    """One job and a part of its log.

    Attributes:
        address: The network address that requested it, or "".
        actions: Label and last part of the URL of what the sender of the request may do.
        fields: Hidden fields of each form.
        live: The path of the stream of events, or "" if the job has ended.
        earlier: Whether the log has lines before those shown.
        later: The number of the last line if there are further ones, or 0.
    """

    job: JobRow
    address: str
    actions: tuple[tuple[str, str], ...]
    fields: Markup
    lines: tuple[LogLine, ...]
    live: str
    earlier: bool
    later: int


class JobPages:
    """Answers requests for pages about jobs."""

    def __init__(self, context: Context, jobs: Jobs, submissions: Submissions) -> None:
        self._context = context
        self._jobs = jobs
        self._submissions = submissions

    def routes(self) -> list[tuple[str, Endpoint, Verb, str]]:
        """Return paths, their endpoints, what requests for them do, and their methods.

        All of them are about the project of a job.
        """
        one = f"/{_LIST}/{{job}}"
        retry_wish = "/repositories/{repository}/retry"
        return [
            (f"/{_LIST}", self.list, Verb.READ, "GET"),
            (one, self.show, Verb.READ, "GET"),
            (f"{one}/cancel", self.cancel, Verb.CANCEL, "POST"),
            (f"{one}/retry", self.retry, Verb.SUBMIT, "POST"),
            (retry_wish, self.retry_wish, Verb.SUBMIT, "POST"),
        ]

    async def list(self, request: Request) -> Response:
        """Show a part of the list of jobs."""
        values = {key: request.query_params.get(key, "") for key in _KEYS}
        repository, cursor = values["repository"], values["cursor"]
        if not (is_identifier(cursor) and is_identifier(repository)):
            raise _wrong("the cursor, or the repository, is not one of this list")
        chosen = JobFilter(
            frozenset({repository} if repository else ()),
            frozenset({_choice(JobKind, values["kind"])} if values["kind"] else ()),
            frozenset({_choice(JobState, values["state"])} if values["state"] else ()),
            projects=visible(request),
        )
        found = await in_database(self._jobs.list, chosen, after=cursor, limit=_PER_PAGE)
        kept = {key: value for key, value in values.items() if value and key != "cursor"}
        names = tuple(each.name for each in self._context.repositories())
        page = JobsPage(
            tuple(_row(job) for job in found.jobs),
            (
                ("Repository", "repository", names, repository),
                ("Kind", "kind", tuple(map(str, JobKind)), values["kind"]),
                ("State", "state", tuple(map(str, JobState)), values["state"]),
            ),
            urlencode(kept | {"cursor": found.following}) if found.following else "",
        )
        return _fresh(request, service_page(self._context, request, "jobs", _LIST, page=page))

    async def show(self, request: Request) -> Response:
        """Show one job and its log: the last lines, or those after the parameter `after`."""
        job_id = request.path_params["job"]
        check_job(job_id)
        text = request.query_params.get("after", "")
        if text and not (text.isascii() and text.isdigit() and len(text) < 10):
            raise _wrong("after is not the number of a line")
        job, events, last = await in_database(self._read, job_id, text)
        project = job.request.project
        allow(request, project)
        identity = identity_of(request)
        actions = []
        if not job.state.is_final and may(identity, Verb.CANCEL, project):
            actions.append(("Cancel", "cancel"))
        if job.state in RETRIED and may(identity, verb_for(job.request.kind), project):
            actions.append(("Retry", "retry"))
        first = events[0].number if events else 1
        page = JobPage(
            _row(job),
            printable(job.request.requested_from) if identity.name else "",
            tuple(actions),
            form_fields(request),
            tuple(_line(each) for each in events),
            "" if job.state.is_final else f"{BASE[1:]}/{job.id}/live",
            earlier=first > 1 and not text,
            later=events[-1].number if events and events[-1].number < last else 0,
        )
        path = f"{_LIST}/{job.id}"
        return _fresh(request, service_page(self._context, request, "job", path, page=page))

    def _read(self, job_id: str, text: str) -> tuple[Job, Sequence[JobEvent], int]:
        """Return a job, lines of its log, and the number of the last line."""
        job = self._jobs.get(job_id)
        last = self._jobs.last_event(job_id)
        after = int(text) if text else max(0, last - MOST_PER_PAGE)
        return job, self._jobs.events(job_id, after), last

    async def cancel(self, request: Request) -> Response:
        """Cancel a job, and lead to its page."""
        job = await self._submissions.cancel_job(request, request.path_params["job"])
        return RedirectResponse(f"../{job.id}", 303)

    async def retry(self, request: Request) -> Response:
        """Queue the work of a job again, and lead to the page of the new one."""
        found = await self._submissions.retry_job(request, request.path_params["job"])
        return RedirectResponse(f"../{found.job.id}", 303)

    async def retry_wish(self, request: Request) -> Response:
        """Queue an ingest of the wish that the form names, and lead to the page of the job."""
        form = await read_form(request)
        wish = await self._submissions.wish(
            request,
            request.path_params["repository"],
            form.get("name", ""),
            form.get("wishList", ""),
        )
        found = await self._submissions.submit_wish(
            request, request.path_params["repository"], wish
        )
        return RedirectResponse(f"../../{_LIST}/{found.job.id}", 303)


def _choice(kind: type[_Choice], text: str) -> _Choice:
    try:
        return kind(text)
    except ValueError:
        raise _wrong(f"{printable(text[:40])} is not one of {', '.join(kind)}") from None


def _wrong(why: str) -> BadRequest:
    return BadRequest("cannot show the page", why=why, hint="begin at /jobs")


def _row(job: Job) -> JobRow:
    request = job.request
    return JobRow(
        id=job.id,
        kind=str(request.kind),
        repository=request.repository,
        subject=request.subject,
        state=str(job.state),
        requested_by=request.requested_by,
        reason=request.reason,
        created=format_time(job.created),
        started=format_time(job.started) if job.started else "",
        ended=format_time(job.ended) if job.ended else "",
        host=job.host,
        exit_code=job.exit_code,
        error=job.error,
        attempt=job.attempt,
    )


def _line(event: JobEvent) -> LogLine:
    """Return a line; what a child wrote need not have the types of an event."""

    def text(key: str) -> str:
        found = event.value.get(key)
        return found if isinstance(found, str) else ""

    level = text("level")
    time = text("time")
    is_known = level.isascii() and level.isalpha()
    return LogLine(time, time[11:19], level if is_known else "info", text("image"), text("message"))


def _fresh(request: Request, body: bytes) -> Response:
    return answer(request, Body.of(body), HTML)
