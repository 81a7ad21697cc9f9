"""The webhooks of registries: `POST /hooks/NAME`, and `POST /hooks/NAME/SECRET`.

A payload decides only which wishes a job ingests: the job asks the registry itself. Nothing
here logs the path of a request, which may have a secret.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import field

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.service.access import Unauthorized
from publisher.service.configuration import ListConfiguration, RepositoryConfiguration
from publisher.service.hooks.authentication import check_secret, check_signature
from publisher.service.hooks.matching import matching_patterns
from publisher.service.hooks.model import Hook, Push
from publisher.service.hooks.payloads import read_pushes
from publisher.service.hooks.replays import Replays
from publisher.service.jobs.model import JobKind, JobRequest, Submission
from publisher.service.verbs import Verb
from publisher.service.web.answers import encode
from publisher.service.web.bodies import SECONDS, read_bytes
from publisher.service.web.clients import address_of
from publisher.service.web.guard import GuardedRoute
from publisher.service.web.problems import Busy, NotFound
from publisher.wishlist.model import Wish

MOST_BYTES = 1024 * 1024
"""The largest body. Payloads have some kilobytes, those of GitHub some tens of them."""

_MOST_AT_ONCE = 64
"""How many bodies are read at the same time: those of GitHub are read before they are checked."""

_MOST_THREADS = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HookContext:
    """What hooks use.

    Attributes:
        hooks: Returns those of the configuration; others after a reload.
        repositories: Returns the repositories of the configuration.
        wishes: Returns the wishes of the list at a source, or raises WishListError.
        submit: Queues the ingest of what patterns select of a list.
        seconds: How long a body may take to arrive.
    """

    hooks: Callable[[], Sequence[Hook]]
    repositories: Callable[[], Sequence[RepositoryConfiguration]]
    wishes: Callable[[str], Sequence[Wish]]
    submit: Callable[[JobRequest, Sequence[str]], Submission]
    seconds: float = SECONDS


def hook_routes(context: HookContext) -> list[GuardedRoute]:
    """Return the routes of all hooks. They need no token: each hook has a secret of its own."""
    hooks = _Hooks(context)
    paths = ("/hooks/{hook}", "/hooks/{hook}/{secret}")
    return [GuardedRoute(path, hooks.receive, Verb.NOTIFY, "POST") for path in paths]


@dataclass(slots=True)
class _Hooks:
    context: HookContext
    replays: Replays = field(default_factory=Replays)
    reading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MOST_AT_ONCE))
    unchecked: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MOST_AT_ONCE))
    """Of signed bodies, which anyone can send: they do not keep those with the secret away."""

    limiter: anyio.CapacityLimiter | None = None

    @property
    def _threads(self) -> anyio.CapacityLimiter:
        if self.limiter is None:
            self.limiter = anyio.CapacityLimiter(_MOST_THREADS)
        return self.limiter

    async def receive(self, request: Request) -> Response:
        """Answer with 202 and the jobs that were queued; no answer has more of the wishes."""
        name = request.path_params["hook"]
        try:
            return await self._receive(request, name)
        except Unauthorized as error:
            _log.warning("a webhook was refused: %s", error)
            raise

    async def _receive(self, request: Request, name: str) -> Response:
        hook = next((each for each in self.context.hooks() if each.name == name), None)
        if hook is None:
            raise NotFound(
                f"cannot find the hook {name[:100]}",
                why="the configuration has no hook of this name",
                hint="add it to hooks in the configuration of the service",
            )
        in_path = request.path_params.get("secret", "")
        signature = check_secret(hook, request.headers.getlist, in_path)
        body = await self._body(request, self.unchecked if hook.kind.is_signed else self.reading)
        if hook.kind.is_signed:
            check_signature(hook, signature, body)
            if self.replays.is_known(hook.name, body):
                return _answer(0, [])
        address = address_of(request)
        # Threads of its own: pushes wait for each other, and for lists from the network.
        count, jobs = await anyio.to_thread.run_sync(
            self._submit, hook, body, address, limiter=self._threads
        )
        if hook.kind.is_signed:
            self.replays.accept(hook.name, body)
        return _answer(count, jobs)

    async def _body(self, request: Request, reading: asyncio.Semaphore) -> bytes:
        if reading.locked():
            raise Busy(
                "cannot read the request",
                why="too many webhooks arrive at the same time",
                hint="send it again",
            )
        async with reading:
            return await read_bytes(request, MOST_BYTES, self.context.seconds)

    def _submit(self, hook: Hook, body: bytes, address: str) -> tuple[int, list[Submission]]:
        """Queue the jobs for a payload; return how many images it reports, and the jobs."""
        pushes = read_pushes(hook, body)
        submissions = []
        unreadable: PublisherError | None = None
        for repository in self.context.repositories() if pushes else ():
            if hook.repositories and repository.name not in hook.repositories:
                continue
            for wish_list in repository.lists:
                try:
                    wishes = self.context.wishes(wish_list.source)
                except PublisherError as error:
                    unreadable = error
                    _log.warning("a webhook: %s", error)
                    continue
                submissions += self._submit_list(
                    hook, repository.name, wish_list, wishes, pushes, address
                )
        if unreadable is not None and not submissions:
            raise Busy(
                "cannot find the wishes for the webhook",
                why=f"a wish list of the service cannot be read: {unreadable.why}",
                hint="send it again later",
            )
        return len(pushes), submissions

    def _submit_list(
        self,
        hook: Hook,
        repository: str,
        wish_list: ListConfiguration,
        wishes: Sequence[Wish],
        pushes: Sequence[Push],
        address: str,
    ) -> list[Submission]:
        patterns = matching_patterns(pushes, wishes)
        if not patterns:
            return []
        request = JobRequest(
            JobKind.INGEST_LIST,
            repository,
            wish_list.name,
            project=wish_list.project,
            requested_by=f"webhook {hook.name}",
            reason=f"push to {hook.registry}",
            requested_from=address,
        )
        return [self.context.submit(request, patterns)]


def _answer(pushes: int, submissions: Sequence[Submission]) -> Response:
    jobs = [each.job.id for each in submissions]
    body = encode("hook/1", {"images": pushes, "jobs": jobs})
    return Response(body, 202, {"Cache-Control": "no-store"}, "application/json")
