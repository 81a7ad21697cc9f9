"""The gRPC service `containerd.services.snapshots.v1.Snapshots` on a Unix socket."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from publisher.snapshotter.messages import (
    METHODS,
    SERVICE,
    decoder,
    encoder,
    label_pairs,
    labels_of,
)
from publisher.snapshotter.model import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    Mount,
    NotFound,
    Snapshot,
    SnapshotError,
)
from publisher.snapshotter.snapshotter import Snapshotter

_LOG = logging.getLogger(__name__)
_WORKERS = 8
_LISTED_AT_ONCE = 100
_GRACE_SECONDS = 30
_CODES = {
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
}

Message = dict[str, Any]
Handler = Callable[[Message], Message]


class Service:
    """Serves a snapshotter from `start` to `stop`."""

    def __init__(self, snapshotter: Snapshotter, socket: Path) -> None:
        """Listen on `socket`, which only this user may use.

        Raises:
            OSError: The socket cannot be made.
        """
        self._snapshotter = snapshotter
        self._server = grpc.server(
            ThreadPoolExecutor(_WORKERS, "snapshots"),
            options=[("grpc.max_receive_message_length", 16 * 2**20)],
        )
        self._server.add_generic_rpc_handlers((self._handlers(),))
        socket.parent.mkdir(0o700, parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
        mask = os.umask(0o177)  # of the socket, from its beginning
        try:
            self._server.add_insecure_port(f"unix:{socket}")
        except RuntimeError as error:
            raise OSError(errno.EINVAL, str(error), str(socket)) from error
        finally:
            os.umask(mask)

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self) -> None:
        """Refuse new requests, and wait until those in execution are answered."""
        self._server.stop(grace=_GRACE_SECONDS).wait()

    def _handlers(self) -> Any:
        handlers: dict[str, Handler] = {
            "Prepare": self._prepare,
            "View": self._view,
            "Mounts": self._mounts,
            "Commit": self._commit,
            "Remove": self._remove,
            "Stat": self._stat,
            "Update": self._update,
            "Usage": self._usage,
            "Cleanup": self._cleanup,
        }
        methods = {name: _unary(name, handler) for name, handler in handlers.items()}
        request, response = METHODS["List"]
        methods["List"] = grpc.unary_stream_rpc_method_handler(
            self._list, decoder(request), encoder(response)
        )
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _prepare(self, request: Message) -> Message:
        labels = labels_of(request["labels"])
        return _mounts(self._snapshotter.prepare(request["key"], request["parent"], labels))

    def _view(self, request: Message) -> Message:
        labels = labels_of(request["labels"])
        return _mounts(self._snapshotter.view(request["key"], request["parent"], labels))

    def _mounts(self, request: Message) -> Message:
        return _mounts(self._snapshotter.mounts(request["key"]))

    def _commit(self, request: Message) -> Message:
        labels = labels_of(request["labels"])
        self._snapshotter.commit(request["name"], request["key"], labels, request["parent"])
        return {}

    def _remove(self, request: Message) -> Message:
        self._snapshotter.remove(request["key"])
        return {}

    def _stat(self, request: Message) -> Message:
        return {"info": _info(self._snapshotter.stat(request["key"]))}

    def _update(self, request: Message) -> Message:
        info, paths = request["info"], request["update_mask"]["paths"]
        updated = self._snapshotter.update(info["name"], labels_of(info["labels"]), paths)
        return {"info": _info(updated)}

    def _usage(self, request: Message) -> Message:
        size, inodes = self._snapshotter.usage(request["key"])
        return {"size": size, "inodes": inodes}

    def _cleanup(self, request: Message) -> Message:
        self._snapshotter.cleanup()
        return {}

    def _list(self, request: Message, context: Any) -> Iterator[Message]:
        try:
            found = self._snapshotter.walk(request["filters"])
        except (SnapshotError, OSError) as error:
            context.abort(*_status("List", error))
            return
        for start in range(0, len(found), _LISTED_AT_ONCE):
            part = found[start : start + _LISTED_AT_ONCE]
            yield {"info": [_info(each) for each in part]}


def _unary(method: str, handler: Handler) -> Any:
    """Return the handler of a method, whose errors become gRPC's status codes."""

    def handle(request: Message, context: Any) -> Message:
        try:
            return handler(request)
        except (SnapshotError, OSError) as error:
            context.abort(*_status(method, error))
        raise AssertionError("abort raises an exception")

    request, response = METHODS[method]
    return grpc.unary_unary_rpc_method_handler(handle, decoder(request), encoder(response))


def _status(method: str, error: SnapshotError | OSError) -> tuple[grpc.StatusCode, str]:
    """Return the code and the text of the answer to a request that failed."""
    if isinstance(error, SnapshotError):
        _LOG.debug("%s: %s", method, error)
        return _CODES[type(error)], str(error)
    # Otherwise gRPC would send the name of the exception's class alone.
    text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    text = f"cannot {method.lower()}: {text}"
    _LOG.error(text)
    return grpc.StatusCode.UNKNOWN, text


def _mounts(mounts: Iterable[Mount]) -> Message:
    return {
        "mounts": [
            {"type": mount.type, "source": mount.source, "options": mount.options}
            for mount in mounts
        ]
    }


def _info(snapshot: Snapshot) -> Message:
    return {
        "name": snapshot.name,
        "parent": snapshot.parent,
        "kind": int(snapshot.kind),
        "created_at": _timestamp(snapshot.created),
        "updated_at": _timestamp(snapshot.updated),
        "labels": label_pairs(snapshot.labels),
    }


def _timestamp(nanoseconds: int) -> Message:
    seconds, nanos = divmod(nanoseconds, 10**9)
    return {"seconds": seconds, "nanos": nanos}
