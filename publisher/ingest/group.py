"""Group commit: images that become ready during a commit are committed together by the next one.

A commit costs a revision of CVMFS, or several syncs of a disk, for one image as for many. An image
that finds no commit in progress is committed at once, by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from publisher.ingest.report import Status
from publisher.ingest.stopping import Interrupted
from publisher.lazy import dataclass
from publisher.repository import ContentRefused, Repository, RepositoryBusy, RepositoryError

if TYPE_CHECKING:  # a run without changes commits nothing
    from publisher.ingest.commit import PreparedImage

DEFAULT_GROUP = 16
"""How many images one commit may publish."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """An image in the queue, then its status, or the error of its commit.

    `of_failed` is the status that a failed commit of several images has published, if it did.
    """

    image: PreparedImage
    of_failed: Status | None = None
    status: Status | None = None
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.status is not None or self.error is not None


class Commits:
    """The commits of one run: one at a time, each of at most `most` images.

    The thread of one of the waiting images commits for all of them. If images cannot be committed
    together, each of them is committed by itself, so that one that fails affects no other. Once two
    images in a row are refused for the same cause of the server, no other one is committed.
    """

    def __init__(self, repository: Repository, most: int = 1) -> None:
        self._repository = repository
        self._most = most
        self._changed = threading.Condition()
        self._queue: list[_Waiting] = []
        self._in_progress = False
        # Why the server refused the latest image, if that may affect others; see ContentRefused.
        self._shared_cause = 0
        self._unusable: RepositoryError | None = None

    def commit(self, image: PreparedImage) -> Status:
        """Commit the image, by itself or with others; raise what prevents that for this image."""
        own = _Waiting(image)
        with self._changed:
            self._queue.append(own)
        while (group := self._next_group(own)) is not None:
            try:
                self._commit_group(group)
            finally:
                with self._changed:
                    self._in_progress = False
                    self._changed.notify_all()
        if own.error is not None:
            raise own.error
        assert own.status is not None
        return own.status

    def _next_group(self, own: _Waiting) -> list[_Waiting] | None:
        """Wait; return a group for this thread to commit, or None when `own` is done."""
        with self._changed:
            self._changed.wait_for(lambda: own.is_done or not self._in_progress)
            if own.is_done:
                return None
            self._in_progress = True
            group = self._chosen()
            self._queue = [each for each in self._queue if each not in group]
            return group

    def _chosen(self) -> list[_Waiting]:
        """Return the first images of the queue, without a second one of the same name."""
        group: list[_Waiting] = []
        names: set[str] = set()
        for each in self._queue:
            if len(group) < self._most and not each.image.names & names:
                group.append(each)
                names |= each.image.names
        return group

    def _commit_group(self, group: Sequence[_Waiting]) -> None:
        try:
            if len(group) > 1 and self._unusable is None and self._commit_together(group):
                self._shared_cause = 0
                return
            for each in group:
                if self._unusable is None:
                    _commit_alone(self._repository, each)
                    self._examine(each)
                else:
                    each.error = self._unusable
        except BaseException as error:
            for each in group:
                if not each.is_done:
                    each.error = error
            raise

    def _examine(self, waiting: _Waiting) -> None:
        """Note whether the repository refuses images one after another for the same cause."""
        error = waiting.error
        if error is None:
            self._shared_cause = 0
        if not isinstance(error, ContentRefused):
            return
        names = ", ".join(sorted(waiting.image.names))
        _log.info("the repository refused %s", names, exc_info=error)
        if error.shared_cause and error.shared_cause == self._shared_cause:
            waiting.error = self._unusable = RepositoryError(
                f"cannot publish to {self._repository.url}",
                why=f"images are refused one after another: {error.why}",
                hint=error.hint,
            )
        self._shared_cause = error.shared_cause

    def _commit_together(self, group: Sequence[_Waiting]) -> bool:
        """Commit a group; return False if nothing is published and each has to be tried alone."""
        from publisher.ingest.commit import CommitFailed, NotTogether, commit_together

        try:
            statuses = commit_together(self._repository, [each.image for each in group])
        except RepositoryBusy as error:
            for each in group:  # others would wait as long for the same publisher
                each.error = error
            return True
        except NotTogether:
            return False
        except CommitFailed as failed:
            if isinstance(failed.__cause__, RepositoryBusy | Interrupted):
                for each in group:  # each would wait as long by itself
                    each.error = failed.__cause__
                return True
            _log.info("%d images are committed one by one: %s", len(group), failed.__cause__)
            for each, status in zip(group, failed.statuses, strict=True):
                each.of_failed = status
            return False
        except Exception as error:  # noqa: BLE001 - reported again by the image that caused it
            _log.info("%d images are committed one by one: %s", len(group), error)
            return False
        for each, status in zip(group, statuses, strict=True):
            each.status = status
        return True


def _commit_alone(repository: Repository, waiting: _Waiting) -> None:
    from publisher.ingest.commit import CommitFailed, commit_alone

    try:
        status = commit_alone(repository, waiting.image)
        # If the commit before had published the image, it is found unchanged.
        is_published = status is Status.UNCHANGED and waiting.of_failed is not None
        waiting.status = waiting.of_failed if is_published else status
    except CommitFailed as failed:
        is_busy = isinstance(failed.__cause__, RepositoryBusy)
        if not is_busy and _is_published(repository, waiting.image):
            text = "published; its commit failed later, and the next transaction completes it: %s"
            _log.warning(text, failed.__cause__)
            waiting.status = failed.statuses[0]
        else:
            waiting.error = failed.__cause__
    except Exception as error:  # noqa: BLE001 - raised again in the thread of the image
        waiting.error = error


def _is_published(repository: Repository, image: PreparedImage) -> bool:
    """Return whether a commit that failed has published the image: it may be completed later."""
    from publisher.ingest.commit import is_published

    try:
        return is_published(repository, image)
    except Exception as error:  # noqa: BLE001 - the error of the commit is the one to report
        _log.info("it is not known whether the failed commit has published the image: %s", error)
        return False
