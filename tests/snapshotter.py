"""A running `publisher snapshotter`, and a client that speaks to it as containerd does."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from publisher.snapshotter.snapshotter import LAYER_DIGEST, REFERENCE
from tests.components import run

Mount = dict[str, Any]


class Refused(Exception):
    """The service answered with a status other than OK."""

    def __init__(self, error: grpc.RpcError) -> None:
        super().__init__(error.details())
        self.code: str = error.code().name
        self.details: str = error.details()


class Client:
    """Calls the methods of the service at `socket`."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self._stubs = {name: self._stub(name) for name in METHODS}

    def close(self) -> None:
        self._channel.close()

    def call(self, method: str, **request: Any) -> Any:
        words = {"snapshotter": "publisher", **request}
        try:
            answer = self._stubs[method](words, wait_for_ready=True, timeout=60)
            return list(answer) if method == "List" else answer
        except grpc.RpcError as error:
            raise Refused(error) from error

    def _stub(self, method: str) -> Any:
        sent, received = METHODS[method]
        kind = self._channel.unary_stream if method == "List" else self._channel.unary_unary
        return kind(f"/{SERVICE}/{method}", encoder(sent), decoder(received))

    def prepare(
        self, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> list[Mount]:
        mounts = self.call("Prepare", key=key, parent=parent, labels=label_pairs(labels or {}))
        return list(mounts["mounts"])

    def prepare_layer(self, key: str, parent: str, chain: str, digest: str = "") -> list[Mount]:
        """Prepare the extraction of a layer, as containerd's unpacker does."""
        labels = {REFERENCE: chain} | ({LAYER_DIGEST: digest} if digest else {})
        return self.prepare(key, parent, labels)

    def view(
        self, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> list[Mount]:
        mounts = self.call("View", key=key, parent=parent, labels=label_pairs(labels or {}))
        return list(mounts["mounts"])

    def mounts(self, key: str) -> list[Mount]:
        return list(self.call("Mounts", key=key)["mounts"])

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None) -> None:
        self.call("Commit", name=name, key=key, labels=label_pairs(labels or {}))

    def remove(self, key: str) -> None:
        self.call("Remove", key=key)

    def stat(self, key: str) -> dict[str, Any]:
        return _read(self.call("Stat", key=key)["info"])

    def update(self, name: str, labels: Mapping[str, str], *paths: str) -> dict[str, Any]:
        info = {"name": name, "labels": label_pairs(labels), "parent": "ignored"}
        mask = {"paths": list(paths)}
        return _read(self.call("Update", info=info, update_mask=mask)["info"])

    def usage(self, key: str) -> tuple[int, int]:
        answer = self.call("Usage", key=key)
        return answer["size"], answer["inodes"]

    def list(self, *filters: str) -> dict[str, dict[str, Any]]:
        answers = self.call("List", filters=list(filters))
        return {info["name"]: _read(info) for answer in answers for info in answer["info"]}


def _read(info: dict[str, Any]) -> dict[str, Any]:
    return {**info, "labels": labels_of(info["labels"])}


class Running:
    """A snapshotter process that can be killed and started again with the same state."""

    def __init__(self, folder: Path, trees: Sequence[Path], before: Sequence[str] = ()) -> None:
        self._before = before
        self.root = folder / "root"
        self.socket = folder / "s"
        self.log = folder / "log"
        self._trees = trees
        self._process: subprocess.Popen[bytes] | None = None
        self._killed: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Client:
        self._process = self._run("publisher", "snapshotter")
        deadline = time.monotonic() + 60
        while self.log.read_bytes().count(b"serving ") <= self._started:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self.log.read_text())
            time.sleep(0.02)
        self._started += 1
        return Client(self.socket)

    def run_until_step(self, number: int) -> None:
        """Start it such that it kills itself before that step, and wait until it has."""
        if self._killed is None:
            self._killed = self._run("tests.snapshotter_kill", pipe=subprocess.PIPE)
        asked, answers = self._killed.stdin, self._killed.stdout
        assert asked is not None
        assert answers is not None
        asked.write(b"%d\n" % number)
        asked.flush()
        assert select.select([answers], [], [], 120)[0], self.log.read_text()[-2000:]
        assert int(answers.readline()) == -signal.SIGKILL, self.log.read_text()[-2000:]
        self._started = self.log.read_bytes().count(b"serving ")

    def _run(self, *words: str, pipe: int | None = None) -> subprocess.Popen[bytes]:
        trees = [argument for tree in self._trees for argument in ("--tree", str(tree))]
        command = [*self._before, sys.executable, "-m", *words, *trees]
        command += ["--root", str(self.root), "--socket", str(self.socket)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, stdin=pipe, stdout=pipe or log, stderr=log, start_new_session=bool(pipe)
            )

    _started = 0

    def kill(self) -> None:
        """End it as kill -9 does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Terminate it, and return its exit code."""
        if self._killed is not None:
            os.killpg(self._killed.pid, signal.SIGKILL)  # with a child that was not killed
            self._killed.communicate()
            self._killed = None
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def directories(self) -> set[str]:
        """Return the names of the directories of snapshots."""
        return set(os.listdir(self.root / "snapshots"))


@contextmanager
def running(
    folder: Path, *trees: Path, before: Sequence[str] = ()
) -> Iterator[tuple[Running, Client]]:
    """A snapshotter, started by the command `before`, with its client; ended without remains."""
    process = Running(folder, trees, before)
    client = process.start()
    try:
        yield process, client
    finally:
        client.close()
        process.stop()


@contextmanager
def mounted(mounts: Sequence[Mount], place: Path) -> Iterator[Path]:
    """Mount what the service answered, as containerd does, at `place`."""
    place.mkdir(exist_ok=True)
    (mount,) = mounts
    if mount["type"] == "bind":
        run("mount", "--bind", mount["source"], place)
        if "ro" in mount["options"]:
            run("mount", "-o", "remount,bind,ro", place)
    else:
        run("mount", "-t", mount["type"], "-o", ",".join(mount["options"]), mount["source"], place)
    try:
        yield place
    finally:
        run("umount", place)
