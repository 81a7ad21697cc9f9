"""What is remembered of each requested image, and of each run."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import field, replace
from datetime import datetime, timedelta

from publisher.lazy import dataclass

REPORTED_AGAIN = timedelta(days=7)
"""The time after which a failure that lasts is news again."""


class Cause(enum.StrEnum):
    """Why an image could not be published."""

    IMAGE_MISSING = "image-missing"  # the registry does not have it, or no tag matches
    UNREACHABLE = "unreachable"  # the source cannot be read
    REFUSED = "refused"  # it requires a credential, or refuses the one that was sent
    RATE_LIMITED = "rate-limited"  # the registry received too many requests
    INVALID_IMAGE = "invalid-image"  # what the source has is malformed
    POLICY = "policy"  # a policy does not allow it
    LIMIT = "limit"  # it is larger than an image may be
    QUOTA = "quota"  # it is more than is left of the quota of its project
    NO_SPACE = "no-space"  # the disk is full
    HOST = "host"  # this machine cannot start another process
    CONTENT_REFUSED = "content-refused"  # the server of the repository does not accept it
    REPOSITORY = "repository"  # the published file system cannot be used
    WISH_LIST = "wish-list"  # the wish is invalid
    CONTRADICTION = "contradiction"  # another wish requests something else at the same place
    OTHER = "other"

    @property
    def is_of_the_image(self) -> bool:
        """Whether trying less often makes sense: the cause is neither this host nor the list."""
        return self not in (
            Cause.QUOTA,
            Cause.NO_SPACE,
            Cause.HOST,
            Cause.REPOSITORY,
            Cause.WISH_LIST,
            Cause.CONTRADICTION,
        )


class News(enum.StrEnum):
    """What has changed about an image since it was last reported."""

    STARTED = "started"  # it has begun to fail
    CHANGED = "changed"  # it fails with another cause
    LASTING = "lasting"  # it has failed for REPORTED_AGAIN since the last report
    RECOVERED = "recovered"  # it failed, which was reported, and does not fail any more


@dataclass(frozen=True, slots=True)
class Tries:
    """What is known of one requested image.

    `name` is its public name; for a wish whose tags could not be listed, or that has an error, the
    text of the wish. `failing_since` and what follows it are about the present failure, and have
    their defaults while the image does not fail.

    Attributes:
        wish_list: The identity of the wish list; "" for an image without one.
        fingerprint: A digest of the settings of the wish.
        first_seen: When the image was first worked on.
        last_success: When it was last found to be current, or published.
        digest: The digest that its reference then had.
        last_failure: When it last failed.
        error: Why, in one line.
        tries: How many times in a row it failed.
        rules: A digest of the policy and the limits that then applied.
        next_try: When it is tried again; None if the next run tries it.
        reported_at: When the failure was last reported as news.
        reported_cause: The cause in that report.
        behind_since: When a run first found that the reference names another image than the one
            that is published, which a pin keeps; None if it does not.
    """

    wish_list: str
    name: str
    reference: str
    first_seen: datetime
    owner: str = ""
    line: int = 0
    column: int = 0
    fingerprint: str = ""
    last_success: datetime | None = None
    digest: str = ""
    last_failure: datetime | None = None
    failing_since: datetime | None = None
    cause: str = ""
    error: str = ""
    tries: int = 0
    rules: str = ""
    next_try: datetime | None = None
    reported_at: datetime | None = None
    reported_cause: str = ""
    behind_since: datetime | None = None

    @property
    def is_failing(self) -> bool:
        """Whether the last try failed."""
        return self.failing_since is not None

    def news(self, now: datetime) -> News | None:
        """Return what a report at `now` has to contain about the failure, or None."""
        if self.failing_since is None:
            return None
        if self.reported_at is None:
            return News.STARTED
        if self.reported_cause != self.cause:
            return News.CHANGED
        return News.LASTING if now - self.reported_at >= REPORTED_AGAIN else None

    def reported(self, now: datetime) -> Tries:
        """Return the same, with its failure reported at `now`."""
        return replace(self, reported_at=now, reported_cause=self.cause)

    def succeeded(self, now: datetime, digest: str, *, is_behind: bool = False) -> Tries:
        """Return what is known after a success; an empty `digest` keeps the former one."""
        return replace(
            self.without_failure(),
            last_success=now,
            digest=digest or self.digest,
            behind_since=(self.behind_since or now) if is_behind else None,
        )

    def failed(self, now: datetime, cause: Cause, error: str, next_try: datetime | None) -> Tries:
        """Return what is known after another failure."""
        return replace(
            self,
            last_failure=now,
            failing_since=self.failing_since or now,
            cause=str(cause),
            error=" ".join(error.split()),
            tries=self.tries + 1,
            next_try=next_try,
        )

    def without_failure(self) -> Tries:
        """Return the same as if it had never failed."""
        return replace(
            self,
            failing_since=None,
            cause="",
            error="",
            tries=0,
            rules="",
            next_try=None,
            reported_at=None,
            reported_cause="",
        )


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of a command.

    Attributes:
        started: When it began.
        ended: When it ended.
        command: The name of the command: "ingest".
        lists: The identities of its wish lists.
        exit_code: Its exit code.
        counts: How many images had each outcome.
        bytes_fetched: The layers as downloaded, in bytes.
        seconds: The time of each step, summed over all images.
        error: Why the run as a whole failed, in one line; "" if it did not.
    """

    started: datetime
    ended: datetime
    command: str
    lists: tuple[str, ...] = ()
    exit_code: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    bytes_fetched: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
