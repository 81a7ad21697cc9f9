"""Read a layer blob: check its bytes, and decompress it in a thread.

Size and digest are checked where the blob arrives (`checked`), and the diff ID where it is
decompressed (`BlobReader`), which may be another process.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import TracebackType

from publisher.errors import DigestMismatch
from publisher.layers.decompress import PIECE, decompress
from publisher.layers.errors import LayerError, LimitExceeded
from publisher.log_context import in_this_context
from publisher.oci.descriptor import Descriptor
from publisher.oci.digest import digest_algorithm

_QUEUED_BYTES = 4 * 2**20


def checked(chunks: Iterable[bytes], descriptor: Descriptor) -> Iterator[bytes]:
    """Yield the chunks of a blob; at its end check its size and digest.

    Args:
        chunks: The blob. No chunk is read after `descriptor.size` bytes.
        descriptor: The layer in the manifest.

    Raises:
        DigestMismatch: The blob does not have the digest of `descriptor`.
        LayerError: It does not have the size of `descriptor`.
        Exception: Whatever `chunks` raise.
    """
    layer = f"layer {descriptor.digest}"
    blob_hash = hashlib.new(digest_algorithm(descriptor.digest))
    received = 0
    iterator = iter(chunks)
    while received < descriptor.size:
        chunk = next(iterator, None)
        if chunk is None:
            break
        received += len(chunk)
        if received > descriptor.size:
            raise LayerError(
                f"cannot unpack {layer}",
                why=f"the blob is longer than the manifest's {descriptor.size} bytes",
            )
        blob_hash.update(chunk)
        if chunk:
            yield chunk
    actual = f"{blob_hash.name}:{blob_hash.hexdigest()}"
    if actual != descriptor.digest:
        missing = descriptor.size - received
        raise DigestMismatch(
            f"{layer} arrived damaged",
            expected=descriptor.digest,
            actual=actual,
            hint=f"{missing} bytes are missing at its end" if missing else "",
        )
    if received != descriptor.size:
        raise LayerError(
            f"cannot unpack {layer}",
            why=f"it has {received} bytes, not the manifest's {descriptor.size}",
        )


class BlobReader:
    """The archive inside a layer blob, as blocks; read and decompressed in a thread.

    It is a context manager, which ends the thread. The thread iterates over `chunks`, which are
    those of `checked`. An archive of more than `max_bytes` raises LimitExceeded. `layer` is the
    name of the layer in errors. If `diff_id` is None, the caller checks what it reads.
    """

    def __init__(
        self, chunks: Iterable[bytes], layer: str, diff_id: str | None, max_bytes: int
    ) -> None:
        self._chunks = iter(chunks)
        self._diff_id = diff_id
        self._max_bytes = max_bytes
        self._what = layer
        self._diff_hash = None if diff_id is None else hashlib.new(digest_algorithm(diff_id))
        self.archive_bytes = 0
        self._queue: queue.Queue[bytes | Exception | None] = queue.Queue(_QUEUED_BYTES // PIECE)
        self._ended = False
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=in_this_context(self._run), name="inflate", daemon=True
        )

    def __enter__(self) -> BlobReader:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)  # the thread may be waiting for space in the queue
            except queue.Empty:
                continue
        self._thread.join()

    def blocks(self) -> Iterator[bytes]:
        """Yield the archive's bytes; at the end verify the diff ID.

        Raises the exception of `chunks`, LayerError for a corrupt stream, or DigestMismatch.
        """
        while not self._ended:
            block = self._queue.get()
            if isinstance(block, bytes):
                yield block
                continue
            self._ended = True
            if block is not None:
                raise block

    def drain(self) -> None:
        """Read to the end, which raises DigestMismatch if the blob is damaged."""
        for _ in self.blocks():
            pass

    def _run(self) -> None:
        try:
            self._inflate()
        except _StoppedError:
            return
        except Exception as error:  # noqa: BLE001 - passed on, and raised in the reading thread
            self._put_last(error)
        else:
            self._put_last(None)

    def _put_last(self, item: Exception | None) -> None:
        with suppress(_StoppedError):
            self._put(item)

    def _put(self, item: bytes | Exception | None) -> None:
        while True:
            if self._stop.is_set():
                raise _StoppedError
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                continue
            return

    def _inflate(self) -> None:
        try:
            for block in decompress(self._arriving(), self._what):
                if self._diff_hash is not None:
                    self._diff_hash.update(block)
                self.archive_bytes += len(block)
                if self.archive_bytes > self._max_bytes:
                    raise LimitExceeded(
                        f"cannot unpack {self._what}",
                        limit="archive_bytes",
                        allowed=self._max_bytes,
                        why=f"it expands to more than {self._max_bytes} bytes",
                    )
                self._put(block)
        except LimitExceeded:
            raise
        except LayerError:
            # If decompression fails, the blob may be damaged. Then `chunks` raise DigestMismatch.
            for _ in self._arriving():
                pass
            raise
        for _ in self._arriving():  # what follows the archive counts for the digest
            pass
        self._check_diff_id()

    def _check_diff_id(self) -> None:
        if self._diff_hash is None or self._diff_id is None:
            return
        actual = f"{self._diff_hash.name}:{self._diff_hash.hexdigest()}"
        if actual != self._diff_id:
            raise DigestMismatch(
                f"{self._what} does not unpack to the diff ID in the image's config",
                expected=self._diff_id,
                actual=actual,
            )

    def _arriving(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if self._stop.is_set():
                raise _StoppedError
            yield chunk


class _StoppedError(Exception):
    """The consumer stopped reading."""
