"""The client of a container engine with Docker's API: look up, save, load and push images.

An engine reports a failed load or push in a line of an answer with status 200, so that each line is
parsed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import IO, Any, TypeVar

import docker
import docker.errors
import docker.tls
import docker.utils
import urllib3.exceptions

from publisher.oci.digest import is_digest
from publisher.sources import ImageNotFound, SourceError
from publisher.sources.http.faults import describe
from publisher.sources.settings import EngineTLS
from publisher.sources.spool import spool

LOOKUP_TIMEOUT = 60
"""The time-out of a lookup in seconds."""
LOAD_TIMEOUT = 300
"""The time-out of a load or push in seconds without an answer."""
SAVE_TIMEOUT = 900
"""The time-out of a save in seconds; the engine writes the whole image to disk first."""
CHUNK = 1024 * 1024

_T = TypeVar("_T")


class Engine:
    """One engine. Safe to use from several threads.

    Args:
        host: The address of the engine, as in `DOCKER_HOST`; "" for the default socket.
        tls: The certificates for an engine that is reached by TLS.
        check: Called several times a second while waiting for the engine; an exception from it
            ends the wait.
    """

    def __init__(self, host: str, tls: EngineTLS | None, check: Callable[[], None]) -> None:
        self._host = host
        self._tls = tls
        self._check = check

    def image_id(self, name: str) -> str:
        """Return the ID of the image `name`: the digest of its config, or of its manifest.

        Raises:
            ImageNotFound: The engine has no such image.
            SourceError: The engine cannot be reached, or its answer has no ID.
        """
        what = f"cannot look up {name} in the engine"
        try:
            found = self._run(what, LOOKUP_TIMEOUT, lambda api: api.inspect_image(name))
        except docker.errors.ImageNotFound:
            raise ImageNotFound(what, why="it has no such image") from None
        image_id = found.get("Id") if isinstance(found, dict) else None
        if not isinstance(image_id, str) or not is_digest(image_id):
            raise SourceError(what, why="its answer has no image ID")
        return image_id

    def save(self, name: str) -> IO[bytes]:
        """Return the archive of the image `name`, as `docker save` writes it, in a temporary file.

        Raises SourceError where the engine cannot be reached or refuses.
        """
        return self._run(
            f"cannot fetch {name} from the engine",
            SAVE_TIMEOUT,
            lambda api: spool(api.get_image(name, chunk_size=CHUNK)),
        )

    def load(self, archive: bytes, name: str) -> None:
        """Load an archive, as `docker load` does; `name` is the image's, for messages.

        Raises SourceError where the engine cannot be reached or refuses.
        """
        self._run(
            f"cannot load {name} into the engine",
            LOAD_TIMEOUT,
            lambda api: _check_lines(api.load_image(archive)),
        )

    def push(self, repository: str, tag: str) -> None:
        """Push `repository`:`tag` to its registry with the engine and its credentials.

        Raises SourceError where the engine cannot be reached, or reports a failure.
        """
        self._run(
            f"cannot push {repository}:{tag} through the engine",
            LOAD_TIMEOUT,
            lambda api: _check_lines(api.push(repository, tag, stream=True, decode=True)),
        )

    def _run(self, what: str, timeout: int, action: Callable[[docker.APIClient], _T]) -> _T:
        """Return the result of `action`; convert its failures except NotFound to SourceErrors."""

        def run() -> _T:
            with self._client(what, timeout) as api:
                return action(api)

        try:
            return self._wait_for(run)
        except docker.errors.ImageNotFound:
            raise
        except _Refused as error:
            raise SourceError(what, why=f"the engine reports: {error}") from None
        except (docker.errors.DockerException, OSError, urllib3.exceptions.HTTPError) as error:
            raise self._failed(what, error) from None

    def _wait_for(self, action: Callable[[], _T]) -> _T:
        """Run `action` in a separate thread, which continues if the wait is ended."""
        answer: Future[_T] = Future()

        def run() -> None:
            try:
                answer.set_result(action())
            except Exception as error:  # noqa: BLE001  # raised again in the waiting thread
                answer.set_exception(error)

        threading.Thread(target=run, name="engine", daemon=True).start()
        while not wait([answer], timeout=0.2).done:
            self._check()
        return answer.result()

    def _client(self, what: str, timeout: int) -> docker.APIClient:
        """Connect to the engine. Docker's client also reads docker's configuration."""
        self._check_address(what)
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
                what,
                why=f"{self._tls.directory} does not contain ca.pem, cert.pem and key.pem",
                hint="set DOCKER_CERT_PATH to the directory with these files",
            ) from None
        except ValueError:
            raise SourceError(
                what,
                why="docker's own configuration, or the engine's address, cannot be parsed",
                hint="correct ~/.docker/config.json, or DOCKER_HOST",
            ) from None

    def _check_address(self, what: str) -> None:
        """Refuse an address that docker's client cannot use, or for which it runs a program."""
        try:
            address = docker.utils.parse_host(self._host or None)
        except docker.errors.DockerException:
            address = ""
        if not address.startswith(("http+unix://", "http://", "https://")):
            raise SourceError(
                what,
                why="the engine's address is not supported",
                hint="set DOCKER_HOST to unix:///PATH or tcp://HOST:PORT",
            )

    def _failed(self, what: str, error: Exception) -> SourceError:
        if isinstance(error, docker.errors.APIError):
            return SourceError(what, why=f"the engine reports: {error.explanation or error}")
        address = self._host or "unix:///var/run/docker.sock"
        hint = f"check that an engine listens at {address}, and that this user may connect to it"
        if self._tls is not None:
            hint += f", and that {self._tls.directory} contains its certificates"
        return SourceError(what, why=describe(error), hint=hint)


class _Refused(Exception):
    """A line of an answer that reports a failure."""


def _check_lines(lines: Iterable[Any]) -> None:
    for line in lines:
        if isinstance(line, dict) and ("error" in line or "errorDetail" in line):
            detail = line.get("errorDetail")
            message = detail.get("message") if isinstance(detail, dict) else None
            raise _Refused(str(message or line.get("error")))


class _Client(docker.APIClient):  # type: ignore[misc]  # docker has no types
    """Docker's client, which ignores REQUESTS_CA_BUNDLE: it is not for engines."""

    def merge_environment_settings(
        self, url: str, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        verify = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)


def _tls_config(tls: EngineTLS) -> docker.tls.TLSConfig:
    return docker.tls.TLSConfig(
        client_cert=(str(tls.directory / "cert.pem"), str(tls.directory / "key.pem")),
        ca_cert=str(tls.directory / "ca.pem"),
        verify=tls.verify,
    )
