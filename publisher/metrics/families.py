"""The metrics, and how a command changes their values. Pure.

All times are in seconds since 1970, sizes in bytes, as is the convention of Prometheus. No metric
has a label for single images, so that the number of values does not grow with that of images.
"""

from __future__ import annotations

from collections.abc import Mapping

from publisher.lazy import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """A metric. `name` of a counter is without its "_total".

    A command replaces the values with the same labels `scope`, and leaves all others as they are.
    `labels` distinguish the values of one scope.
    """

    name: str
    meaning: str
    scope: tuple[str, ...]
    labels: tuple[str, ...] = ()
    is_counter: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """New values of a family in one scope.

    `values` have one key for each of the family's `labels`. They replace all earlier values of the
    scope; those of a counter are added to them.
    """

    family: Family
    scope: tuple[str, ...]
    values: Mapping[tuple[str, ...], float]


def value(family: Family, scope: tuple[str, ...], number: float | None) -> Update:
    """Return the update for a family without further labels; None removes its value."""
    return Update(family, scope, {} if number is None else {(): number})


_REPOSITORY = ("repository",)
_LIST = ("repository", "list")
_COMMAND = ("repository", "command")
_RUN = ("repository", "command", "list")

LAST_RUN = Family(
    "publisher_last_run_timestamp_seconds",
    "When the command last came to its end, for each wish list.",
    _RUN,
)
LAST_SUCCESS = Family(
    "publisher_last_success_timestamp_seconds",
    "When the command last ended without a failure, for each wish list.",
    _RUN,
)
EXIT_CODE = Family(
    "publisher_last_exit_code",
    "The exit code of the command's last run, also of one that failed, for each wish list.",
    _RUN,
)
RUN_SECONDS = Family("publisher_run_seconds", "The duration of the last run.", _COMMAND)
STEP_SECONDS = Family(
    "publisher_run_step_seconds",
    "The time that the last run spent in each kind of step, summed over all images.",
    _COMMAND,
    ("step",),
)
FETCHED = Family(
    "publisher_fetched_bytes", "Compressed layers that were downloaded.", _LIST, is_counter=True
)
WISHES = Family("publisher_wishes", "Requested images by state.", _LIST, ("state",))
FAILING = Family(
    "publisher_failing_images",
    "Images that fail, by cause, also while they wait.",
    _LIST,
    ("cause",),
)
OLDEST = Family(
    "publisher_oldest_failure_timestamp_seconds",
    "Since when the image fails that has failed for the longest time.",
    _LIST,
)
UNDELIVERED = Family(
    "publisher_undelivered_notifications", "Notifications that are sent again.", _REPOSITORY
)
SCHEDULED = Family("publisher_scheduled_images", "Images in the remove schedule.", _REPOSITORY)
DUE = Family(
    "publisher_due_images",
    "Scheduled images whose grace period is over, without pins.",
    _REPOSITORY,
)
FREE = Family(
    "publisher_repository_free_bytes", "Space that can still be used for images.", _REPOSITORY
)
CAPACITY = Family(
    "publisher_repository_capacity_bytes",
    "The size of the file system of a directory repository.",
    _REPOSITORY,
)
STORED = Family(
    "publisher_repository_stored_bytes",
    "The files of all layers, as the last verify found them.",
    _REPOSITORY,
)
REVISION = Family(
    "publisher_repository_revision", "The revision of a CVMFS repository.", _REPOSITORY
)
COLLECTED = Family(
    "publisher_collected_images", "Images that gc removed.", _REPOSITORY, is_counter=True
)
FREED = Family("publisher_freed_bytes", "The files that gc removed.", _REPOSITORY, is_counter=True)
FINDINGS = Family(
    "publisher_findings",
    "What the last verify found, by severity; in contents, what the last one with --deep found.",
    ("repository", "of"),
    ("severity",),
)

FAMILIES = (
    *(
        LAST_RUN,
        LAST_SUCCESS,
        EXIT_CODE,
        RUN_SECONDS,
        STEP_SECONDS,
        FETCHED,
        WISHES,
        FAILING,
        OLDEST,
        UNDELIVERED,
        SCHEDULED,
        DUE,
        FREE,
    ),
    *(CAPACITY, STORED, REVISION, COLLECTED, FREED, FINDINGS),
)
