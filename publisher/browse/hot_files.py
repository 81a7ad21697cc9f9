"""Record which files programs of an image open: the use case behind `publisher trace`.

The list is published in the repository. In CVMFS it can also be published as a file bundle: clients
that open the trigger, a file of the image, then fetch the other files at once.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from publisher.browse.run import plan_run
from publisher.browse.trace import CannotTrace, require_programs, trace, within_limit
from publisher.lazy import dataclass
from publisher.oci.reference_grammar import MAX_FILE_NAME
from publisher.repository import Repository, RepositoryChanged, RepositoryError, Transaction
from publisher.repository.published import find_name, load_image
from publisher.tree import layout
from publisher.tree.hot_files import HotFile, HotFiles, is_bundled
from publisher.tree.record import InvalidRecord

DEFAULT_LIMIT = 256 * 10**6
"""The most bytes of all files in a list."""


class Status(enum.StrEnum):
    """What became of the list."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    NOT_PUBLISHED = "not-published"  # a dry run
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Options:
    """How a list is made.

    Attributes:
        limit: The most bytes of all files.
        bundle: Whether it is published as a file bundle of CVMFS as well.
        trigger: The file of the image that triggers the bundle, instead of the program.
        entrypoint: False to let the command replace the image's entry point as well.
        timeout: The seconds after which the program is ended.
    """

    limit: int = DEFAULT_LIMIT
    bundle: bool = False
    trigger: str = ""
    entrypoint: bool = True
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The list of the image `name`, and what became of it.

    `record` is None if a list was to be removed, and there was none that is readable. `left_out`
    are the files for which the limit left no space.
    """

    name: str
    image_id: str
    record: HotFiles | None
    left_out: tuple[HotFile, ...]
    status: Status

    @property
    def path(self) -> str:
        """The path of the list in the repository."""
        return layout.hot_files(self.image_id)


def trace_image(
    repository: Repository,
    text: str,
    command: Sequence[str],
    options: Options,
    now: Callable[[], datetime],
    *,
    dry_run: bool = False,
) -> Result:
    """Run `command` in the image `text`, and publish which files of the image it opens.

    Args:
        repository: Opened for writing, unless for a dry run.
        text: A published name, or an image reference.
        command: Replaces the image's command; may be empty.
        options: How the list is made.
        now: The clock.
        dry_run: Publish nothing.

    Raises:
        CannotRun: The image has no flat image, or cannot be run.
        CannotTrace: The program failed, or it does not open the trigger.
        RepositoryError: The repository is not mounted, or cannot be changed.
    """
    name = find_name(repository, text)
    if options.bundle and repository.url.kind != "cvmfs":
        raise CannotTrace(
            name,
            why="file bundles are read by clients of CVMFS only",
            hint="trace it without --bundle",
        )
    tree = repository.local_root
    if tree is None:
        raise RepositoryError(
            f"cannot run {name}",
            why=f"{repository.url} is not mounted on this machine",
            hint=f"mount it: cvmfs_server mount {repository.url.location}",
        )
    start = plan_run(repository, name, command, entrypoint=options.entrypoint, tree=tree)
    require_programs(name)
    traced = trace(name, start, options.timeout)
    kept, left_out = within_limit(traced.files, options.limit)
    trigger = _trigger(name, options.trigger or traced.program, kept) if options.bundle else ""
    record = HotFiles(
        _image_id(repository, name),
        start.arguments,
        now().replace(microsecond=0),
        kept,
        len(left_out),
        sum(file.size for file in left_out),
        trigger,
    )
    status = Status.NOT_PUBLISHED if dry_run else _publish(repository, name, record)
    return Result(name, record.image_id, record, left_out, status)


def remove_trace(repository: Repository, text: str) -> Result:
    """Remove the list of the image `text`, and its bundle."""
    name = find_name(repository, text)
    image_id = _image_id(repository, name)
    path = layout.hot_files(image_id)
    with (
        repository.transaction(f"removal of the trace of {name}") as transaction,
        transaction.exclusive(),
    ):
        record = _load(repository, image_id)
        status = Status.UNCHANGED
        if repository.exists(path):
            status = Status.REMOVED
            transaction.remove(path)
            _remove_bundle(repository, transaction, record)
            transaction.record(name, "trace removed")
            transaction.commit()
    return Result(name, image_id, record, (), status)


def _publish(repository: Repository, name: str, record: HotFiles) -> Status:
    with repository.transaction(f"trace of {name}") as transaction, transaction.exclusive():
        flat = layout.flat_image(record.image_id)
        if not repository.exists(flat):
            raise RepositoryChanged(f"cannot trace {name}", why=f"{flat} was removed concurrently")
        before = _load(repository, record.image_id)
        if before is not None and replace(before, traced_at=record.traced_at) == record:
            return Status.UNCHANGED
        if before is not None and before.trigger != record.trigger:
            _remove_bundle(repository, transaction, before)
        transaction.replace(layout.hot_files(record.image_id), record.to_bytes())
        if record.trigger:
            transaction.replace(record.bundle_path, record.bundle())
        count = len(record.files)
        transaction.record(name, "traced", f"{count} file{'' if count == 1 else 's'}")
        transaction.commit()
    return Status.PUBLISHED


def _remove_bundle(
    repository: Repository, transaction: Transaction, record: HotFiles | None
) -> None:
    if record is not None and record.trigger and repository.url.kind == "cvmfs":
        transaction.remove(record.bundle_path)


def _load(repository: Repository, image_id: str) -> HotFiles | None:
    """Return the published list; None if it is missing or damaged."""
    path = layout.hot_files(image_id)
    try:
        data = repository.read(path)
        record = None if data is None else HotFiles.parse(data, path)
    except InvalidRecord:
        return None
    return record if record is not None and record.image_id == image_id else None


def _image_id(repository: Repository, name: str) -> str:
    found = load_image(repository, name)
    if found.manifest is None:
        raise CannotTrace(name, why=found.problem, hint="publisher verify --repair")
    return found.manifest.image_id


def _trigger(name: str, wanted: str, files: Sequence[HotFile]) -> str:
    """Return the path of the trigger, which is one of `files` and can have a bundle beside it."""
    path = wanted.strip("/")
    if path not in (file.path for file in files):
        raise CannotTrace(
            name,
            why=f"{path} is not one of the files in the list",
            hint="name a file of the list without symlinks with --trigger; --dry-run prints them",
        )
    bundle = f"{layout.BUNDLE_PREFIX}{path.rpartition('/')[2]}"
    if not is_bundled(path) or len(bundle.encode()) > MAX_FILE_NAME:
        raise CannotTrace(
            name,
            why=f"the name of {path} is not UTF-8, or too long for a bundle beside it",
            hint="name another file of the list with --trigger",
        )
    return path
