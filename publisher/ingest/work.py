"""The images of all wishes, shared among threads, for `ingest`, `plan`, `check` and `expand`.

The tags of one wish are processed like separate wishes. The results do not depend on the speed of
any thread or registry: of two wishes that request the same place in the published tree, the first
in the order of the lists has it, and the images of one place are processed in that order.
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import field
from typing import Generic, TypeVar

from publisher.errors import PublisherError
from publisher.ingest.admission import Admission
from publisher.ingest.wanted import RequestedImage, requested_references
from publisher.lazy import dataclass
from publisher.log_context import logged_image
from publisher.oci.reference import ImageReference
from publisher.repository import ends_run
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.wishlist import Places
from publisher.wishlist.model import Request

T = TypeVar("T")
V = TypeVar("V")

_WAKE_SECONDS = 0.2
"""Seconds between checks of `stop`, which a signal handler sets."""


class WishWork(ABC, Generic[T]):
    """What is done with one wish and its images. The methods are called from several threads.

    Args:
        request: The wish, and its list.
        places: The places of all wishes that publish to the same repository.
    """

    def __init__(self, request: Request, places: Places) -> None:
        self.request = request
        self.places = places

    def skip(self) -> T | None:
        """Return the result of a wish whose images are not to be looked up, or None."""
        return None

    @abstractmethod
    def act(self, image: RequestedImage) -> T | None:
        """Return the result for one image."""

    @abstractmethod
    def failed(self, name: str, reference: str, error: Exception) -> T | None:
        """Return the result for an image, or for the whole wish, that causes `error`."""

    def done(self) -> None:
        """Note that all images of the wish are processed."""


@dataclass(frozen=True, slots=True)
class Results(Generic[T]):
    """The results in the order of the wishes, without None; whether no image was left out."""

    items: list[T]
    complete: bool


def for_all_images(
    wishes: Iterable[WishWork[T]],
    sources: Sources,
    *,
    jobs: int,
    admission: Admission | None = None,
    with_repeated: bool = False,
    stop: threading.Event | None = None,
    on_stop: Callable[[], None] = lambda: None,
    ended: Callable[[list[T], list[Request]], None] = lambda results, unfinished: None,
) -> Results[T]:
    """Go through the images of all wishes: one for each, or as many as its tag patterns match.

    An exception that one image causes is reported as the failure of that image.

    Args:
        wishes: The wishes, in the order of their lists. An iterator is read as wishes are begun.
        sources: Where tags are looked up.
        jobs: How many images are processed at a time.
        admission: Refuses wishes and tags that a policy does not allow.
        with_repeated: Include images that the same list has requested already.
        stop: Once it is set, no other image is begun. It is set by an exception, and at the end.
        on_stop: Called repeatedly once `stop` is set, until all threads end.
        ended: Called before an exception ends this: with the results until then in the order of the
            wishes, and with the requests that were not completed.

    Raises:
        RepositoryError: The repository itself cannot be used.
    """
    stop = stop or threading.Event()
    work = _Work(iter(wishes), sources, admission or Admission(), with_repeated, stop)
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="image")
    try:
        # One future per thread: one per wish would take most of the memory for a long list.
        workers = [pool.submit(work.process) for _ in range(jobs)]
        pending: set[Future[None]] = set(workers)
        while pending:
            done, pending = wait(pending, timeout=_WAKE_SECONDS, return_when=FIRST_EXCEPTION)
            if any(worker.exception() is not None for worker in done):
                stop.set()
            if stop.is_set():
                work.end()
                on_stop()
        for worker in workers:
            worker.result()
    except Exception:
        ended(work.results(), work.unfinished())
        raise
    except KeyboardInterrupt:  # of a command that leaves signals to Python
        sources.close()  # else its threads would try again for minutes
        raise
    finally:
        stop.set()
        work.end()
        pool.shutdown()
    return Results(work.results(), work.is_complete)


@dataclass(slots=True)
class _Wish(Generic[T]):
    """A wish that was begun. `left` counts the images that are not finished."""

    work: WishWork[T]
    images: deque[_Image[T]] = field(default_factory=deque)
    results: list[T | None] = field(default_factory=list)
    left: int = 0


@dataclass(frozen=True, slots=True)
class _Image(Generic[T]):
    """One image of a wish, with the position of its result; `error` is why it has no place."""

    wish: _Wish[T]
    position: int
    name: str
    reference: ImageReference
    error: Exception | None


class _Lanes(Generic[V]):
    """Values with a key, of which only one for each key may be in work, in the order of `enter`."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[V]] = {}

    def enter(self, key: str, value: V) -> bool:
        """Return whether work on `value` may begin; otherwise a call of `leave` returns it."""
        if key in self._waiting:
            self._waiting[key].append(value)
            return False
        self._waiting[key] = deque()
        return True

    def leave(self, key: str) -> V | None:
        """End the work on a value; return the next one with its key, whose work may now begin."""
        if self._waiting[key]:
            return self._waiting[key].popleft()
        del self._waiting[key]
        return None


class _Work(Generic[T]):
    """The wishes and images that are not begun yet, and the results of the others.

    Images are taken before further wishes, so that few wishes are expanded at a time.
    """

    def __init__(
        self,
        wishes: Iterator[WishWork[T]],
        sources: Sources,
        admission: Admission,
        with_repeated: bool,
        stop: threading.Event,
    ) -> None:
        self._wishes = wishes
        self._sources = sources
        self._admission = admission
        self._with_repeated = with_repeated
        self._stop = stop
        self._begun: list[_Wish[T]] = []
        self._changed = threading.Condition()
        self._running = 0
        self._ended = False
        self._open: deque[_Wish[T]] = deque()
        self._free_wishes: deque[_Wish[T]] = deque()
        self._free_images: deque[_Image[T]] = deque()
        # Wishes that may have places in common are expanded one after another.
        self._wish_lanes: _Lanes[_Wish[T]] = _Lanes()
        self._image_lanes: _Lanes[_Image[T]] = _Lanes()

    @property
    def is_complete(self) -> bool:
        """Whether every image of every wish was processed."""
        return all(not wish.left for wish in self._begun) and next(self._wishes, None) is None

    def unfinished(self) -> list[Request]:
        """Return the requests with an image that was not processed. No other one is begun then."""
        begun = [wish.work.request for wish in self._begun if wish.left]
        return begun + [work.request for work in self._wishes]

    def results(self) -> list[T]:
        """Return the results in the order of the wishes."""
        found = itertools.chain.from_iterable(wish.results for wish in self._begun)
        return [result for result in found if result is not None]

    def end(self) -> None:
        """Begin no other image."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def process(self) -> None:
        """Process wishes and images until none is left, or no other one is to be begun."""
        try:
            while (taken := self._take()) is not None:
                if isinstance(taken, _Wish):
                    self._expand(taken)
                else:
                    self._act(taken)
        except BaseException:
            self.end()
            raise

    def _take(self) -> _Wish[T] | _Image[T] | None:
        """Return what is to be done next, once it may begin, or None at the end."""
        with self._changed:
            while not (self._ended or self._stop.is_set()):
                taken = self._next_image() or self._next_wish()
                if taken is not None:
                    self._running += 1
                    return taken
                if not self._running:
                    break  # nothing is left that could make further images free
                self._changed.wait()
            self._changed.notify_all()
            return None

    def _next_image(self) -> _Image[T] | None:
        if self._free_images:
            return self._free_images.popleft()
        while self._open:
            images = self._open[0].images
            while images:
                image = images.popleft()
                if self._image_lanes.enter(image.name, image):
                    return image
            self._open.popleft()
        return None

    def _next_wish(self) -> _Wish[T] | None:
        if self._free_wishes:
            return self._free_wishes.popleft()
        while (work := next(self._wishes, None)) is not None:
            wish = _Wish(work, left=1)
            self._begun.append(wish)
            if self._wish_lanes.enter(_lane(work.request), wish):
                return wish
        return None

    @contextmanager
    def _finishing(self) -> Iterator[None]:
        """Finish a task: the body has the lock, and the other threads then look for work."""
        with self._changed:
            yield
            self._running -= 1
            self._changed.notify_all()

    def _expand(self, wish: _Wish[T]) -> None:
        """Determine the images of a wish, and claim their places."""
        images, result = self._images(wish)
        with self._finishing():
            wish.images.extend(images)
            wish.results = [None] * len(images) if images else [result]
            wish.left = len(images)
            if images:
                self._open.append(wish)
            following = self._wish_lanes.leave(_lane(wish.work.request))
            if following is not None:
                self._free_wishes.append(following)
        if not images:
            wish.work.done()

    def _images(self, wish: _Wish[T]) -> tuple[list[_Image[T]], T | None]:
        """Return the images of a wish, or the result of a wish without any."""
        work = wish.work
        try:
            skipped = work.skip()
            if skipped is not None:
                return [], skipped
            self._admission.check_wish(work.request)
            references = requested_references(work.request, self._sources)
            self._admission.check_width(work.request, len(references))
        except Exception as error:  # noqa: BLE001  # reported as this wish's failure
            wanted = work.request.wish
            return [], work.failed(str(wanted), str(wanted.image), error)
        return self._claimed(wish, references), None

    def _claimed(self, wish: _Wish[T], references: Sequence[ImageReference]) -> list[_Image[T]]:
        """Return those of the images that are not repetitions."""
        images: list[_Image[T]] = []
        request, places = wish.work.request, wish.work.places
        for reference in references:
            name, error = str(reference), None
            try:
                name = layout.public_name(reference, request.wish.name)
                is_new = places.claim(name, reference, request.wish, request.wish_list)
            except Exception as caught:  # noqa: BLE001  # reported as this image's failure
                is_new, error = True, caught
            if is_new or self._with_repeated:
                images.append(_Image(wish, len(images), name, reference, error))
        return images

    def _act(self, image: _Image[T]) -> None:
        wish = image.wish
        result = self._result(image)
        with self._finishing():
            wish.results[image.position] = result
            wish.left -= 1
            is_last = not wish.left
            following = self._image_lanes.leave(image.name)
            if following is not None:
                self._free_images.append(following)
        if is_last:
            wish.work.done()

    def _result(self, image: _Image[T]) -> T | None:
        work = image.wish.work
        if image.error is not None:
            return work.failed(image.name, str(image.reference), image.error)
        try:
            with logged_image(image.name):
                self._admission.check_tag(work.request.wish, image.reference)
                return work.act(RequestedImage(work.request, image.reference, image.name))
        except Exception as error:  # reported as this image's failure
            if ends_run(error):
                raise
            return work.failed(image.name, str(image.reference), error)


def _lane(request: Request) -> str:
    """Return a key that all wishes share that may request the same place: names without a tag."""
    try:
        return layout.without_tag(layout.public_name(request.wish.image, request.wish.name))
    except PublisherError:
        return ""  # its images have no names, and thus no places
