"""Commands that are killed or fail on purpose; see tests/transactions/server.py."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.command import environment

CHECKOUT = Path(__file__).parents[2]
KILLED = -9


@dataclass(frozen=True, slots=True)
class Ended:
    """The results of commands: the last exit code, the number of operations, the output.

    `failed` is the name of the operation that was the first to fail on purpose, `served` which ones
    began, fed and ended a `cvmfs_server`, `attended` at which ones a worker process existed, began
    or ended.
    """

    code: int
    operations: int
    output: str
    failed: str = ""
    served: tuple[int, ...] = ()
    attended: tuple[int, ...] = ()


class FaultyCommands:
    """Runs commands, several after each other in one process, on the repository `root`."""

    def __init__(self, process: subprocess.Popen[str], scratch: Path) -> None:
        self._process = process
        self._output = scratch / "output"

    def run(
        self,
        root: Path,
        *commands: Sequence[str | Path],
        mode: str = "count",
        at: int = 0,
        code: int = 0,
        only: str = "",
        copies: Collection[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        request = {
            "root": str(root),
            "commands": [[str(word) for word in command] for command in commands],
            "mode": mode,
            "at": at,
            "code": code,
            "only": only,
            "copies": list(copies),
            "env": {**(env or {})},
            "output": str(self._output),
        }
        answer = self._ask(request)
        output = self._output.read_text(errors="replace") if mode != "warm up" else ""
        return Ended(
            answer["code"],
            answer["operations"],
            output,
            answer["failed"],
            tuple(answer["served"]),
            tuple(answer["attended"]),
        )

    def left(self) -> list[str]:
        """The command lines of the processes that commands have left, and that do not end."""
        found: list[str] = self._ask({"mode": "left"})["left"]
        return found

    def _ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def succeed(
        self, root: Path, *commands: Sequence[str | Path], env: Mapping[str, str] | None = None
    ) -> Ended:
        """Run commands that must all end with 0."""
        ended = self.run(root, *commands, env=env)
        assert ended.code == 0, ended.output
        return ended


@contextmanager
def faulty_commands(scratch: Path) -> Iterator[FaultyCommands]:
    """The server, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.transactions.server"],
        cwd=CHECKOUT,
        env=environment(PUBLISHER_WORKERS="0"),  # operations of one process are counted; see Stage
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield FaultyCommands(process, scratch)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(60)
        process.stdout.close()
