"""Check that this machine can publish: the use case behind `publisher doctor`.

Nothing is changed. Each check that does not succeed names a remedy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from pathlib import Path

from publisher.errors import PublisherError
from publisher.layers.index import read_index
from publisher.layers.opaque import lacks_marks_for_root, marks_for_root
from publisher.layers.policy import Policy
from publisher.oci.reference import parse_reference
from publisher.repository import NothingPublished, Repository
from publisher.repository.checks import Check, Verdict
from publisher.repository.directory.repository import DirectoryRepository
from publisher.repository.published import NotPublished, PublishedImage, load_image
from publisher.repository.reading import load_pins, load_publication, load_schedule
from publisher.repository.settings import client_mount, load_policy
from publisher.runtimes.podman.conversion import outdated
from publisher.runtimes.squashfs import OUTPUT
from publisher.runtimes.squashfs_file import INSTALL, PROGRAM, is_available
from publisher.sandbox import SandboxError, abilities
from publisher.sbom import output as sbom
from publisher.sizes import plural
from publisher.sources import AuthenticationFailed, ImageNotFound
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.tree.record import InvalidRecord
from publisher.tree.schedule import RemoveSchedule
from publisher.verify.published_layers import has_writable_files

_LITTLE_SPACE = 20 * 10**9
_SKEW_SECONDS = 300


def examine(repository: Repository) -> Iterator[Check]:
    """Yield the checks whether this machine can publish to `repository`, opened for reading."""
    if repository.url.kind == "cvmfs":
        # Each backend is loaded if it is used: both are long to load.
        from publisher.repository.cvmfs.machine import check_machine, largest_catalogs
        from publisher.repository.cvmfs.repository import CvmfsRepository

        assert isinstance(repository, CvmfsRepository)
        yield from check_machine(repository.configuration, repository.state)
        yield from largest_catalogs(repository.configuration.mount)
    elif isinstance(repository, DirectoryRepository):
        yield from _examine_directory(repository)
    yield from _worker_processes()
    yield from _examine_records(repository)


def ask_registries(hosts: Iterable[str], sources: Sources) -> Iterator[Check]:
    """Yield for each registry ("host[:port]", "http://host:port") whether it can be used."""
    for host in dict.fromkeys(hosts):
        try:
            # This image does not exist. The kind of the error shows whether the credentials are
            # valid.
            sources.open(parse_reference(f"{host}/publisher-doctor/none:none")).resolve()
        except ImageNotFound:
            yield Check(host, Verdict.GOOD, "answers")
        except AuthenticationFailed as error:
            yield Check(
                host,
                Verdict.WARNING,
                f"answers, but permits public images only: {error.why}",
                f"publisher login {host}, if wish lists request other images of it",
            )
        except (PublisherError, OSError) as error:
            hint = error.hint if isinstance(error, PublisherError) else ""
            yield Check(host, Verdict.PROBLEM, str(error), hint or "check its name and the network")
        else:
            yield Check(host, Verdict.GOOD, "answers")


def _examine_directory(repository: DirectoryRepository) -> Iterator[Check]:
    root = repository.root
    status = root.stat()
    yield _ownership(root, status.st_uid)
    yield from _space(root, repository.free_space())
    if os.geteuid() != 0:
        yield Check(
            "owners of files",
            Verdict.WARNING,
            "without root, all published files belong to the publishing user",
            "publish as root to keep the owners in images",
        )
    newest = max((root / layout.METADATA).stat().st_mtime, status.st_mtime)
    yield _clock(newest)


def _ownership(root: Path, owner: int) -> Check:
    if os.access(root, os.W_OK):
        return Check("ownership", Verdict.GOOD, f"{root} is writable by user {os.geteuid()}")
    return Check(
        "ownership",
        Verdict.PROBLEM,
        f"{root} belongs to user {owner}, and is not writable by user {os.geteuid()}",
        "publish as its owner",
    )


def _space(root: Path, free: int) -> Iterator[Check]:
    status = os.statvfs(root)
    text = f"{free / 1e9:.1f} GB free at {root}"
    if free < _LITTLE_SPACE:
        yield Check("space", Verdict.WARNING, f"only {text}", "publisher gc, or a larger disk")
    else:
        yield Check("space", Verdict.GOOD, text)
    if status.f_favail and status.f_favail < status.f_files // 50:
        yield Check(
            "inodes",
            Verdict.WARNING,
            f"{status.f_favail} of {status.f_files} are left",
            "publisher gc, or a file system that creates inodes as needed (xfs, btrfs)",
        )
    if status.f_flag & os.ST_RDONLY:
        yield Check("mount", Verdict.PROBLEM, "mounted read-only", f"mount -o remount,rw {root}")


def _clock(newest: float) -> Check:
    if newest > time.time() + _SKEW_SECONDS:
        return Check(
            "clock",
            Verdict.WARNING,
            "the repository was changed in the future: the clock of this machine, or that of its "
            "disk's server, is wrong",
            "set the clock (chronyc makestep)",
        )
    return Check("clock", Verdict.GOOD, "agrees with the last publication")


def _worker_processes() -> Iterator[Check]:
    """Check how the processes that unpack layers can be confined."""
    subject = "worker processes"
    try:
        found = abilities()
    except SandboxError as error:
        yield Check(subject, Verdict.PROBLEM, str(error), "publisher ingest --workers 0")
        return
    present = [each.measure for each in found if each.present]
    if len(present) == len(found):
        yield Check(subject, Verdict.GOOD, f"confined: {', '.join(present)}")
    for each in found:
        if not each.present:
            what = f"not confined by {each.measure}: {each.meaning}"
            yield Check(subject, Verdict.WARNING, what, each.remedy)


def _device_nodes(repository: Repository, policy: Policy) -> Iterator[Check]:
    """Warn if a worker process could open the device nodes that it makes."""
    if not isinstance(repository, DirectoryRepository) or policy.devices == "drop":
        return
    root = repository.root
    if not os.statvfs(root).f_flag & os.ST_NODEV:
        mount = next(each for each in (root, *root.parents) if each.is_mount())
        yield Check(
            "device nodes",
            Verdict.WARNING,
            f"the policy keeps them, and {mount} is mounted without nodev: a compromised worker "
            "process could open the disks of this machine",
            f"mount -o remount,nodev {mount}",
        )


def _look_at_images(
    repository: Repository, schedule: RemoveSchedule
) -> tuple[set[str], int, list[PublishedImage]]:
    """Return the layers that are published or scheduled, the number of images, unreadable ones."""
    layers: set[str] = set()
    count = 0
    unreadable: list[PublishedImage] = []
    for name in repository.names():
        with suppress(NotPublished):  # it was removed concurrently
            image = load_image(repository, name)
            count += 1
            if image.manifest is None:
                unreadable.append(image)
            else:
                layers |= {layer.digest for layer in image.manifest.layers}
    for entry in schedule.entries:
        with suppress(PublisherError):  # `verify` reports it
            layers |= {layer.digest for layer in entry.parse_manifest().layers}
    return layers, count, unreadable


def _permissions(repository: Repository, layers: Set[str]) -> Iterator[Check]:
    """Warn of layers with write permission, which earlier releases did not remove."""
    writable = sum(has_writable_files(repository, digest) for digest in layers)
    if writable:
        yield Check(
            "permissions",
            Verdict.WARNING,
            f"{writable} layers have write permission for group or others: users of this host may "
            "be able to change what is published",
            "publisher verify --refetch",
        )


def _opaque_directories(repository: Repository, layers: Set[str]) -> Iterator[Check]:
    """Warn of layers whose opaque directories are not marked for root's mounts."""
    if not isinstance(repository, DirectoryRepository):
        return
    subject = "opaque directories"
    if not marks_for_root():
        yield Check(
            subject,
            Verdict.WARNING,
            "without root and CAP_SYS_ADMIN, they are not marked for overlay mounts of root, which "
            "show the files that they hide; the snapshotter downloads such layers",
            "publish as root to mark them",
        )
        return  # the marks are invisible as well
    unmarked = sum(_is_unmarked(repository, digest) for digest in layers)
    if unmarked:
        yield Check(
            subject,
            Verdict.WARNING,
            f"{unmarked} layers were published without root: overlay mounts of root show the files "
            "that their opaque directories hide, and the snapshotter downloads these layers",
            "remove the images, collect them, and publish them as root",
        )


def _is_unmarked(repository: DirectoryRepository, digest: str) -> bool:
    directory = repository.root / layout.layer_directory(digest)
    try:
        if directory.stat().st_uid == 0:  # published by root; so its index need not be read
            return False
        with repository.open_index(digest) as file:
            return lacks_marks_for_root(directory / layout.LAYER_TREE, read_index(file))
    except (OSError, PublisherError):
        return False  # `verify` reports what is missing or damaged


def _squashfs_program(repository: Repository) -> Iterator[Check]:
    """Check the program that writes squashfs files, if an image is requested as one."""
    if not any(_requests(repository, name, OUTPUT) for name in repository.names()):
        return
    if is_available():
        yield Check("squashfs files", Verdict.GOOD, f"{PROGRAM} is installed")
    else:
        what = f"{PROGRAM}, which writes them, is not installed"
        yield Check("squashfs files", Verdict.PROBLEM, what, INSTALL)


def _sbom_library(repository: Repository) -> Iterator[Check]:
    """Check the libraries that write bills of materials, if an image is requested with them."""
    if not any(_requests(repository, name, sbom.OUTPUT) for name in repository.names()):
        return
    missing = sbom.missing_library()
    if missing:
        what = f"the Python package {missing} is missing, and an image has the output sbom"
        yield Check("bills of materials", Verdict.PROBLEM, what, sbom.INSTALL)
    else:
        yield Check("bills of materials", Verdict.GOOD, "their libraries are installed")


def _requests(repository: Repository, name: str, output: str) -> bool:
    try:
        publication = load_publication(repository, name)
    except InvalidRecord:
        return False  # `verify` reports it
    return publication is not None and output in publication.outputs


def _podman_store(repository: Repository) -> Iterator[Check]:
    """Compare the store, if there is one, with where clients mount the repository."""
    if not repository.exists(layout.PODMAN_STORE):
        return
    subject = "podman store"
    try:
        why = outdated(repository)
        mount = client_mount(repository)
    except InvalidRecord as error:
        yield Check(subject, Verdict.PROBLEM, f"{error.what}: {error.why}", error.hint)
        return
    if why:
        yield Check(subject, Verdict.PROBLEM, why, "publisher verify --repair")
    else:
        text = f"its links lead to {mount}; clients that mount the repository elsewhere cannot"
        yield Check(subject, Verdict.GOOD, f"{text} use it (publisher init --mount)")


def _examine_records(repository: Repository) -> Iterator[Check]:
    try:
        schedule, pins = load_schedule(repository), load_pins(repository)
        policy = load_policy(repository)
        layers, count, unreadable = _look_at_images(repository, schedule)
        unfinished = repository.unfinished()
    except InvalidRecord as error:
        yield Check("records", Verdict.PROBLEM, f"{error.what}: {error.why}", "publisher verify")
        return
    except NothingPublished as error:
        yield Check("records", Verdict.WARNING, f"{error.what}: {error.why}", error.hint)
        return
    except PublisherError as error:
        hint = error.hint or "publisher verify"
        yield Check("records", Verdict.PROBLEM, f"{error.what}: {error.why}", hint)
        return
    yield from _device_nodes(repository, policy)
    yield from _permissions(repository, layers)
    yield from _opaque_directories(repository, layers)
    yield from _podman_store(repository)
    yield from _squashfs_program(repository)
    yield from _sbom_library(repository)
    text = f"{plural(count, 'image')}, {len(schedule.entries)} scheduled, {len(pins.pins)} pinned"
    if unfinished:
        yield Check(
            "records",
            Verdict.WARNING,
            f"{text}; an interrupted transaction is unfinished",
            "publisher verify --repair, or any other command that writes",
        )
    elif not unreadable:
        yield Check("records", Verdict.GOOD, text)
    if unreadable:
        first = f"the first is {unreadable[0].name}: {unreadable[0].problem}"
        what = f"{len(unreadable)} of {count} images are unreadable; {first}"
        yield Check("records", Verdict.PROBLEM, what, "publisher verify")
