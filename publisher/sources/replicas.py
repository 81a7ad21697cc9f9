"""Which revision the replicas (Stratum 1) of a CVMFS repository serve, read over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from publisher.closing import Closing
from publisher.repository.cvmfs.signed_files import (
    MANIFEST_FILE,
    MAX_BYTES,
    WHITELIST_FILE,
    DamagedFile,
    UnsupportedHash,
    Whitelist,
    parse_manifest,
    split_letter,
)
from publisher.repository.cvmfs.trust import (
    MAX_CERTIFICATE_BYTES,
    Untrusted,
    check_manifest,
    check_whitelist,
    parse_public_key,
)
from publisher.sources.errors import SourceError
from publisher.sources.http.answer import BrokenBody
from publisher.sources.http.exchange import Exchange
from publisher.sources.replica_revision import (
    ReplicaError,
    ReplicaRevision,
    UntrustedReplica,
    UnusableKey,
)
from publisher.sources.settings import Settings
from publisher.times import utc_now

KEYS = Path("/etc/cvmfs/keys")
"""Where CVMFS keeps the public keys of repositories."""

SECONDS = 30.0
"""How long a replica may take to answer a request for one file, over all tries."""

# A cache on the way might return the manifest of an earlier revision.
_HEADERS = {"Cache-Control": "no-cache"}


def replica_address(text: str, name: str) -> str:
    """Return the address of the repository `name` on a replica.

    Args:
        text: An address such as "http://stratum1.example.org/cvmfs/images.example.org", or with
            "@fqrn@" or "@org@" as in CVMFS_SERVER_URL.
        name: The fully qualified name of the repository.

    Raises:
        ReplicaError: It is not an http or https address, or has a password.
    """
    url = text.replace("@fqrn@", name).replace("@org@", name.partition(".")[0]).rstrip("/")
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        hint = f"write http://stratum1.example.org/cvmfs/{name}"
        raise ReplicaError(text, why="it is not an http or https address", hint=hint)
    if parts.username or parts.password:
        raise ReplicaError(
            parts.hostname or "", why="its address has a user name or password, which logs contain"
        )
    return url


def read_public_keys(name: str, file: Path | None, directory: Path) -> tuple[RSAPublicKey, ...]:
    """Return the public master keys that may sign for the repository `name`; empty if unknown.

    Args:
        name: The fully qualified name of the repository.
        file: The file with the key; None to look into `directory`.
        directory: Where CVMFS keeps keys: NAME.pub, else DOMAIN.pub and DOMAIN/*.pub.

    Raises:
        UnusableKey: A file cannot be read, or is not an RSA public key in PEM form.
    """
    files = [file] if file is not None else _key_files(name, directory)
    return tuple(_read_key(each) for each in files)


def _key_files(name: str, directory: Path) -> list[Path]:
    own = directory / f"{name}.pub"
    if own.exists():
        return [own]
    domain = name.partition(".")[2]
    if not domain:
        return []
    shared = directory / f"{domain}.pub"
    return [*([shared] if shared.exists() else []), *sorted((directory / domain).glob("*.pub"))]


def _read_key(path: Path) -> RSAPublicKey:
    try:
        with path.open("rb") as file:
            return parse_public_key(file.read(MAX_BYTES))
    except OSError as error:
        raise UnusableKey(path, why=error.strerror or str(error)) from error
    except ValueError as error:
        raise UnusableKey(path, why=str(error)) from error


class Replica:
    """One replica. It may be read repeatedly, but by one thread at a time.

    Args:
        url: The address of the repository on the replica, from `replica_address`.
        name: The fully qualified name of the repository.
        keys: Its public master keys; without any, signatures are not checked.
        exchange: The connections.
        now: Returns the present moment, for the expiry of the whitelist.
    """

    def __init__(
        self,
        url: str,
        name: str,
        keys: Sequence[RSAPublicKey],
        exchange: Exchange,
        now: Callable[[], datetime],
    ) -> None:
        self.url = url
        self._name = name
        self._keys = keys
        self._exchange = exchange
        self._now = now
        self._checked: tuple[bytes, Whitelist] | None = None

    def read(self) -> ReplicaRevision:
        """Return the revision that it serves now.

        Raises:
            ReplicaError: It cannot be reached, or what it serves is damaged.
            UntrustedReplica: What it serves is of another repository, or not properly signed.
        """
        try:
            return self._read()
        except UnsupportedHash as error:
            raise ReplicaError(self.url, why=f"its files cannot be checked: {error}") from error
        except DamagedFile as error:
            raise ReplicaError(self.url, why=f"what it serves is damaged: {error}") from error
        except Untrusted as error:
            raise UntrustedReplica(
                self.url,
                why=str(error),
                hint="check the address, the public key (--public-key), and the replica: "
                "cvmfs_server check there",
            ) from error

    def _read(self) -> ReplicaRevision:
        data = self._fetch(MANIFEST_FILE, MAX_BYTES)
        letter = split_letter(data)
        manifest = parse_manifest(letter.text)
        if manifest.name != self._name:
            raise Untrusted(f"it serves the repository {manifest.name}, and not {self._name}")
        if self._keys and not self._is_checked(data):
            if not manifest.certificate:
                raise Untrusted("its manifest names no certificate")
            whitelist = check_whitelist(
                self._fetch(WHITELIST_FILE, MAX_BYTES), self._name, self._keys, self._now()
            )
            certificate = self._fetch(manifest.certificate_path, MAX_CERTIFICATE_BYTES)
            check_manifest(letter, manifest, certificate, whitelist)
            self._checked = data, whitelist
        return ReplicaRevision(self.url, manifest, verified=bool(self._keys))

    def _is_checked(self, data: bytes) -> bool:
        """Return whether this manifest was checked before, and its whitelist is still valid."""
        if self._checked is None:
            return False
        checked, whitelist = self._checked
        return checked == data and not whitelist.is_expired(self._now())

    def _fetch(self, path: str, limit: int) -> bytes:
        """Return a file of the replica, which has at most `limit` bytes."""
        url = f"{self.url}/{path}"
        deadline = self._exchange.deadline_after(SECONDS)
        try:
            with self._exchange.request("GET", url, deadline=deadline, headers=_HEADERS) as answer:
                if answer.status != 200:
                    why = f"{answer.place} answers with status {answer.status}"
                    raise ReplicaError(self.url, why=why)
                return answer.document(f"cannot fetch {answer.place}", limit)
        except ReplicaError:
            raise
        except SourceError as error:
            raise ReplicaError(self.url, why=f"{error.what}: {error.why}") from error
        except BrokenBody as error:
            raise ReplicaError(self.url, why=f"cannot fetch {url}: {error}") from error


class Replicas(Closing):
    """The replicas of one repository. It is a context manager, which closes all connections.

    Args:
        addresses: The addresses of the repository on the replicas: see `replica_address`.
        name: The fully qualified name of the repository.
        keys: Its public master keys; without any, signatures are not checked.
        settings: How hosts are reached: certificates and proxies.
        now: Returns the present moment.

    Raises:
        ReplicaError: An address cannot be used.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        name: str,
        keys: Sequence[RSAPublicKey],
        settings: Settings,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        urls = dict.fromkeys(replica_address(each, name) for each in addresses)
        self.name = name
        self._exchange = Exchange(settings, base_delay=0.5)
        self._replicas = {url: Replica(url, name, keys, self._exchange, now) for url in urls}
        self._readings: dict[str, Future[ReplicaRevision]] = {}

    @property
    def urls(self) -> tuple[str, ...]:
        """The address of the repository on each replica, without repetitions."""
        return tuple(self._replicas)

    def close(self) -> None:
        """Close all connections; requests that wait end with an error."""
        self._exchange.close()

    def read(
        self, urls: Sequence[str], seconds: float
    ) -> dict[str, ReplicaRevision | ReplicaError]:
        """Return what each of `urls` serves now, or why that is unknown.

        All are read at the same time. One that has not answered after `seconds` has an error.
        """
        end = time.monotonic() + seconds
        for url in urls:
            if url not in self._readings:
                self._readings[url] = _read_in_background(self._replicas[url])
        found: dict[str, ReplicaRevision | ReplicaError] = {}
        for url in urls:
            try:
                found[url] = self._readings[url].result(max(0.0, end - time.monotonic()))
            except TimeoutError:
                found[url] = ReplicaError(url, why="it has not answered yet")
                continue  # its answer is that of the next call
            except ReplicaError as error:
                found[url] = error
            del self._readings[url]
        return found


def _read_in_background(replica: Replica) -> Future[ReplicaRevision]:
    """Return the future result of `replica.read()`, which may still run when the process ends."""
    future: Future[ReplicaRevision] = Future()

    def run() -> None:
        try:
            future.set_result(replica.read())
        except Exception as error:  # noqa: BLE001 - the thread that takes the result raises it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
