"""The checks of `publisher doctor` for publishing to a CVMFS repository."""

from __future__ import annotations

import getpass
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from publisher.repository import RepositoryError
from publisher.repository.checks import Check, Verdict
from publisher.repository.cvmfs.configuration import Configuration
from publisher.repository.cvmfs.progress import mount_holders
from publisher.repository.cvmfs.server import Server, holders_of, version
from publisher.repository.cvmfs.signed_files import WHITELIST_FILE, DamagedFile, parse_whitelist
from publisher.repository.disk import free_bytes
from publisher.tree import layout

OLDEST_VERSION = (2, 11)
"""The first version that accepts `ingest -t - -k` with deletions."""

_LITTLE_SPACE = 20 * 10**9
_SOON_SECONDS = 7 * 86400
_LARGEST_CATALOG = 200_000
_SKEW_SECONDS = 300


def check_machine(configuration: Configuration, state: Path) -> Iterator[Check]:
    """Yield the result of each check. `state` is the directory of the metadata mirror."""
    name = configuration.name
    yield _check_version()
    if shutil.which("cvmfs_server") is None:
        return
    yield _check_owner(configuration)
    yield _check_mount(configuration)
    yield _check_transaction(configuration)
    yield _check_users(configuration)
    yield _check_namespaces(configuration)
    for what, place in (("the publisher's state", state), ("the server", configuration.spool)):
        yield _check_space(what, place)
    yield _check_union(configuration)
    yield from _check_keys(configuration)
    yield _check_revision(configuration)
    if configuration.settings.get("CVMFS_AUTO_TAG", "true") == "true" and not (
        configuration.settings.get("CVMFS_AUTO_TAG_TIMESPAN")
    ):
        yield Check(
            "automatic tags",
            Verdict.WARNING,
            "every revision gets a tag that is kept forever",
            f"set CVMFS_AUTO_TAG=false, or CVMFS_AUTO_TAG_TIMESPAN='2 weeks ago', in the "
            f"server.conf of {name}",
        )


def largest_catalogs(mount: Path) -> Iterator[Check]:
    """Check the size of the catalogs of top directories and shards; others are limited."""
    worst, count = "", 0
    for top in (layout.METADATA, layout.LAYERS, layout.FLAT):
        try:
            shards = [mount / top, *(p for p in (mount / top).iterdir() if len(p.name) == 2)]
        except OSError:
            continue
        for directory in shards:
            entries = len(os.listdir(directory))
            if entries > count:
                worst, count = str(directory), entries
    if count > _LARGEST_CATALOG:
        yield Check(
            "catalogs",
            Verdict.WARNING,
            f"{worst} has {count} entries in one catalog, more than {_LARGEST_CATALOG}",
            "remove images that no wish list requests: publisher prune, publisher gc",
        )
    else:
        yield Check("catalogs", Verdict.GOOD, f"the fullest directory has {count} entries")


def _check_version() -> Check:
    found = version()
    if found is None:
        return Check(
            "cvmfs_server",
            Verdict.PROBLEM,
            "cvmfs_server is missing on this machine, or prints no version",
            "install the package cvmfs-server",
        )
    text = ".".join(map(str, found))
    if found < OLDEST_VERSION:
        return Check(
            "cvmfs_server",
            Verdict.PROBLEM,
            f"version {text} does not accept an image in one stream with its owners",
            "upgrade cvmfs-server to 2.11 or later",
        )
    return Check("cvmfs_server", Verdict.GOOD, f"version {text}")


def _check_owner(configuration: Configuration) -> Check:
    if configuration.may_publish():
        return Check("ownership", Verdict.GOOD, f"it belongs to user {configuration.owner}")
    return Check(
        "ownership",
        Verdict.PROBLEM,
        f"it belongs to user {configuration.owner}, and this process runs as another user",
        f"publish as its owner: sudo -u {configuration.owner} publisher …",
    )


def _check_mount(configuration: Configuration) -> Check:
    mount = configuration.mount
    if configuration.is_mounted:
        return Check("mount", Verdict.GOOD, f"it can be read at {mount}")
    return Check(
        "mount",
        Verdict.WARNING,
        f"nothing is mounted at {mount}; the metadata mirror is read instead",
        f"cvmfs_server mount {configuration.name}",
    )


def _check_transaction(configuration: Configuration) -> Check:
    name = configuration.name
    try:
        listed = Server(configuration).list_state()
    except RepositoryError as error:
        return Check("server", Verdict.PROBLEM, error.why, error.hint)
    if "unhealthy" in listed:
        return Check(
            "server",
            Verdict.PROBLEM,
            f"the repository is {listed.partition(' - ')[2]}",
            f"if no other publisher is running: cvmfs_server abort -f {name}",
        )
    if "whitelist" in listed:
        return Check(
            "server", Verdict.PROBLEM, listed.partition(" - ")[2], f"cvmfs_server resign {name}"
        )
    if "in transaction" in listed:
        return Check(
            "server",
            Verdict.WARNING,
            "a transaction is open; publishing waits for it",
            f"cvmfs_server publish {name}, or cvmfs_server abort {name}",
        )
    return Check("server", Verdict.GOOD, f"ready ({listed})")


def _check_users(configuration: Configuration) -> Check:
    holders = holders_of(configuration.union)
    if holders:
        return Check(
            "users of the mount",
            Verdict.WARNING,
            "; ".join(holders[:5]),
            "end them: the server does not publish while the mounted repository is in use",
        )
    return Check("users of the mount", Verdict.GOOD, "none that this user can see")


def _check_namespaces(configuration: Configuration) -> Check:
    holders = mount_holders(configuration)
    if holders:
        return Check(
            "mount namespaces",
            Verdict.WARNING,
            "; ".join(holders[:5]),
            "end them before the next publication, whose remount may wait for them",
        )
    return Check("mount namespaces", Verdict.GOOD, "no other one that this user can see")


def _check_space(what: str, place: Path) -> Check:
    title = f"space for {what}"
    existing = next(path for path in (place, *place.parents) if path.exists())
    free = free_bytes(existing)
    text = f"{free / 1e9:.1f} GB at {place}"
    if not os.access(existing, os.W_OK):
        return Check(
            title,
            Verdict.PROBLEM,
            f"{existing} is not writable by user {getpass.getuser()}",
            f"install -d -o OWNER {place}, or set PUBLISHER_STATE",
        )
    if free < _LITTLE_SPACE:
        return Check(
            title,
            Verdict.WARNING,
            f"only {text}; the compressed layers of an image have to fit",
            "free space, or set PUBLISHER_STATE to a directory on a larger disk",
        )
    return Check(title, Verdict.GOOD, text)


def _check_union(configuration: Configuration) -> Check:
    kind = configuration.settings.get("CVMFS_UNION_FS_TYPE", "")
    if kind in ("overlayfs", ""):
        return Check("union file system", Verdict.GOOD, kind or "the server's default")
    return Check(
        "union file system",
        Verdict.WARNING,
        f"{kind} is untested, and slow at removing names",
        "create repositories with overlayfs: cvmfs_server mkfs -f overlayfs",
    )


def _check_keys(configuration: Configuration) -> Iterator[Check]:
    try:
        until = parse_whitelist(configuration.fetch(WHITELIST_FILE)).expires
    except (RepositoryError, DamagedFile) as error:
        yield Check(
            "whitelist",
            Verdict.PROBLEM,
            f"it cannot be read: {error}",
            f"cvmfs_server resign {configuration.name}",
        )
        return
    left = until.timestamp() - time.time()
    verdict = (
        Verdict.PROBLEM if left < 0 else Verdict.WARNING if left < _SOON_SECONDS else Verdict.GOOD
    )
    cure = "" if verdict is Verdict.GOOD else f"cvmfs_server resign {configuration.name}"
    yield Check("whitelist", verdict, f"valid until {until:%Y-%m-%d %H:%M} UTC", cure)


def _check_revision(configuration: Configuration) -> Check:
    try:
        published = configuration.published()
    except RepositoryError as error:
        return Check("storage", Verdict.PROBLEM, error.why, error.hint)
    if published.published_at.timestamp() > time.time() + _SKEW_SECONDS:
        return Check(
            "clock",
            Verdict.WARNING,
            f"revision {published.revision} was published in the future: the clock is slow",
            "set the clock (chronyc makestep)",
        )
    return Check("storage", Verdict.GOOD, f"revision {published.revision}; the clock is right")
