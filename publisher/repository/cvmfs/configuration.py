"""The server's configuration files of a repository, and its signed manifest in the storage.

This module does not run `cvmfs_server`.
"""

from __future__ import annotations

import getpass
import os
import pwd
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from publisher.lazy import dataclass
from publisher.repository import RepositoryError
from publisher.repository.cvmfs.places import CONFIGURATION
from publisher.repository.cvmfs.signed_files import (
    MANIFEST_FILE,
    DamagedFile,
    RepositoryManifest,
    parse_manifest,
)

_FETCH_SECONDS = 30
_MOST_BYTES = 1 << 20
_ROOT_HASH = "user.root_hash"


@dataclass(frozen=True, slots=True)
class Owner:
    """The numeric owner of the directories and records that the publisher creates."""

    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Configuration:
    """A repository's server.conf, as `cvmfs_server mkfs` writes it.

    `union` is the mount that is writable during transactions, `spool` the working directory of the
    server, `stratum0` the URL of the storage, and `upstream` the access of the server to the
    storage ("local,…", "gw,…", "S3,…").
    """

    name: str
    owner: str
    union: Path
    spool: Path
    stratum0: str
    upstream: str
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_gateway(self) -> bool:
        """Whether changes go through a gateway, which several publishers share."""
        return self.upstream.startswith("gw,")

    @property
    def mount(self) -> Path:
        """The read-only mount of the published tree below the spool, or else the union mount."""
        read_only = self.spool / "rdonly"
        try:
            read_only.lstat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return self.union
        except OSError:
            pass  # its client has ended, so that the union mount cannot be read either
        return read_only

    @property
    def is_mounted(self) -> bool:
        """Whether the published tree can be read at `mount`."""
        try:
            return any(self.mount.iterdir())
        except OSError:
            return False

    @property
    def lock(self) -> Path:
        """The file that exists while a transaction is open."""
        return self.spool / "in_transaction.lock"

    def mounted_hash(self) -> str:
        """Return the root hash of the mounted revision, from the client; "" if unknown."""
        try:
            return os.getxattr(self.mount, _ROOT_HASH).decode().strip("\0\n ")
        except (OSError, ValueError):
            return ""

    def owner_ids(self) -> Owner:
        """Return the IDs of the repository's owner; those of this process if it is unknown."""
        try:
            found = pwd.getpwnam(self.owner)
        except KeyError:
            return Owner(os.geteuid(), os.getegid())
        return Owner(found.pw_uid, found.pw_gid)

    def may_publish(self) -> bool:
        """Return whether this process may publish: the server requires the owner, or root."""
        return os.geteuid() == 0 or os.geteuid() == self.owner_ids().uid

    def require_owner(self) -> None:
        """Raise RepositoryError, with the user who may publish, unless this process may."""
        if not self.may_publish():
            raise RepositoryError(
                f"cannot publish to cvmfs:{self.name}",
                why=f"it belongs to user {self.owner}, and this process runs as "
                f"{getpass.getuser()}",
                hint=f"publish as its owner: sudo -u {self.owner} publisher …",
            )

    def published(self) -> RepositoryManifest:
        """Return the published revision, read from the storage.

        Raises:
            RepositoryError: The storage is unreachable, or its manifest is malformed.
        """
        try:
            return parse_manifest(self.fetch(MANIFEST_FILE))
        except DamagedFile as error:
            raise RepositoryError(
                f"cannot determine the revision of cvmfs:{self.name}",
                why=f"{self.stratum0}/{MANIFEST_FILE} is malformed: {error}",
                hint=f"run cvmfs_server check {self.name}",
            ) from error

    def fetch(self, file: str) -> bytes:
        """Return a small file of the repository's storage, such as `.cvmfswhitelist`.

        Raises:
            RepositoryError: The storage is unreachable.
        """
        kind, _, rest = self.upstream.partition(",")
        local = Path(rest.rpartition(",")[2]) / file
        try:
            if kind == "local" and local.exists():
                return local.read_bytes()
            import urllib.request  # long to load, and most storages are local

            # No proxy: it might return a cached file.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"{self.stratum0}/{file}", timeout=_FETCH_SECONDS) as response:
                return bytes(response.read(_MOST_BYTES))
        except (OSError, ValueError) as error:
            raise RepositoryError(
                f"cannot reach the storage of cvmfs:{self.name}",
                why=f"{self.stratum0}/{file}: {error}",
                hint=f"check CVMFS_STRATUM0 in its server.conf, and the web server behind it; "
                f"try: curl -sI {self.stratum0}/{file}",
            ) from error


def load_configuration(name: str, directory: Path = CONFIGURATION) -> Configuration:
    """Return the configuration of the repository `name`.

    Raises:
        RepositoryError: This machine does not publish the repository, or its server.conf cannot be
            read.
    """
    file = directory / name / "server.conf"
    try:
        text = file.read_text()
    except FileNotFoundError as error:
        known = sorted(path.parent.name for path in directory.glob("*/server.conf"))
        raise RepositoryError(
            f"cannot use cvmfs:{name}",
            why=f"this machine does not publish that repository ({file} is missing)",
            hint=f"known here: {', '.join(known)}"
            if known
            else f"create it: cvmfs_server mkfs -o OWNER {name}",
        ) from error
    except OSError as error:
        raise RepositoryError(
            f"cannot use cvmfs:{name}", why=f"{file}: {error.strerror}"
        ) from error
    settings = _parse_settings(text)
    if settings.get("CVMFS_REPOSITORY_TYPE", "stratum0") != "stratum0":
        raise RepositoryError(
            f"cannot publish to cvmfs:{name}",
            why="this machine has a replica (Stratum 1) of it",
            hint="publish on its Stratum 0, or on a machine with a gateway key",
        )
    return Configuration(
        name,
        owner=settings.get("CVMFS_USER", "root"),
        union=Path(settings.get("CVMFS_UNION_DIR", f"/cvmfs/{name}")),
        spool=Path(settings.get("CVMFS_SPOOL_DIR", f"/var/spool/cvmfs/{name}")),
        stratum0=settings.get("CVMFS_STRATUM0", f"http://localhost/cvmfs/{name}").rstrip("/"),
        upstream=settings.get("CVMFS_UPSTREAM_STORAGE", ""),
        settings=settings,
    )


def _parse_settings(text: str) -> dict[str, str]:
    settings = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            settings[key] = value.strip("\"'")
    return settings
