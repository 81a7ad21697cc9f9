"""The answer of a worker process as bytes, and back.

The process that parses an answer does not trust it: the layer may have taken over the worker. An
answer is JSON of bounded size, all of its values are checked for their types, and an error becomes
one of a few known exceptions.
"""

from __future__ import annotations

import errno
import logging
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from publisher.codec import Codec, Malformed
from publisher.errors import DigestMismatch, PublisherError, is_process_limit, printable
from publisher.layers.errors import LayerError, LimitExceeded, NoTemporarySpace, UnsafeName
from publisher.layers.unpack import LayerSummary
from publisher.lazy import dataclass
from publisher.repository import DeviceRefused
from publisher.sandbox import SandboxError
from publisher.workers.errors import WorkerFailed, not_started
from publisher.workers.job import Job, Unpacked

MOST_BYTES = 2**20
"""The size of the largest answer. A hundred names of attributes take less than 200 kB."""

_LONGEST_TEXT = 20_000
_OUT_OF_MEMORY = "MemoryError"
_NO_PROCESS = "NoProcess"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Error:
    """An exception: the name of its class, and its data.

    `number` and `place` are those of an OSError; `why` is then its text. `trace` is the traceback
    of an unexpected exception.
    """

    kind: str
    what: str = ""
    why: str = ""
    hint: str = ""
    limit: str = ""
    allowed: int = 0
    found: int | None = None
    expected: str = ""
    actual: str = ""
    number: int = 0
    place: str = ""
    trace: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    """The summary of the layer, or the error. `lacking` are measures of `publisher.sandbox`."""

    summary: LayerSummary | None = None
    refused: Mapping[str, int] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    error: _Error | None = None


_CODEC = Codec(_Answer, naming=str)
_PLAIN: Mapping[str, Callable[..., PublisherError]] = {
    kind.__name__: kind
    for kind in (LayerError, UnsafeName, NoTemporarySpace, DeviceRefused, SandboxError)
}


def encode_result(unpacked: Unpacked, lacking: Sequence[str]) -> bytes:
    """Return the answer with a result, from a worker whose confinement lacks these measures."""
    return _CODEC.dump(_Answer(unpacked.summary, unpacked.refused, tuple(lacking)))


def encode_end(lacking: Sequence[str]) -> bytes:
    """Return the answer after the contents of a layer were sent."""
    return _CODEC.dump(_Answer(lacking=tuple(lacking)))


def encode_linked(refused: Mapping[str, int], lacking: Sequence[str]) -> bytes:
    """Return the answer after a flat image was linked."""
    return _CODEC.dump(_Answer(refused=refused, lacking=tuple(lacking)))


def encode_error(error: Exception) -> bytes:
    """Return the answer with an error."""
    return _CODEC.dump(_Answer(error=_described(error)))


def _described(error: Exception) -> _Error:
    kind = type(error).__name__
    if isinstance(error, LimitExceeded):
        texts = (error.what, error.why, error.hint)
        return _Error(kind, *texts, limit=error.limit, allowed=error.allowed, found=error.found)
    if isinstance(error, DigestMismatch):
        texts = (error.what, error.why, error.hint)
        return _Error(kind, *texts, expected=error.expected, actual=error.actual)
    if isinstance(error, PublisherError) and kind in _PLAIN:
        return _Error(kind, error.what, error.why, error.hint)
    if is_process_limit(error):
        return _Error(_NO_PROCESS)
    if isinstance(error, OSError) and error.errno is not None:
        place = error.filename if isinstance(error.filename, str) else ""
        return _Error("OSError", why=error.strerror or "", number=error.errno, place=place)
    if isinstance(error, MemoryError):
        return _Error(_OUT_OF_MEMORY)
    trace = "".join(traceback.format_exception(error))[-_LONGEST_TEXT:]
    return _Error(kind, why=str(error)[:_LONGEST_TEXT], trace=trace)


def parse_answer(message: bytes, job: Job) -> Unpacked:
    """Return the result in an answer.

    Raises:
        WorkerFailed: The answer is malformed, or about another layer, or the worker had an
            unexpected error.
        PublisherError: The error that the worker reports.
        OSError: The error that the worker reports.
    """
    what = f"cannot unpack {job.layer}"
    answer = _parsed(message, what)
    summary, wanted = answer.summary, job.descriptor
    if summary is None or (summary.digest, summary.diff_id, summary.size) != (
        wanted.digest,
        job.diff_id,
        wanted.size,
    ):
        raise WorkerFailed(what, why="its worker process has answered about another layer")
    return Unpacked(summary, answer.refused)


def parse_end(message: bytes, what: str) -> None:
    """Check the answer of a worker that has sent the contents of a layer.

    Args:
        message: The answer.
        what: What has failed if it has an error.

    Raises:
        WorkerFailed: The answer is malformed, or the worker had an unexpected error.
        PublisherError: The error that the worker reports.
        OSError: The error that the worker reports.
    """
    _parsed(message, what)


def parse_linked(message: bytes, what: str) -> Mapping[str, int]:
    """Return what the file system refused when a flat image was linked; raises as `parse_end`."""
    return _parsed(message, what).refused


def _parsed(message: bytes, what: str) -> _Answer:
    """Return an answer without an error, or raise its error."""
    try:
        answer = _CODEC.parse(message)
    except Malformed as error:
        raise WorkerFailed(
            what, why=f"the answer of its worker process is malformed: {error}"
        ) from error
    if answer.error is not None:
        raise _exception(answer.error, what)
    if answer.lacking:
        lacking = printable(", ".join(answer.lacking)[:_LONGEST_TEXT])
        _log.debug("%s: a worker process was not confined by: %s", what, lacking)
    return answer


def _exception(error: _Error, what: str) -> Exception:
    texts = {"why": error.why[:_LONGEST_TEXT], "hint": error.hint[:_LONGEST_TEXT]}
    what_failed = error.what[:_LONGEST_TEXT] or what
    match error.kind:
        case "LimitExceeded":
            return LimitExceeded(
                what_failed,
                limit=error.limit[:_LONGEST_TEXT],
                allowed=error.allowed,
                found=error.found,
                why=texts["why"],
            )
        case "DigestMismatch":
            return DigestMismatch(
                what_failed, expected=error.expected, actual=error.actual, hint=texts["hint"]
            )
        case "OSError":
            return OSError(error.number, texts["why"], error.place or None)
        case "NoProcess":
            return not_started(BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
        case "MemoryError":
            return WorkerFailed(
                what,
                why="its worker process needed more memory than it may use",
                hint="free memory, or lower --workers",
            )
    if error.kind in _PLAIN:
        return _PLAIN[error.kind](what_failed, **texts)
    if error.trace:
        trace = printable(error.trace[:_LONGEST_TEXT], keep_line_breaks=True)
        _log.error("unexpected error in the worker process of %s:\n%s", what, trace)
    return WorkerFailed(what, why=f"unexpected error: {error.kind[:100]}: {texts['why']}")
