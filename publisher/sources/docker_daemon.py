"""Images of a local container engine, over docker's API: `docker-daemon:`.

An engine gives an image only as a whole archive, so one request to it costs a whole image. What
resolves a name is therefore the image's ID, which it tells at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, TypeVar

import docker
import docker.errors
import docker.tls
import docker.utils
import urllib3.exceptions

from publisher.oci.descriptor import Descriptor
from publisher.oci.digest import is_digest
from publisher.oci.document import Document
from publisher.sources import ImageNotFound, Source, SourceError
from publisher.sources.archive import Archive, spool
from publisher.sources.docker_archive import open_docker_archive
from publisher.sources.registry.faults import describe
from publisher.sources.settings import EngineTLS

ID_TIMEOUT = 60
"""Seconds without an answer to a question."""
SAVE_TIMEOUT = 900
"""Seconds without an answer: engines write a whole image to disk before they send it."""
CHUNK = 1024 * 1024

_T = TypeVar("_T")


class EngineSource:
    """One image of an engine. Safe to use from several threads.

    While the engine is waited for, `check` is called now and then: what it raises ends the wait.
    """

    def __init__(
        self, name: str, host: str, tls: EngineTLS | None, check: Callable[[], None]
    ) -> None:
        self._name = name
        self._host = host
        self._tls = tls
        self._check = check
        self._lock = threading.Lock()
        self._saved: Source | None = None
        self._image_id = ""

    def resolve(self) -> str:
        """The image's ID: the digest of its config, or of its manifest in newer engines."""
        what = f"cannot ask the engine for {self._name}"
        try:
            image_id = self._wait_for(self._ask_id)
        except docker.errors.ImageNotFound:
            raise ImageNotFound(
                f"no image {self._name} in the engine", why="it says that there is no such image"
            ) from None
        except _FAULTS as error:
            raise self._failed(what, error) from None
        if not isinstance(image_id, str) or not is_digest(image_id):
            raise SourceError(what, why="its answer holds no image ID")
        return image_id

    def manifest(self, digest: str | None = None) -> Document:
        """The manifest in the engine's archive; the image's ID names it too."""
        saved = self._open()
        if digest == self._image_id:
            return saved.manifest()
        return saved.manifest(digest)

    def fetch(self, descriptor: Descriptor) -> bytes:
        """A small blob, whole and verified."""
        return self._open().fetch(descriptor)

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """A blob in chunks."""
        return self._open().blob(descriptor)

    def tags(self) -> Iterator[str]:
        """The tags that the engine has for images of this name."""
        raise SourceError(
            f"cannot list the tags of {self._name}", why="engines' images are named one by one"
        )

    def _open(self) -> Source:
        """The image in an archive, which the engine is asked for once."""
        with self._lock:
            if self._saved is None:
                self._image_id = self.resolve()
                self._saved = self._save()
            return self._saved

    def _save(self) -> Source:
        what = f"cannot fetch {self._name} from the engine"
        try:
            content = self._wait_for(self._ask_archive)
        except _FAULTS as error:
            raise self._failed(what, error) from None
        name = f"docker-daemon:{self._name}"
        source = open_docker_archive(Archive(name, Path(name), content), self._name)
        if self.resolve() != self._image_id:
            raise SourceError(what, why="its tag moved while it was fetched", hint="run again")
        return source

    def _ask_id(self) -> object:
        with self._client(ID_TIMEOUT) as client:
            return client.inspect_image(self._name)["Id"]

    def _ask_archive(self) -> IO[bytes]:
        with self._client(SAVE_TIMEOUT) as client:
            return spool(client.get_image(self._name, chunk_size=CHUNK))

    def _wait_for(self, ask: Callable[[], _T]) -> _T:
        """What `ask` returns or raises, in a thread that holds nothing up if we wait no longer."""
        answer: Future[_T] = Future()

        def run() -> None:
            try:
                answer.set_result(ask())
            except Exception as error:  # noqa: BLE001  # passed on, whatever it is
                answer.set_exception(error)

        threading.Thread(target=run, name="engine", daemon=True).start()
        while not wait([answer], timeout=0.2).done:
            self._check()
        return answer.result()

    def _client(self, timeout: int) -> docker.APIClient:
        """A connection to the engine; making one reads docker's own configuration as well."""
        self._check_address()
        try:
            return _Client(
                base_url=self._host or None,
                version="auto",
                timeout=timeout,
                tls=_tls_config(self._tls) if self._tls else False,
            )
        except docker.errors.TLSParameterError:
            assert self._tls is not None
            raise SourceError(
                f"cannot ask the engine for {self._name}",
                why=f"{self._tls.folder} does not hold cert.pem, key.pem, and the engine's ca.pem",
                hint="look at DOCKER_CERT_PATH",
            ) from None
        except ValueError:
            raise SourceError(
                f"cannot ask the engine for {self._name}",
                why="docker's own configuration, or the engine's address, cannot be understood",
                hint="look at ~/.docker/config.json and DOCKER_HOST",
            ) from None

    def _check_address(self) -> None:
        """Refuse an address that docker's client does not read, or reads with other programs."""
        try:
            address = docker.utils.parse_host(self._host or None)
        except docker.errors.DockerException:
            address = ""
        if not address.startswith(("http+unix://", "http://", "https://")):
            raise SourceError(
                f"cannot ask the engine for {self._name}",
                why="its address is none that we can use",
                hint="set DOCKER_HOST to unix:///PATH or tcp://HOST:PORT",
            )

    def _failed(self, what: str, error: Exception) -> SourceError:
        if isinstance(error, docker.errors.APIError):
            return SourceError(what, why=f"the engine says: {error.explanation or error}")
        hint = "is it running, and may we use its socket?"
        if self._tls is not None:
            hint = f"is it running, and are the certificates in {self._tls.folder} those for it?"
        return SourceError(what, why=describe(error), hint=hint)


class _Client(docker.APIClient):  # type: ignore[misc]  # docker has no types
    """docker's client, but for a machine's REQUESTS_CA_BUNDLE: it does not sign engines."""

    def merge_environment_settings(
        self, url: str, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        verify = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)


def _tls_config(tls: EngineTLS) -> docker.tls.TLSConfig:
    return docker.tls.TLSConfig(
        client_cert=(str(tls.folder / "cert.pem"), str(tls.folder / "key.pem")),
        ca_cert=str(tls.folder / "ca.pem"),
        verify=tls.verify,
    )


_FAULTS = (docker.errors.DockerException, OSError, urllib3.exceptions.HTTPError)
