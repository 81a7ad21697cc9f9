"""The routes about jobs: their states, and their logs, also while they are written."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from publisher.errors import PublisherError, printable
from publisher.service.access import Verb
from publisher.service.jobs.model import (
    MOST_PER_PAGE,
    Job,
    JobEvent,
    JobFilter,
    JobKind,
    Jobs,
    JobState,
    JobsUnavailable,
)
from publisher.service.verbs import Reach
from publisher.service.web.answers import Body, answer, encode
from publisher.service.web.clients import address_of
from publisher.service.web.guard import allow, check_again, identity_of, visible
from publisher.service.web.identifiers import check_cursor, check_job
from publisher.service.web.problems import BadRequest
from publisher.service.web.rates import TooManyRequests, network_of
from publisher.service.web.routes import Kind, Parameter, Route
from publisher.service.web.threads import in_database
from publisher.times import format_time

BASE = "/api/v1/jobs"

_POLL = 0.5
"""Seconds between two looks for new lines of a log."""

_SHARED = 0.4
"""For how many seconds a look for new lines serves other clients, too."""

_QUIET = 15.0
"""After so many seconds without a line, a comment shows that the connection is alive."""

_CHECKED = 10.0
"""Seconds after which it is checked again whether the sender may follow the log."""

_MOST_STREAMS = 500
_MOST_OF_ONE = 100
"""How many logs one sender follows at the same time: others can follow logs, too."""
_PAUSE = 5
"""Seconds after which a sender with too many logs may try again."""

_LONGEST = 64 * 1024
_EVENT_STREAM = "text/event-stream"

_Look = tuple[Job, Sequence[JobEvent]]


def job_routes(jobs: Jobs | None) -> tuple[Route, ...]:
    """Return the routes about jobs; none if the service runs no jobs."""
    return _JobRoutes(jobs).routes() if jobs is not None else ()


class _JobRoutes:
    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._streams: Counter[str] = Counter()
        self._looks: dict[tuple[str, int], tuple[float, asyncio.Task[_Look]]] = {}

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        page = Parameter(
            "limit", "How many a page has.", Kind.INTEGER, default=50, bounds=(1, MOST_PER_PAGE)
        )
        last = Parameter("after", "The number of the last known event.", Kind.INTEGER, default=0)
        return (
            Route(
                BASE,
                "listJobs",
                "List the jobs, the newest first.",
                "jobs-1",
                Verb.READ,
                self.list,
                (
                    Parameter("repository", "Only those of this repository."),
                    Parameter("kind", "Only those of this kind.", choices=tuple(JobKind)),
                    Parameter("state", "Only those in this state.", choices=tuple(JobState)),
                    page,
                    Parameter("cursor", "`next` of the page before.", default=""),
                ),
                reach=Reach.OBJECT,
            ),
            Route(
                BASE + "/{job}",
                "showJob",
                "Show one job.",
                "job-1",
                Verb.READ,
                self.show,
                reach=Reach.OBJECT,
            ),
            Route(
                BASE + "/{job}/events",
                "listEvents",
                "List the lines of a job's log.",
                "job-events-1",
                Verb.READ,
                self.events,
                (last, page),
                reach=Reach.OBJECT,
            ),
            Route(
                BASE + "/{job}/live",
                "followEvents",
                "Follow a job's log: Server-Sent Events, until the job has ended. "
                "The header Last-Event-ID continues an earlier stream.",
                "",
                Verb.READ,
                self.live,
                (last,),
                media_type=_EVENT_STREAM,
                reach=Reach.OBJECT,
            ),
        )

    async def list(
        self,
        request: Request,
        repository: str | None,
        kind: str | None,
        state: str | None,
        limit: int,
        cursor: str,
    ) -> Response:
        """List jobs."""
        chosen = JobFilter(
            frozenset({repository} if repository is not None else ()),
            frozenset({JobKind(kind)} if kind is not None else ()),
            frozenset({JobState(state)} if state is not None else ()),
            projects=visible(request),
        )
        check_cursor(cursor)
        page = await in_database(self._jobs.list, chosen, after=cursor, limit=limit)
        value: dict[str, object] = {
            "jobs": [job_value(job) for job in page.jobs],
            "next": page.following or None,
        }
        return _fresh(request, "jobs/1", value)

    async def show(self, request: Request, job: str) -> Response:
        """Show one job."""
        found = await self._job(request, job)
        with_address = bool(identity_of(request).name)
        return _fresh(request, "job/1", job_value(found, with_address=with_address))

    async def events(self, request: Request, job: str, after: int, limit: int) -> Response:
        """List events of a job."""
        await self._job(request, job)
        found = await in_database(self._jobs.events, job, after, limit)
        return _fresh(request, "job-events/1", {"events": [_event_value(each) for each in found]})

    async def live(self, request: Request, job: str, after: int) -> Response:
        """Stream the events of a job as they are written."""
        known = request.headers.get("last-event-id", "")
        if known:
            if not (known.isascii() and known.isdigit() and len(known) < 16):
                raise BadRequest(
                    "cannot continue the log",
                    why="Last-Event-ID is not the number of an event",
                    hint="omit the header, or use the id of the last event",
                    parameter="Last-Event-ID",
                )
            after = int(known)
        project = (await self._job(request, job)).request.project
        sender = identity_of(request).name or network_of(address_of(request))
        if self._streams[sender] >= _MOST_OF_ONE:
            raise TooManyRequests("live logs of this sender", _PAUSE)
        if self._streams.total() >= _MOST_STREAMS:
            raise JobsUnavailable(
                f"cannot follow job {job}",
                why=f"{_MOST_STREAMS} logs are followed already",
                hint=f"read its lines once: {BASE}/{job}/events",
            )
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        stream = self._stream(sender, job, after, partial(check_again, request, project))
        return StreamingResponse(stream, 200, headers, _EVENT_STREAM)

    async def _job(self, request: Request, job_id: str) -> Job:
        """Return a job that the request may read."""
        check_job(job_id)
        found = await in_database(self._jobs.get, job_id)
        allow(request, found.request.project)
        return found

    async def _stream(
        self, sender: str, job_id: str, after: int, check: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[bytes]:
        self._streams[sender] += 1
        checked = time.monotonic()
        try:
            async for part in self._messages(job_id, after):
                if part:
                    yield part
                if time.monotonic() - checked >= _CHECKED:
                    await check()
                    checked = time.monotonic()
        except PublisherError:
            # The client connects again, and continues with Last-Event-ID. If it may not follow the
            # log any more, or the job was deleted, the answer to that request states it.
            return
        finally:
            self._streams[sender] -= 1
            self._streams += Counter()  # without senders that follow none any more

    async def _look(self, job_id: str, after: int) -> _Look:
        """Return a job and its next events; clients at the same place share one look."""
        now = time.monotonic()
        self._looks = {key: each for key, each in self._looks.items() if now - each[0] < _SHARED}
        key = job_id, after
        if key not in self._looks:
            look = asyncio.create_task(in_database(self._read, job_id, after))
            self._looks[key] = now, look
        return await asyncio.shield(self._looks[key][1])

    def _read(self, job_id: str, after: int) -> _Look:
        # The state is read first: what a job wrote before it ended is then among the events.
        job = self._jobs.get(job_id)
        return job, self._jobs.events(job_id, after)

    async def _messages(self, job_id: str, after: int) -> AsyncIterator[bytes]:
        """Yield the messages of a stream, and b"" several times a second while there are none."""
        written = time.monotonic()
        while True:
            job, events = await self._look(job_id, after)
            for each in events:
                after = each.number
                yield _message("line", _event_value(each), each.number)
            if events:
                written = time.monotonic()
                continue
            if job.state.is_final:
                yield _message("end", job_value(job))
                return
            if time.monotonic() - written > _QUIET:
                written = time.monotonic()
                yield b": the job runs\n\n"
            yield b""
            await asyncio.sleep(_POLL)


def _message(kind: str, value: object, number: int | None = None) -> bytes:
    """Return a message of a stream of events; JSON text has no line breaks."""
    identity = "" if number is None else f"id: {number}\n"
    return f"{identity}event: {kind}\ndata: {json.dumps(value)}\n\n".encode()


def _fresh(request: Request, kind: str, value: dict[str, object]) -> Response:
    body = encode(kind, value)
    return answer(request, Body.of(body))


def job_value(job: Job, *, with_address: bool = False) -> dict[str, object]:
    """Return a job without its arguments, which may name files of the host.

    `with_address` is whether the address that requested it is included.
    """
    request = job.request
    address = {"requestedFrom": printable(request.requested_from)} if with_address else {}
    return {
        **address,
        "id": job.id,
        "kind": str(request.kind),
        "repository": request.repository,
        "project": request.project,
        "subject": printable(request.subject),
        "requestedBy": printable(request.requested_by),
        "reason": printable(request.reason),
        "state": str(job.state),
        "createdAt": format_time(job.created),
        "startedAt": format_time(job.started) if job.started else None,
        "endedAt": format_time(job.ended) if job.ended else None,
        "host": job.host,
        "exitCode": job.exit_code,
        "error": printable(job.error),
        "attempt": job.attempt,
    }


def _event_value(event: JobEvent) -> dict[str, object]:
    return {
        "number": event.number,
        "attempt": event.attempt,
        "event": {key: _safe(value) for key, value in event.value.items()},
    }


def _safe(value: Any) -> Any:
    """Return a value of an event with its texts escaped and bounded."""
    if isinstance(value, str):
        return printable(value[:_LONGEST])
    return value
