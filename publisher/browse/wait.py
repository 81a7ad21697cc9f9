"""Wait until an image is published, and replicas serve it: the use case of `publisher wait`."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from publisher.errors import explain
from publisher.lazy import dataclass
from publisher.repository import NothingPublished, Repository, RepositoryError
from publisher.repository.cvmfs.revision import Revision, present_revision
from publisher.repository.published import NotPublished, PublishedImage, load_image
from publisher.sources.http.clock import Clock
from publisher.sources.replica_revision import ReplicaError, ReplicaRevision, UntrustedReplica
from publisher.tree import layout

if TYPE_CHECKING:
    from publisher.sources.replicas import Replicas

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds between two looks: doubled from the first to the longest, and jittered."""

ANSWER = 10.0
"""Seconds that one look waits for the answers of replicas; the first one also if the time-out is
shorter. A later answer is that of the next look."""


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """What is known of one replica.

    Attributes:
        url: The address of the repository on the replica.
        found: The revision that it served last; None if none could be read.
        has_image: Whether that revision has the image.
        problem: Why the last try to read it failed, or "".
    """

    url: str
    found: ReplicaRevision | None = None
    has_image: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class WaitResult:
    """How the wait ended.

    Attributes:
        name: The public name of the image.
        image: What is published; None if the image, with the digest, is not.
        revision: The revision that has it, for replicas; None if it is not known or not needed.
        replicas: The state of each replica.
        missing: What was still waited for when the time was over; "" if nothing was.
    """

    name: str
    image: PublishedImage | None
    revision: Revision | None
    replicas: tuple[ReplicaState, ...]
    missing: str


class _Pauses:
    """The waits between looks, until `seconds` have passed."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._end = clock.monotonic() + seconds
        self._next = FIRST_PAUSE

    @property
    def left(self) -> float:
        """The remaining seconds."""
        return max(0.0, self._end - self._clock.monotonic())

    def wait(self) -> bool:
        """Wait for the next look; return False if the time is over."""
        if not self.left:
            return False
        pause = self._next * random.uniform(0.8, 1.0)
        self._next = min(LONGEST_PAUSE, 2 * self._next)
        self._clock.wait(min(pause, self.left), threading.Event())
        return True


class ImageWait:
    """One wait for the image that is published as `name`.

    Args:
        open_repository: Opens the repository for reading. It is opened for each look, since a
            repository may be mounted again in the meantime.
        name: The public name of the image.
        digest: The digest that the published image must have, of its manifest or of the index that
            its tag named; "" for any.
        failure_of: Returns why the last try to publish the image of a name failed, or "".
        replicas: The replicas that must serve a revision with the image; None for none.
        report: Called with a sentence whenever what is waited for changes.
        clock: The clock of the time-out and of the pauses.
    """

    def __init__(
        self,
        open_repository: Callable[[], Repository],
        name: str,
        digest: str,
        failure_of: Callable[[str], str],
        replicas: Replicas | None,
        report: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._open_repository = open_repository
        self._name = name
        self._digest = digest
        self._failure_of = failure_of
        self._replicas = replicas
        self._report = report
        self._clock = clock
        self._image: PublishedImage | None = None
        self._revision: Revision | None = None
        self._states = {} if replicas is None else {u: ReplicaState(u) for u in replicas.urls}

    def run(self, seconds: float) -> WaitResult:
        """Wait for at most `seconds`; return how that ended.

        Raises:
            RepositoryError: The repository could not be read at the first look.
            UntrustedReplica: A replica serves another repository, or wrong signatures.
        """
        pauses = _Pauses(seconds, self._clock)
        reported = ""
        missing = self._look(ANSWER)
        while missing:
            if missing != reported:
                self._report(f"waiting: {missing}")
                reported = missing
            if not pauses.wait():
                break
            try:
                missing = self._look(min(ANSWER, max(1.0, pauses.left)))
            except (RepositoryError, OSError) as error:
                missing = str(explain(error))  # while the repository is mounted again, for example
        states = tuple(self._states.values())
        return WaitResult(self._name, self._image, self._revision, states, missing)

    def _look(self, seconds: float) -> str:
        """Return what is missing now, or ""; a replica has `seconds` for its answer."""
        if self._image is None:
            missing = self._look_for_image()
            if missing:
                return missing
        if self._replicas is None:
            return ""
        return self._look_at_replicas(self._replicas, seconds)

    def _look_for_image(self) -> str:
        try:
            repository = self._open_repository()
            image = load_image(repository, self._name)
        except (NotPublished, NothingPublished):
            return self._with_failure(f"{self._name} is not published")
        if image.problem:
            return f"what is published as {self._name} is unreadable: {image.problem}"
        if not _has_digest(image, self._digest):
            return self._with_failure(
                f"{self._name} is published with another digest, {image.manifest_digest}"
            )
        if not _is_linked(repository, image):
            return f"the public link of {self._name} is missing"
        if self._replicas is not None:
            self._revision = present_revision(repository)
        self._image = image
        return ""

    def _with_failure(self, missing: str) -> str:
        failure = self._failure_of(self._name)
        return f"{missing}; {failure}" if failure else missing

    def _look_at_replicas(self, replicas: Replicas, seconds: float) -> str:
        assert self._revision is not None
        behind = [url for url, state in self._states.items() if not state.has_image]
        for url, answer in replicas.read(behind, seconds).items():
            self._states[url] = self._state_after(self._states[url], answer)
        missing = [_describe(state) for state in self._states.values() if not state.has_image]
        if not missing:
            return ""
        return f"revision {self._revision.number} has {self._name}; " + "; ".join(missing)

    def _state_after(
        self, before: ReplicaState, answer: ReplicaRevision | ReplicaError
    ) -> ReplicaState:
        if isinstance(answer, UntrustedReplica):
            raise answer
        if isinstance(answer, ReplicaError):
            return ReplicaState(before.url, before.found, problem=answer.why)
        assert self._revision is not None
        has_image = answer.manifest.revision >= self._revision.number
        return ReplicaState(before.url, answer, has_image)


def _has_digest(image: PublishedImage, digest: str) -> bool:
    known = {image.manifest_digest}
    if image.publication is not None:
        known.add(image.publication.source_digest)
    return not digest or digest in known


def _is_linked(repository: Repository, image: PublishedImage) -> bool:
    """Return whether the public name leads to the image; it is the last part of a commit."""
    if image.manifest is None:
        return False
    if image.publication is not None and "flat" not in image.publication.outputs:
        return True
    wanted = layout.link_target(image.name, image.manifest.image_id)
    return repository.link_text(image.name) == wanted


def _describe(state: ReplicaState) -> str:
    if state.problem:
        return f"{state.url}: {state.problem}"
    served = state.found.manifest.revision if state.found else "none"
    return f"{state.url} serves revision {served}"
