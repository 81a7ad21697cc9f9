"""`publisher status`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import click

from publisher.browse.status import (
    Condition,
    ListedWishes,
    Selection,
    StatusLine,
    check_registries,
    find_status,
)
from publisher.browse.values import run_value, status_value
from publisher.cli.failures import DONE, SOME_FAILED
from publisher.cli.logs import log_options
from publisher.cli.options import output_option, repository_option
from publisher.cli.published_names import complete_images
from publisher.cli.rendering import echo, message, print_json, warn
from publisher.cli.replicas import describe_replica, open_replicas, replica_options, replica_value
from publisher.cli.repositories import open_repository
from publisher.cli.runs import describe_last
from publisher.cli.sources import load_settings, open_sources, source_options
from publisher.cli.state import open_state
from publisher.cli.wishlists import read_wish_list
from publisher.errors import PublisherError, printable
from publisher.lazy import dataclass, pattern
from publisher.repository import Repository
from publisher.repository.cvmfs.revision import Revision, present_revision
from publisher.repository.published import find_name
from publisher.sources.replica_revision import ReplicaError, ReplicaRevision
from publisher.sources.settings import Settings
from publisher.sources.wish_lists import is_remote, is_wish_list, list_identity
from publisher.state import RunRecord, Tries
from publisher.times import format_time, utc_now
from publisher.wishlist import Problem, WishListError

_ANSWER = 20.0
"""Seconds that a replica has for its answer."""

_NOT_WELL = (Condition.FAILING, Condition.UNREADABLE)

_GLOB = pattern(r"[*?\[]")


@click.command()
@click.argument("selected", nargs=-1, metavar="[IMAGE|WISHLIST]...", shell_complete=complete_images)
@click.option("--failing", is_flag=True, help="Show only wishes that fail or are unreadable.")
@click.option(
    "--owner",
    "owners",
    multiple=True,
    metavar="NAME",
    help="Show only the wishes of this owner; may be given several times.",
)
@click.option(
    "--check-registry",
    is_flag=True,
    help="Ask each registry what the references name now, by one request for each image that is "
    "shown. By default, what the last run found is shown.",
)
@replica_options
@repository_option
@source_options
@output_option
@log_options
def status(
    selected: tuple[str, ...],
    failing: bool,
    owners: tuple[str, ...],
    check_registry: bool,
    addresses: tuple[str, ...],
    public_key: Path | None,
    repository: str | None,
    output: str,
    **source_settings: str | None,
) -> int:
    """Show the state of each wish: published, failing and why, waiting, scheduled, pinned.

    Arguments are names as `publisher list` prints them, image references, globs, or wish lists;
    without any, all wishes and images are shown. What is published is read from the repository.
    Failures are known on the machine that publishes: see docs/administration.md. Ends with 1 if a
    named image is unknown, or if a record or a replica is unreadable.

    \b
    publisher status registry.example.org/astro/tool:1 --repository cvmfs:images.example.org
    publisher status --failing --owner astro --repository dir:/srv/images
    publisher status /etc/publisher/wishlist.yaml --check-registry --repository dir:/srv/images
    """
    settings = load_settings(source_settings)
    arguments = _read_arguments(selected, settings, repository)
    opened = open_repository(arguments.repository)
    problems: list[PublisherError] = list(arguments.problems)
    with open_state(arguments.repository) as state:
        tries, runs = state.wishes(), state.last_runs()
        is_known = os.path.exists(state.path)
    selection = Selection(
        tuple(find_name(opened, name) for name in arguments.names),
        arguments.patterns,
        arguments.lists,
        owners,
    )
    now = utc_now()
    lines = find_status(opened, tries, selection, now, problems.append)
    known = {line.name for line in lines}
    problems += [_unusable(each) for each in arguments.unusable if each.subject not in known]
    if failing:
        lines = [each for each in lines if each.condition in _NOT_WELL]
    if check_registry:
        with open_sources(source_settings) as sources:
            lines = check_registries(lines, sources, utc_now)
    replicas = _Replicas.read(addresses, public_key, opened)
    if output == "json":
        print_json("status/1", _value(lines, replicas, runs, is_known))
    else:
        _print(lines, replicas, now)
        if not lines:
            message("no selected wish fails" if failing else "no wish and no image is selected")
        for text in describe_last(runs):
            message(text)
    if not is_known:
        message("failures and waiting wishes are unknown: this machine has no state of a run")
    for problem in problems:
        warn(problem)
    bad = (Condition.UNREADABLE, Condition.UNKNOWN)
    is_bad = problems or replicas.has_problem or any(each.condition in bad for each in lines)
    return SOME_FAILED if is_bad else DONE


def _unusable(problem: Problem) -> PublisherError:
    """Return the error of a wish that no run has worked on."""
    return PublisherError(f"cannot use the wish {problem.subject}", why=str(problem))


@dataclass(frozen=True, slots=True)
class _Arguments:
    """What the arguments select, and the repository.

    `problems` are those of unreadable lists, `unusable` the wishes of the others that have errors.
    """

    repository: str | None
    names: tuple[str, ...]
    patterns: tuple[str, ...]
    lists: tuple[ListedWishes, ...]
    problems: tuple[PublisherError, ...]
    unusable: tuple[Problem, ...]


def _read_arguments(
    selected: Sequence[str], settings: Settings, repository: str | None
) -> _Arguments:
    paths = [text for text in selected if _is_list(text)]
    others = [text for text in selected if text not in paths]
    lists: list[ListedWishes] = []
    problems: list[PublisherError] = []
    unusable: list[Problem] = []
    for path in paths:
        try:
            wish_list = read_wish_list(path, settings, repository, allow_local=True)
        except WishListError as error:
            problems.append(error)
            lists.append(ListedWishes(list_identity(path)))
            continue
        unusable += wish_list.unusable
        repository = repository or wish_list.repository
        lists.append(ListedWishes(list_identity(path), wish_list.wishes))
    if repository is None and problems:
        raise problems[0]  # the list would have named it
    return _Arguments(
        repository,
        tuple(text for text in others if not _GLOB.search(text)),
        tuple(text for text in others if _GLOB.search(text)),
        tuple(lists),
        tuple(problems),
        tuple(unusable),
    )


def _is_list(text: str) -> bool:
    """Return whether an argument is a wish list: an address of one, or a file."""
    if is_remote(text):
        return text.startswith("git+") or text.endswith((".yaml", ".yml"))
    return text.endswith((".yaml", ".yml")) or Path(text).is_file()


@dataclass(frozen=True, slots=True)
class _Replicas:
    """What replicas serve, by address, and the revision to which it is compared."""

    revision: Revision | None
    answers: Mapping[str, ReplicaRevision | ReplicaError]

    @classmethod
    def read(
        cls, addresses: Sequence[str], public_key: Path | None, repository: Repository
    ) -> _Replicas:
        """Ask all replicas at the same time."""
        opened = open_replicas(addresses, public_key, repository)
        with opened or nullcontext() as replicas:
            if replicas is None:
                return cls(None, {})
            return cls(present_revision(repository), replicas.read(replicas.urls, _ANSWER))

    @property
    def has_problem(self) -> bool:
        """Whether the revision of a replica could not be read."""
        return any(isinstance(answer, ReplicaError) for answer in self.answers.values())


def _print(lines: Sequence[StatusLine], replicas: _Replicas, now: datetime) -> None:
    width = max((len(printable(line.name)) for line in lines), default=0)
    times = Counter(line.name for line in lines)
    for line in lines:
        text = _describe(line, now)
        if times[line.name] > 1:
            text += f"; for {line.wish_list}"
        echo(f"{printable(line.name):{width}}  {printable(text)}")
    for url, answer in replicas.answers.items():
        if isinstance(answer, ReplicaError):
            echo(f"{url}: {printable(answer.why)}")
        else:
            echo(f"{url}: {describe_replica(answer, replicas.revision)}")


def _describe(line: StatusLine, now: datetime) -> str:
    """Return the state of one wish as a line."""
    parts = []
    if line.image is not None and line.image.problem:
        parts.append(f"unreadable: {line.image.problem}")
    elif line.is_published:
        parts.append(_describe_image(line))
    if line.tries is not None and line.tries.is_failing:
        parts.append(describe_failure(line.tries, now))
    if not parts and line.scheduled is None:
        parts.append(_describe_absence(line))
    if line.registry is not None and line.registry.error:
        parts.append(f"registry: {line.registry.error}")
    if line.pin is not None:
        parts.append(f"pinned until {line.pin.until}" if line.pin.until else "pinned")
    if line.scheduled is not None:
        when = format_time(line.scheduled.not_before)
        parts.append(f"scheduled for removal, from {when} ({line.scheduled.reason_text})")
    return "; ".join(parts)


def _describe_absence(line: StatusLine) -> str:
    if line.condition is Condition.UNKNOWN:
        return "unknown: it is not published, and no run has worked on it"
    if line.expired and line.listed is not None:
        return f"its wish expired on {line.listed.expires}"
    if line.tries is not None and line.tries.last_success is not None:
        return "waiting: it is not published any more; the next run publishes it"
    return "waiting: no run has published it yet"


def _describe_image(line: StatusLine) -> str:
    assert line.image is not None
    published = line.image.publication
    since = f" since {format_time(published.published_at)}" if published else ""
    text = f"published{since}, {line.image.manifest_digest[:19]}"
    if line.registry is None or line.is_behind is None:
        return text
    when = format_time(line.registry.at)
    if line.behind_since is not None:
        since = format_time(line.behind_since)
        return (
            f"{text}; behind since {since}: the registry had {line.registry.digest[:19]} at {when}"
        )
    return f"{text}, current at {when}"


def describe_failure(tries: Tries, now: datetime) -> str:
    """Return since when and why an image fails, and when it is tried again; "" if it does not."""
    if tries.failing_since is None:
        return ""
    times = f", tried {tries.tries} times" if tries.tries > 1 else ""
    text = f"failing since {format_time(tries.failing_since)}: {tries.error}"
    text += f" ({tries.cause}{times})"
    if not is_wish_list(tries.wish_list):
        return f"{text}; no list requests it: only a further request tries it again"
    if tries.next_try is None or tries.next_try <= now:
        return f"{text}; next try: with the next run"
    return f"{text}; next try at {format_time(tries.next_try)}"


def _value(
    lines: Sequence[StatusLine],
    replicas: _Replicas,
    runs: Sequence[RunRecord],
    is_known: bool,
) -> dict[str, object]:
    return {
        "wishes": [status_value(line) for line in lines],
        "revision": replicas.revision.number if replicas.revision else None,
        "replicas": [
            _replica_value(url, answer, replicas.revision)
            for url, answer in replicas.answers.items()
        ],
        "lastRun": run_value(runs[0]) if runs else None,
        "lastRuns": [run_value(run) for run in runs],
        "hasState": is_known,
    }


def _replica_value(
    url: str, answer: ReplicaRevision | ReplicaError, revision: Revision | None
) -> dict[str, object]:
    if isinstance(answer, ReplicaError):
        return replica_value(url, None, answer.why) | {"behind": None}
    behind = max(0, revision.number - answer.manifest.revision) if revision else None
    return replica_value(url, answer, "") | {"behind": behind}
