"""Runs the real `publisher` command as a child process."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from publisher.cli import failures, main
from publisher.error_values import error_value
from publisher.errors import PublisherError
from tests.schemas import output_schema

TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The result document of a command that was called with --output json."""
        return json.loads(self.out)


def error_data(error: PublisherError) -> dict[str, Any]:
    """The `data` of the error's document, which matches its schema."""
    value = error_value(error)
    output_schema("error/1").validate({"schema": "publisher/error/1", "error": value})
    data = value["data"]
    assert isinstance(data, dict)
    return data


def command(*arguments: str | Path) -> list[str]:
    """The words of a `publisher` command."""
    return [sys.executable, "-m", "publisher", *map(str, arguments)]


def environment(home: Path | None = None, **more: str) -> dict[str, str]:
    """An environment without the developer's own settings and credentials."""
    names = ("PATH", "LANG", "PUBLISHER_STATE", "PUBLISHER_WORKERS")
    kept = {key: os.environ[key] for key in names if key in os.environ}
    return {**kept, "HOME": str(home or "/nonexistent"), **more}


def publisher(
    *arguments: str | Path,
    cwd: Path | None = None,
    home: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str = "",
) -> Result:
    """Run `publisher` to its end."""
    variables = environment(home, **(env or {}))
    # Python reads its own variables and the locale when it starts.
    at_start = any(name.startswith(("PYTHON", "LC_")) for name in variables)
    if _forks and not at_start and _server_lock.acquire(blocking=False):
        try:
            return _fork(list(map(str, arguments)), cwd or Path.cwd(), variables, input)
        finally:
            _server_lock.release()
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=variables,
        input=input,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def succeed(*arguments: str | Path, **options: Any) -> Result:
    """Run `publisher`, which must end with 0."""
    result = publisher(*arguments, **options)
    assert result.code == 0, f"exit {result.code}\n{result.out}\n{result.err}"
    return result


# Forked commands ----------------------------------------------------------------------------------

_forks = False
_server: tuple[socket.socket, subprocess.Popen[bytes]] | None = None
_server_lock = threading.Lock()


@contextmanager
def forking_commands() -> Iterator[None]:
    """Within the block, `publisher` forks a process that has imported everything already."""
    global _forks, _server
    assert not _forks, "the end of an inner block would end the outer one"
    _forks = True
    try:
        yield
    finally:
        _forks = False
        if _server is not None:
            channel, process = _server
            _server = None
            channel.close()
            process.wait(60)


def _fork(arguments: list[str], cwd: Path, env: dict[str, str], input: str) -> Result:
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out:
        with tempfile.TemporaryFile() as err:
            stdin.write(input.encode(errors="surrogateescape"))
            stdin.seek(0)
            request = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": env}).encode()
            streams = [file.fileno() for file in (stdin, out, err)]
            code = _ask_server(request, streams)
            out.seek(0)
            err.seek(0)
            return Result(code, _text(out.read()), _text(err.read()))


def _text(data: bytes) -> str:
    return data.decode().replace("\r\n", "\n").replace("\r", "\n")  # as subprocess reads text


def _ask_server(request: bytes, streams: list[int]) -> int:
    server = _running_server()
    socket.send_fds(server, [request], streams)
    with server.makefile("r", newline="\n") as answers:
        pid = int(answers.readline())
        try:
            return int(answers.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            answers.readline()
            raise


def _running_server() -> socket.socket:
    global _server
    if _server is None:
        channel, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.settimeout(TIMEOUT)
        with end:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.command_server", str(end.fileno())],
                cwd=Path(__file__).parents[1],
                env=environment() | _coverage(),
                pass_fds=[end.fileno()],
            )
        _server = channel, process
    return _server[0]


def _coverage() -> dict[str, str]:
    """Return the variables by which coverage, if it runs, measures a child process."""
    return {key: value for key, value in os.environ.items() if key.startswith("COVERAGE_PROCESS_")}


def run_here(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Result:
    """Run `publisher` to its end in this process, which is much quicker than a child.

    What the command does not catch is raised: that is the traceback that a user would see.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["publisher", *map(str, arguments)])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(failures, "prepare_streams", lambda: None)
        for key, value in (env or {}).items():
            patch.setenv(key, value)
        try:
            code = failures.run_reporting_failures(main.publisher)
        except SystemExit as end:  # click's own, for --help and usage errors
            code = int(end.code or 0)
        finally:
            signal.signal(signal.SIGTERM, handler)
    return Result(code, *(_written(each) for each in (out, err)))


def _written(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()
