"""Read a layer blob: hash and decompress it in a thread, and verify it at its end."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType

from publisher.errors import DigestMismatch
from publisher.layers.decompress import PIECE, decompress
from publisher.layers.errors import LayerError, LimitExceeded
from publisher.log_context import in_this_context
from publisher.oci.descriptor import Descriptor
from publisher.oci.digest import digest_algorithm

_QUEUED_BYTES = 4 * 2**20


class BlobReader:
    """The archive inside a layer blob, as blocks; read, hashed and decompressed in a thread.

    It is a context manager, which ends the thread. The thread iterates over `chunks`, and stops
    once it has `descriptor.size` bytes; more than that is an error. It calls `progress` with the
    compressed size of each chunk. An archive of more than `max_bytes` raises LimitExceeded.
    """

    def __init__(
        self,
        chunks: Iterable[bytes],
        descriptor: Descriptor,
        diff_id: str,
        max_bytes: int,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._chunks = iter(chunks)
        self._descriptor = descriptor
        self._diff_id = diff_id
        self._max_bytes = max_bytes
        self._progress = progress
        self._what = f"layer {descriptor.digest}"
        self._blob_hash = hashlib.new(digest_algorithm(descriptor.digest))
        self._diff_hash = hashlib.new(digest_algorithm(diff_id))
        self._received = 0
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
        """Yield the archive's bytes; at the end of the blob verify digest, size and diff ID.

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
            for block in decompress(self._received_chunks(), self._what):
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
        except (LimitExceeded, _BlobTooLongError):
            raise
        except LayerError:
            # If decompression fails, the blob may be damaged. A digest mismatch is then the error.
            for _ in self._received_chunks():
                pass
            self._check_blob()
            raise
        self._check_blob()
        actual = f"{self._diff_hash.name}:{self._diff_hash.hexdigest()}"
        if actual != self._diff_id:
            raise DigestMismatch(
                f"{self._what} does not unpack to the diff ID in the image's config",
                expected=self._diff_id,
                actual=actual,
            )

    def _received_chunks(self) -> Iterator[bytes]:
        while self._received < self._descriptor.size:
            if self._stop.is_set():
                raise _StoppedError
            chunk = next(self._chunks, None)
            if chunk is None:
                return
            self._received += len(chunk)
            if self._received > self._descriptor.size:
                raise _BlobTooLongError(
                    f"cannot unpack {self._what}",
                    why=f"the blob is longer than the manifest's {self._descriptor.size} bytes",
                )
            self._blob_hash.update(chunk)
            if self._progress is not None:
                self._progress(len(chunk))
            if chunk:
                yield chunk

    def _check_blob(self) -> None:
        actual = f"{self._blob_hash.name}:{self._blob_hash.hexdigest()}"
        if actual != self._descriptor.digest:
            missing = self._descriptor.size - self._received
            raise DigestMismatch(
                f"{self._what} arrived damaged",
                expected=self._descriptor.digest,
                actual=actual,
                hint=f"{missing} bytes are missing at its end" if missing else "",
            )
        if self._received != self._descriptor.size:
            raise LayerError(
                f"cannot unpack {self._what}",
                why=f"it has {self._received} bytes, not the manifest's {self._descriptor.size}",
            )


class _BlobTooLongError(LayerError):
    """The source sends more bytes than the descriptor's size."""


class _StoppedError(Exception):
    """The consumer stopped reading."""
