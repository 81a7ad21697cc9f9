"""Look whether this machine can publish, before something fails: behind `publisher doctor`.

Nothing is changed. Every finding that is not good comes with its cure.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from publisher.errors import PublisherError
from publisher.oci.reference import parse_reference
from publisher.repository import Repository, RepositoryError
from publisher.repository.checks import Check, Verdict
from publisher.repository.cvmfs.machine import check_machine, largest_catalogs
from publisher.repository.cvmfs.repository import CvmfsRepository
from publisher.repository.directory.repository import DirectoryRepository
from publisher.repository.reading import load_pins, load_schedule
from publisher.sources import AuthenticationFailed, ImageNotFound
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.tree.record import InvalidRecord

_LITTLE_SPACE = 20 * 2**30
_SKEW_SECONDS = 300


def examine(repository: Repository) -> Iterator[Check]:
    """Everything that publishing to `repository`, opened for reading, needs of this machine."""
    if isinstance(repository, CvmfsRepository):
        yield from check_machine(repository.configuration, repository.state)
        yield from largest_catalogs(repository.configuration.mount)
    elif isinstance(repository, DirectoryRepository):
        yield from _examine_directory(repository.root)
    yield from _examine_records(repository)


def ask_registries(hosts: Iterable[str], sources: Sources) -> Iterator[Check]:
    """Whether each registry ("host[:port]", "http://host:port") answers, and knows us."""
    for host in dict.fromkeys(hosts):
        try:
            # No registry has this image; what it says instead tells whether it would say more.
            sources.open(parse_reference(f"{host}/publisher-doctor/none:none")).resolve()
        except ImageNotFound:
            yield Check(host, Verdict.GOOD, "it answers")
        except AuthenticationFailed as error:
            yield Check(
                host,
                Verdict.WARNING,
                f"it answers, and lets us see nothing that is not public: {error.why}",
                f"publisher login {host}, if images of it are wished that need it",
            )
        except (PublisherError, OSError) as error:
            hint = error.hint if isinstance(error, PublisherError) else ""
            yield Check(host, Verdict.PROBLEM, str(error), hint or "check its name and the network")
        else:
            yield Check(host, Verdict.GOOD, "it answers")


def _examine_directory(root: Path) -> Iterator[Check]:
    owner = root.stat()
    if os.access(root, os.W_OK):
        yield Check("ownership", Verdict.GOOD, f"{root} is ours to write to")
    else:
        yield Check(
            "ownership",
            Verdict.PROBLEM,
            f"{root} belongs to user {owner.st_uid}, and is not ours to write to",
            "publish as its owner",
        )
    status = os.statvfs(root)
    free = status.f_bavail * status.f_frsize
    text = f"{free / 2**30:.1f} GiB at {root}"
    if free < _LITTLE_SPACE:
        yield Check("space", Verdict.WARNING, f"only {text}", "make room, or collect: publisher gc")
    else:
        yield Check("space", Verdict.GOOD, text)
    if status.f_favail and status.f_favail < status.f_files // 50:
        yield Check(
            "inodes",
            Verdict.WARNING,
            f"{status.f_favail} of {status.f_files} are left",
            "collect, or use a file system that makes inodes as they are needed (xfs, btrfs)",
        )
    if status.f_flag & os.ST_RDONLY:
        yield Check("mount", Verdict.PROBLEM, "mounted read-only", f"mount -o remount,rw {root}")
    if os.geteuid() != 0:
        yield Check(
            "owners of files",
            Verdict.WARNING,
            "without root all published files belong to who publishes",
            "publish as root where images' own owners matter",
        )
    newest = max((root / layout.METADATA).stat().st_mtime, owner.st_mtime)
    if newest > time.time() + _SKEW_SECONDS:
        yield Check(
            "clock",
            Verdict.WARNING,
            "the repository was changed in the future: this clock, or that disk's, is wrong",
            "set the clock (chronyc makestep)",
        )
    else:
        yield Check("clock", Verdict.GOOD, "agrees with what was published")


def _examine_records(repository: Repository) -> Iterator[Check]:
    try:
        schedule, pins = load_schedule(repository), load_pins(repository)
        count = sum(1 for _ in repository.names())
    except InvalidRecord as error:
        yield Check(
            "records", Verdict.PROBLEM, str(error), "publisher verify lists what can be repaired"
        )
        return
    except RepositoryError as error:
        yield Check("records", Verdict.WARNING, f"{error.what}: {error.why}", error.hint)
        return
    text = f"{count} images, {len(schedule.entries)} scheduled, {len(pins.pins)} pinned"
    if repository.unfinished():
        yield Check(
            "records",
            Verdict.WARNING,
            f"{text}; an interrupted transaction waits to be finished",
            "any command that writes finishes it",
        )
    else:
        yield Check("records", Verdict.GOOD, text)
