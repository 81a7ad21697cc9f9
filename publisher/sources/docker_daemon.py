"""Images of a container engine: `docker-daemon:`.

An engine returns an image only as a whole archive. A name is therefore resolved to the image's ID,
which needs only a short request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from publisher.oci.descriptor import Descriptor
from publisher.oci.document import Document
from publisher.sources import Source, SourceError
from publisher.sources.archive import Archive
from publisher.sources.docker_archive import open_docker_archive
from publisher.sources.engine import Engine


class EngineSource:
    """One image of an engine. Safe to use from several threads."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._lock = threading.Lock()
        self._saved: Source | None = None
        self._image_id = ""

    def resolve(self) -> str:
        """Return the image's ID."""
        return self._engine.image_id(self._name)

    def manifest(self, digest: str | None = None) -> Document:
        """Return the manifest in the engine's archive; `digest` may be the image's ID."""
        saved = self._open()
        return saved.manifest(None if digest == self._image_id else digest)

    def fetch(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, verified."""
        return self._open().fetch(descriptor)

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Return a blob in chunks."""
        return self._open().blob(descriptor)

    def tags(self) -> Iterator[str]:
        """Raise SourceError, since the tags of engines are not listed."""
        raise SourceError(
            f"cannot list the tags of {self._name}",
            why="tags are listed from registries and layouts, not from engines",
        )

    def _open(self) -> Source:
        """Return the image in an archive, which is requested from the engine once."""
        with self._lock:
            if self._saved is None:
                self._image_id = self.resolve()
                self._saved = self._save()
            return self._saved

    def _save(self) -> Source:
        content = self._engine.save(self._name)
        name = f"docker-daemon:{self._name}"
        source = open_docker_archive(Archive(name, Path(name), content), self._name)
        if self.resolve() != self._image_id:
            raise SourceError(
                f"cannot fetch {self._name} from the engine",
                why="its tag moved during the download",
                hint="run again",
            )
        return source
