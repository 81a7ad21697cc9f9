"""What the server's own files say of a repository; nothing is asked of the server."""

from __future__ import annotations

import getpass
import os
import pwd
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from publisher.repository import RepositoryError
from publisher.repository.cvmfs.stream import Owner

CONFIGURATION = Path("/etc/cvmfs/repositories.d")
_FETCH_SECONDS = 30
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Published:
    """What is published: the number of its revision, and the root catalog's hash."""

    revision: int
    root_hash: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """A repository's server.conf, as `cvmfs_server mkfs` writes it.

    `mount` is where the repository is mounted, `spool` the server's working space, `stratum0` the
    URL of its storage, `upstream` how the server reaches it ("local,…", "gw,…", "S3,…").
    """

    name: str
    owner: str
    mount: Path
    spool: Path
    stratum0: str
    upstream: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def is_gateway(self) -> bool:
        """Whether changes go through a gateway, which several publishers share."""
        return self.upstream.startswith("gw,")

    @property
    def is_mounted(self) -> bool:
        """Whether what is published can be read at `mount`."""
        return self.mount.is_dir() and any(self.mount.iterdir())

    @property
    def lock(self) -> Path:
        """The file that is there while a transaction is open."""
        return self.spool / "in_transaction.lock"

    def mounted_hash(self) -> str:
        """The root hash of what is mounted, which the server pins; "" where it does not say."""
        try:
            lines = (self.spool / "client.local").read_text().splitlines()
        except FileNotFoundError:
            return ""
        pinned = [line.partition("=")[2] for line in lines if line.startswith("CVMFS_ROOT_HASH=")]
        return pinned[-1].strip("\"'") if pinned else ""

    def owner_ids(self) -> Owner:
        """The numbers of the repository's owner; ours where it is not known here."""
        try:
            found = pwd.getpwnam(self.owner)
        except KeyError:
            return Owner(os.geteuid(), os.getegid())
        return Owner(found.pw_uid, found.pw_gid)

    def is_ours(self) -> bool:
        """Whether we may publish: the server asks for its owner, or root."""
        return os.geteuid() == 0 or os.geteuid() == self.owner_ids().uid

    def require_ours(self) -> None:
        """Raise RepositoryError, saying who may publish, unless we may."""
        if not self.is_ours():
            raise RepositoryError(
                f"cannot publish to cvmfs:{self.name}",
                why=f"it belongs to {self.owner}, and we are {getpass.getuser()}",
                hint=f"publish as its owner: sudo -u {self.owner} publisher …",
            )

    def published(self) -> Published:
        """Which revision is published now, from the storage itself."""
        text = self.fetch(".cvmfspublished").partition(b"\n--")[0]
        fields = {line[:1]: line[1:].decode() for line in text.splitlines()}
        try:
            return Published(int(fields[b"S"]), fields[b"C"])
        except (KeyError, ValueError) as error:
            raise RepositoryError(
                f"cannot tell the revision of cvmfs:{self.name}",
                why=f"{self.stratum0}/.cvmfspublished is malformed",
                hint=f"run cvmfs_server check {self.name}",
            ) from error

    def fetch(self, file: str) -> bytes:
        """A small file of the repository's storage, such as `.cvmfswhitelist`."""
        kind, _, rest = self.upstream.partition(",")
        local = Path(rest.rpartition(",")[2]) / file
        try:
            if kind == "local" and local.exists():
                return local.read_bytes()
            # The storage is asked directly: a proxy would give what was.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"{self.stratum0}/{file}", timeout=_FETCH_SECONDS) as answer:
                return bytes(answer.read(_MOST_BYTES))
        except (OSError, urllib.error.URLError, ValueError) as error:
            raise RepositoryError(
                f"cannot reach the storage of cvmfs:{self.name}",
                why=f"{self.stratum0}/{file}: {error}",
                hint=f"check CVMFS_STRATUM0 in its server.conf, and the web server behind it; "
                f"try: curl -sI {self.stratum0}/{file}",
            ) from error


def load_configuration(name: str, directory: Path = CONFIGURATION) -> Configuration:
    """The configuration of the repository `name`; RepositoryError where it is none of ours."""
    file = directory / name / "server.conf"
    try:
        text = file.read_text()
    except FileNotFoundError as error:
        known = sorted(path.parent.name for path in directory.glob("*/server.conf"))
        raise RepositoryError(
            f"cannot use cvmfs:{name}",
            why=f"this machine publishes no such repository ({file} is missing)",
            hint=f"known here: {', '.join(known)}"
            if known
            else f"make it: cvmfs_server mkfs -o OWNER {name}",
        ) from error
    except OSError as error:
        raise RepositoryError(
            f"cannot use cvmfs:{name}", why=f"{file}: {error.strerror}"
        ) from error
    settings = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            settings[key] = value.strip("\"'")
    if settings.get("CVMFS_REPOSITORY_TYPE", "stratum0") != "stratum0":
        raise RepositoryError(
            f"cannot publish to cvmfs:{name}",
            why="this machine has a replica (Stratum 1) of it",
            hint="publish on its Stratum 0, or on a machine with a gateway key",
        )
    return Configuration(
        name,
        owner=settings.get("CVMFS_USER", "root"),
        mount=Path(settings.get("CVMFS_UNION_DIR", f"/cvmfs/{name}")),
        spool=Path(settings.get("CVMFS_SPOOL_DIR", f"/var/spool/cvmfs/{name}")),
        stratum0=settings.get("CVMFS_STRATUM0", f"http://localhost/cvmfs/{name}").rstrip("/"),
        upstream=settings.get("CVMFS_UPSTREAM_STORAGE", ""),
        settings=settings,
    )
